"""The benchmarks start: each says what it measures and how it is run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import PROJECT_ROOT

SCRIPTS = (
    "annotations",
    "evaluate",
    "export",
    "loader",
    "masks",
    "memory",
    "plan",
    "predict",
    "slicing",
    "train",
    "validate",
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_explains_itself(name: str) -> None:
    script = PROJECT_ROOT / "benchmarks" / f"{name}.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--small" in done.stdout
    assert "--output" in done.stdout


def test_every_benchmark_is_tried() -> None:
    found = {path.stem for path in (PROJECT_ROOT / "benchmarks").glob("*.py")} - {"machine"}
    assert found == set(SCRIPTS)
