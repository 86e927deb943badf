"""Hostile COCO documents, segmentations and results, in the number promised: no crash, no hang.

What must become of each is written in ``tests/property/test_hostile_documents.py``; a process of its own, so that a
crash is a failure here, and so that the numbers are this promise's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

from tests.conftest import PROJECT_ROOT
from tests.faults.figures import record
from tests.faults.scale import scale
from tests.property.test_hostile_documents import MOST_S

NUM_DOCUMENTS = scale(2_000, 100_000)


@pytest.mark.timeout(scale(600, 24 * 3600))
def test_no_document_crashes_or_hangs() -> None:
    # Other documents than `make test` sees, which takes the first.
    environment = os.environ | {"HOSTILE_DOCUMENTS": str(NUM_DOCUMENTS), "HOSTILE_FIRST": "1000000"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/property/test_hostile_documents.py",
    ]
    begin = time.monotonic()
    run = subprocess.run(command, env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert re.search(r"\b3 passed", run.stdout)
    record(
        "hostile-documents",
        documents=NUM_DOCUMENTS,
        segmentations=NUM_DOCUMENTS,
        results=NUM_DOCUMENTS,
        crashed=0,
        slower_than_s={f"{MOST_S:g}": 0},
        seconds=round(time.monotonic() - begin, 1),
    )
