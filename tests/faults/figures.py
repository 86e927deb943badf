"""What the promises' tests have seen, as JSON: one file a promise, of the last small and the last soak run."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.scale import scale

RESULTS = Path(__file__).with_name("results")


def record(promise: str, **figures: Any) -> None:
    """Keep the figures of a promise that was just seen kept.

    Args:
        promise: its name, as in docs/RELIABILITY.md; the name of the file as well.
        figures: numbers, or short words.
    """
    folder = RESULTS / scale("small", "soak")
    folder.mkdir(parents=True, exist_ok=True)
    seen = {"promise": promise, "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": _machine(), "figures": figures}
    (folder / f"{promise}.json").write_text(json.dumps(seen, indent=2) + "\n")


def _machine() -> str:
    return f"{len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.machine()}"
