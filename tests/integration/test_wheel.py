"""The wheel: one package and its console script, everything that it needs inside, nothing of the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from maskrcnn.__main__ import COMMANDS
from tests.conftest import PROJECT_ROOT

BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout, place = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT_ROOT / name, checkout)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("maskrcnn", "jobs", "tests"):
        shutil.copytree(PROJECT_ROOT / name, checkout / name, ignore=ignored)
    subprocess.run([sys.executable, "-c", BUILD, str(place)], cwd=checkout, check=True, capture_output=True)
    (path,) = place.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(place)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    return place


def test_the_wheel_holds_the_package_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"maskrcnn", f"{wheel.name.rsplit('-', 3)[0]}.dist-info"}
    assert {"maskrcnn/py.typed", "maskrcnn/__main__.py"} <= set(names)


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", "maskrcnn"], cwd=PROJECT_ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    assert set(tracked.stdout.split()) <= set(zipfile.ZipFile(wheel).namelist())


def test_the_console_script_runs_a_command(installed: Path, tmp_path: Path) -> None:
    done = run_script(installed, tmp_path, "validate", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: maskrcnn validate ")


def test_every_command_of_the_package_is_one_of_the_console_script() -> None:
    shims = {path.stem for path in (PROJECT_ROOT / "jobs").glob("[!_]*.py")}
    assert shims == set(COMMANDS)


def test_the_console_script_says_what_is_wrong_by_its_own_name(installed: Path, tmp_path: Path) -> None:
    refused = run_script(installed, tmp_path, "train")
    told = "maskrcnn train: --images, --annotations, --output must be given; see --help"
    assert (refused.returncode, refused.stderr) == (2, f"{told}\n")
    unknown = run_script(installed, tmp_path, "label")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "COMMAND must be one of" in unknown.stderr
    assert run_script(installed, tmp_path, "--version").stdout.startswith("maskrcnn 0.")


def run_script(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the script as it is installed, away from the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, str(installed / "bin" / "maskrcnn"), *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
