"""The labelling command as a process of its own, over small images; and a reader who looks on all the while."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.conftest import PROJECT_ROOT
from tests.faults.folders import Folder, read_part

STUB_PATH = Path(__file__).with_name("stub")
MAX_RUN_S = 300


def draw_jpegs(num_images: int, *, folder: str = "", seed: int = 0, size_px: int = 32) -> dict[str, bytes]:
    """Draw noise, each image another, under names of its place."""
    rng = np.random.default_rng(seed)
    bodies: dict[str, bytes] = {}
    for place in range(num_images):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (size_px, size_px, 3), dtype=np.uint8)).save(file, "JPEG")
        bodies[f"{folder}img-{place:06d}.jpg"] = file.getvalue()
    return bodies


@dataclass(frozen=True)
class LabellingCommand:
    """``python -m jobs.predict``, always the same, as a user repeats it."""

    bundle_uri: str
    images_uri: str
    output_uri: str
    log_path: Path
    """What it says, one run after the other."""
    rows_per_part: int = 4
    num_actors: int = 1
    stub_s: float | None = 0.0
    """Seconds that the stub network takes an image; None: the bundle's own network."""
    options: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        return [
            sys.executable, "-m", "jobs.predict", "--bundle", self.bundle_uri, "--images", self.images_uri,
            "--output", self.output_uri, "--rows-per-part", str(self.rows_per_part),
            "--num-actors", str(self.num_actors), "--batch-size", "1", *self.options,
        ]  # fmt: skip

    def start(self) -> subprocess.Popen[bytes]:
        """Start it in a session of its own, by which all its processes are found."""
        paths = [str(PROJECT_ROOT)] if self.stub_s is None else [str(STUB_PATH), str(PROJECT_ROOT)]
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1",
            "MASKRCNN_STUB_S": str(self.stub_s or 0),
        }  # fmt: skip
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                self.words, cwd=PROJECT_ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def finish(self, *, timeout_s: float = MAX_RUN_S) -> float:
        """Run it to its end, which must be a good one; gives the seconds that it took."""
        begin = time.monotonic()
        self.expect_done(self.start(), timeout_s=timeout_s)
        return time.monotonic() - begin

    def expect_done(self, driver: subprocess.Popen[bytes], *, timeout_s: float = MAX_RUN_S) -> None:
        assert driver.wait(timeout=timeout_s) == 0, self.last_words()

    def last_words(self) -> str:
        return self.log_path.read_text(errors="replace")[-3000:]


class Reader(threading.Thread):
    """Looks at the table ten times a second and more, as a dashboard would, and notes what is not as promised.

    Every part is read when it is first seen, and one of the others each time: what was there may never change.
    """

    def __init__(self, output: Folder, rows_per_part: int) -> None:
        super().__init__(name="reader", daemon=True)
        self.faults: list[str] = []
        self.num_scans = self.num_reads = 0
        self._output, self._rows_per_part = output, rows_per_part
        self._digests: dict[str, str] = {}
        self._stop_asked = threading.Event()
        self._begin = self._end = 0.0

    def __enter__(self) -> Reader:
        self._begin = time.monotonic()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_asked.set()
        self.join()
        self._end = time.monotonic()

    @property
    def scans_per_s(self) -> float:
        return self.num_scans / (self._end - self._begin)

    def run(self) -> None:
        while not self._stop_asked.wait(0.02):
            try:
                self._scan()
            except Exception as error:
                self.faults.append(f"{type(error).__name__}: {error}")

    def _scan(self) -> None:
        names = [name for name in self._output.names("table/") if name.endswith(".parquet")]
        if gone := self._digests.keys() - set(names):
            self.faults.append(f"gone: {sorted(gone)}")
        again = names[self.num_scans % len(names)] if names else None
        for name in names:
            if name not in self._digests or name == again:
                self._read(name)
        self.num_scans += 1

    def _read(self, name: str) -> None:
        body = self._output.read(name)
        self.num_reads += 1
        digest = hashlib.sha256(body).hexdigest()
        if self._digests.setdefault(name, digest) != digest:
            self.faults.append(f"{name} has changed")
        rows = read_part(body).to_pylist()
        if not 1 <= len(rows) <= self._rows_per_part:
            self.faults.append(f"{name} has {len(rows)} rows")
        for row in rows:
            found = [len(row["instances"] or ()), len(row["masks"] or ())]
            if row["status"] not in ("ok", "error") or found != [row["num_instances"] or 0] * 2:
                self.faults.append(f"{name} has a partial row of {row['image_uri']}")
