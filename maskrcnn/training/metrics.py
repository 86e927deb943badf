"""What a training says of itself: metrics.jsonl and TensorBoard scalars in the output, and the line to watch."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn import storage
from maskrcnn.errors import NotFoundError, StorageError
from maskrcnn.progress import BAR_WIDTH, clock

logger = logging.getLogger(__name__)

METRICS_NAME = "metrics.jsonl"
FLUSH_S = 20.0
_SCORES = ("AP", "AP50", "AP75")


class MetricsLog:
    """Collects lines, and writes them all now and then: object stores cannot append.

    Args:
        output_uri: of the training.
        step: where it goes on; lines of later steps, from an attempt that died, are dropped.
    """

    def __init__(self, output_uri: str, step: int) -> None:
        self._output_uri = output_uri
        self._uri = storage.join(output_uri, METRICS_NAME)
        self._lines = [
            json.dumps(line) for line in read_metrics(output_uri) if line["step"] < step or _scores_at(line, step)
        ]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._last: Future[None] | None = None
        self._flushed_s = time.monotonic()
        self._board_folder = Path(tempfile.mkdtemp(prefix="maskrcnn-tensorboard-"))
        self._board = _open_board(self._board_folder)

    def add(self, line: dict[str, Any]) -> None:
        """Add a line; it has a ``step``."""
        self._lines.append(json.dumps(line))
        if self._board is not None:
            for name, value in _scalars(line).items():
                self._board.add_scalar(name, value, line["step"])
        if time.monotonic() - self._flushed_s > FLUSH_S and (self._last is None or self._last.done()):
            self.flush()

    def flush(self) -> None:
        """Begin to write what there is."""
        self._flushed_s = time.monotonic()
        body = "".join(f"{line}\n" for line in self._lines).encode()
        self._last = self._thread.submit(self._write, body)

    def wait(self) -> None:
        """Wait until what was flushed is written."""
        if self._last is not None:
            self._last.result()

    def close(self) -> None:
        """Write everything, and wait for it."""
        self.flush()
        self._thread.shutdown(wait=True)
        if self._board is not None:
            self._board.close()
        shutil.rmtree(self._board_folder, ignore_errors=True)

    def _write(self, body: bytes) -> None:
        try:
            storage.put(self._uri, body)
            if self._board is not None:
                self._board.flush()
                for path in self._board_folder.iterdir():
                    storage.put(storage.join(self._output_uri, "tensorboard", path.name), path.read_bytes())
        except StorageError as error:  # the next flush writes these lines too
            logger.warning("metrics could not be written: %s", error)


def read_metrics(output_uri: str) -> list[dict[str, Any]]:
    """Read a training's metrics; none where there are none. A line that was cut off ends them."""
    try:
        body = storage.read_bytes(storage.join(output_uri, METRICS_NAME))
    except NotFoundError:
        return []
    lines: list[dict[str, Any]] = []
    for text in body.decode("utf-8", "replace").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _scores_at(line: dict[str, Any], step: int) -> bool:
    """Say whether a line is the validation of the state that a training goes on with."""
    return line["step"] == step and "validation" in line


def _open_board(folder: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        logger.warning("tensorboardX is not installed: no TensorBoard scalars are written")
        return None
    return SummaryWriter(str(folder))


def _scalars(line: dict[str, Any]) -> dict[str, float]:
    if "validation" in line:
        found = ((kind, row) for kind, row in line["validation"].items() if kind in ("bbox", "segm"))
        return {f"validation/{kind}_{name}": row[name] for kind, row in found for name in _SCORES}
    losses = {f"train/{name}": value for name, value in line["losses"].items()}
    others = ("loss", "learning_rate", "grad_norm", "images_per_s", "data_wait_s")
    return losses | {f"train/{name}": line[name] for name in others if name in line}


@dataclass(frozen=True)
class Glance:
    """What people see of a training at one moment."""

    step: int
    max_steps: int
    epoch: int
    losses: dict[str, float]
    """Smoothed."""
    images_per_s: float
    data_wait_share: float
    """Of the time, spent waiting for images."""
    memory_bytes: int
    """The largest worker's, on its device."""
    seconds_left: float
    scores: dict[str, float] | None = None
    """The last validation's segm AP and AP50."""


def glance_line(glance: Glance) -> str:
    """Say where a training stands, in one line."""
    share = glance.step / glance.max_steps
    loss = sum(glance.losses.values())
    parts = " ".join(f"{name.removeprefix('loss_')} {value:.2f}" for name, value in glance.losses.items())
    line = (
        f"training {'━' * round(share * BAR_WIDTH):<{BAR_WIDTH}} step {glance.step:,}/{glance.max_steps:,}  "
        f"epoch {glance.epoch}  loss {loss:.3f} ({parts})  {glance.images_per_s:.1f} img/s  "
        f"data wait {glance.data_wait_share:.0%}  {glance.memory_bytes / 2**30:.1f} GiB  "
        f"ETA {clock(glance.seconds_left)}"
    )
    if glance.scores:
        line += f"  mAP {glance.scores['AP']:.3f}  mAP@0.5 {glance.scores['AP50']:.3f}"
    return line
