"""The group of workers on Ray Train: how many, with what, how often they are replaced, and what the driver shows."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from maskrcnn import cluster, storage
from maskrcnn.coco.annotations import CocoDataset
from maskrcnn.errors import ClusterError, MaskrcnnError, TrainingFailedError
from maskrcnn.log_lines import log_style
from maskrcnn.progress import LiveLine, watched
from maskrcnn.training.checkpoint import TrainState
from maskrcnn.training.group import WorkerGroup
from maskrcnn.training.loop import LoopSettings, train_worker
from maskrcnn.training.metrics import Glance, glance_line
from maskrcnn.training.settings import RunSettings

logger = logging.getLogger(__name__)

COLLECTIVE_TIMEOUT_S = 300
"""How long ranks wait for each other before a training is taken for stuck; longer than any validation's scoring."""
ELASTIC_CHECK_S = 60.0


@ray.remote
class _Board:
    """What rank 0 pins up for the driver, and what no other attempt will mend."""

    def __init__(self) -> None:
        self._glance: Glance | None = None
        self._news: list[str] = []
        self._failure: MaskrcnnError | None = None
        self._state: TrainState | None = None

    def show(self, glance: Glance) -> None:
        self._glance = glance

    def say(self, text: str) -> None:
        self._news.append(text)

    def look(self) -> tuple[Glance | None, list[str]]:
        news, self._news = self._news, []
        return self._glance, news

    def fail(self, error: MaskrcnnError) -> None:
        self._failure = self._failure or error

    def failure(self) -> MaskrcnnError | None:
        return self._failure

    def finish(self, state: TrainState) -> None:
        self._state = state

    def finished(self) -> TrainState | None:
        return self._state


def run_group(
    settings: RunSettings, group: WorkerGroup, train: CocoDataset, val: CocoDataset | None, *, max_failures: int
) -> TrainState:
    """Train on a group of workers until the last step, replacing workers that are lost.

    Args:
        settings: what every worker is told.
        group: how many workers, with what.
        train: what is learnt; one copy a machine.
        val: what is validated with.
        max_failures: how often workers may be lost.

    Raises:
        MaskrcnnError: what made the training fail.
    """
    num_workers = group.max_workers
    placed = _Board.options(num_cpus=0, scheduling_strategy=cluster.beside_driver())  # type: ignore[attr-defined]
    board = placed.remote()
    loop_settings = LoopSettings(
        run=settings,
        train_ref=ray.put(train),
        val_ref=None if val is None else ray.put(val),
        board=board,
        uses_gpu=group.num_gpus > 0,
        num_threads=group.num_cpus,
        reached_stores=storage.reached_stores(),
        log_style=log_style(),
    )
    is_elastic = group.min_workers < group.max_workers
    # Ray's own notes of a run; ours are in the output, and go on without them.
    folder = tempfile.mkdtemp(prefix="maskrcnn-ray-train-")
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"settings": loop_settings},
        torch_config=TorchConfig(timeout_s=COLLECTIVE_TIMEOUT_S),
        scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]
            num_workers=(group.min_workers, num_workers) if is_elastic else num_workers,  # type: ignore[arg-type]
            use_gpu=group.num_gpus > 0,
            resources_per_worker={"CPU": group.num_cpus, **({"GPU": 1} if group.num_gpus else {})},
            elastic_resize_monitor_interval_s=ELASTIC_CHECK_S,
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]
            name="train",
            storage_path=folder,
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        with _shown(board):
            trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _cause(board, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    state: TrainState | None = ray.get(board.finished.remote())
    if state is None:
        raise ClusterError("training", "must end with its last step, and did not")
    return state


def _cause(board: Any, error: Exception) -> MaskrcnnError:
    """Say in one line what made a training fail."""
    failure: MaskrcnnError | None = ray.get(board.failure.remote())
    if failure is not None:
        return failure
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    named = [f"rank {rank}: {_last_line(each)}" for rank, each in sorted(failures.items())]
    return TrainingFailedError("; ".join(named) or _last_line(error))


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


@contextmanager
def _shown(board: Any) -> Iterator[None]:
    """Show what rank 0 pins up, while the workers train."""
    live = LiveLine(sys.stdout)

    def look() -> None:
        try:
            glance, news = ray.get(board.look.remote(), timeout=30)
        except ray.exceptions.RayError:
            return  # a line late is no reason to stop
        for text in news:
            live.say(text)
        if glance is not None:
            live.show(glance_line(glance), is_last=glance.step == glance.max_steps)

    try:
        with watched(look):
            yield
    finally:
        look()
        live.close()
