"""Killed again and again, started twice at once: every image ends up in exactly one row."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from maskrcnn import read_predictions
from tests.conftest import PROJECT_ROOT
from tests.integration.test_labelling_job import write_images

NUM_KILLS = int(os.environ.get("NUM_KILLS", "10"))
NUM_IMAGES = 48
ROWS_PER_PART = 4


def predict_command(bundle: str, images: Path, output: Path) -> list[str]:
    return [
        sys.executable, "-m", "jobs.predict", "--bundle", bundle, "--images", str(images), "--output", str(output),
        "--rows-per-part", str(ROWS_PER_PART), "--num-actors", "1",
    ]  # fmt: skip


def start(command: list[str], log_path: Path) -> subprocess.Popen[bytes]:
    with log_path.open("ab") as log:
        return subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=log, stderr=log, start_new_session=True)


class Reader(threading.Thread):
    """Scans the table all the while, as a dashboard would, and notes what it could not read."""

    def __init__(self, table: Path) -> None:
        super().__init__(daemon=True)
        self.table = table
        self.faults: list[str] = []
        self.num_scans = 0
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(0.05):
            self.num_scans += 1
            for path in self.table.rglob("*.parquet"):
                try:
                    rows = pq.read_table(path, columns=["image_uri", "status"], partitioning=None)
                    if not 1 <= len(rows) <= ROWS_PER_PART:
                        self.faults.append(f"{path.name} has {len(rows)} rows")
                except Exception as error:
                    self.faults.append(f"{path.name}: {error}")

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


def rows_by_image(output: Path) -> Counter[str]:
    """Count rows straight from the files: nothing that could hide a double row."""
    rows: Counter[str] = Counter()
    for path in (output / "table").rglob("*.parquet"):
        rows.update(pq.read_table(path, columns=["image_uri"], partitioning=None)["image_uri"].to_pylist())
    return rows


@pytest.mark.timeout(900)
def test_a_driver_killed_at_random_moments_loses_and_doubles_nothing(tiny_bundle: str, tmp_path: Path) -> None:
    images, output, log = write_images(tmp_path / "in", NUM_IMAGES), tmp_path / "out", tmp_path / "log"
    expected = {str(path): 1 for path in images.iterdir()}
    command = predict_command(tiny_bundle, images, output)
    rng = random.Random(20261122)
    (output / "table").mkdir(parents=True)
    reader = Reader(output / "table")
    reader.start()
    progress = []
    for _ in range(NUM_KILLS):
        driver = start(command, log)
        # From the middle of the imports to the middle of the parts.
        deadline = time.monotonic() + rng.uniform(1, 14)
        while time.monotonic() < deadline and driver.poll() is None:
            time.sleep(0.02)
        if driver.poll() is None:
            os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        progress.append(len(list((output / "table").rglob("*.parquet"))))
    clean = start(command, log)
    assert clean.wait(timeout=300) == 0, log.read_text()[-3000:]
    reader.stop()
    assert reader.faults == []
    assert reader.num_scans > 50
    assert rows_by_image(output) == expected
    assert set(read_predictions(str(output))["status"].to_pylist()) == {"ok"}
    assert (output / "complete" / "all.json").exists()
    assert progress == sorted(progress), "a part was taken away"

    again = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0
    assert "nothing was left to do" in again.stdout


@pytest.mark.timeout(600)
def test_two_drivers_at_once_label_each_image_once(tiny_bundle: str, tmp_path: Path) -> None:
    images, output, log = write_images(tmp_path / "in", NUM_IMAGES), tmp_path / "out", tmp_path / "log"
    command = predict_command(tiny_bundle, images, output)
    drivers = [start(command, log), start(command, log)]
    assert [driver.wait(timeout=300) for driver in drivers] == [0, 0], log.read_text()[-3000:]
    assert rows_by_image(output) == {str(path): 1 for path in images.iterdir()}
    assert len(list((output / "plans").iterdir())) == 1
    assert len(list((output / "runs").iterdir())) == 2
