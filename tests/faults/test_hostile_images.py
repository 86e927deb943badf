"""Hostile images: no worker dies of one, each is a row within seconds, and memory stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import PROJECT_ROOT
from tests.faults.figures import record
from tests.faults.scale import scale

NUM_IMAGES = scale(500, 20_000)
MOST_S = 10.0
MOST_MB = 200.0
MOST_MB_TOO_LARGE = 8.0


@pytest.mark.timeout(scale(300, 6 * 3600))
def test_no_worker_dies_of_an_image_or_waits_for_it() -> None:
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.faults.hostile_worker", str(NUM_IMAGES)]
    run = subprocess.run(command, env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    seen = json.loads(run.stdout)
    rows = seen["rows"]
    assert sum(rows.values()) == NUM_IMAGES
    assert rows.keys() == {"ok", "corrupt", "unsupported", "too_large"}
    assert min(rows.values()) >= NUM_IMAGES / 20  # that they are as various as they are meant to be
    assert seen["slowest_s"] < MOST_S
    assert seen["grown_mb"] < MOST_MB
    assert seen["too_large_mb"] < MOST_MB_TOO_LARGE
    record("hostile-images", images=NUM_IMAGES, died=0, **seen)
