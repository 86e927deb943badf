"""The benchmarks start: each says what it measures and how it is run."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import PROJECT_ROOT

SCRIPTS = (
    "annotations",
    "evaluate",
    "export",
    "loader",
    "masks",
    "memory",
    "pipeline",
    "plan",
    "predict",
    "report",
    "scale",
    "slicing",
    "storage",
    "timeline",
    "train",
    "train_quality",
    "validate",
)


@pytest.fixture(scope="module")
def explanations() -> dict[str, subprocess.CompletedProcess[str]]:
    """Ask all, two at a time: importing torch is most of it."""

    def ask(name: str) -> subprocess.CompletedProcess[str]:
        script = PROJECT_ROOT / "benchmarks" / f"{name}.py"
        return subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, timeout=120)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(SCRIPTS, pool.map(ask, SCRIPTS), strict=True))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_explains_itself(explanations: dict[str, subprocess.CompletedProcess[str]], name: str) -> None:
    done = explanations[name]
    assert done.returncode == 0, done.stderr
    assert "--small" in done.stdout
    assert "--output" in done.stdout


def test_every_benchmark_is_tried() -> None:
    found = {path.stem for path in (PROJECT_ROOT / "benchmarks").glob("*.py")} - {
        "machine",
        "object_server",
        "random_network",
        "reference_training",
        "tables",
    }
    assert found == set(SCRIPTS)


def test_the_tables_are_what_the_figures_say() -> None:
    script = PROJECT_ROOT / "benchmarks" / "tables.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
