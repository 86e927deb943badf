"""The training loop, as every worker of a Ray Train group runs it: resume, validate if due, save if due, learn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from maskrcnn import storage
from maskrcnn.errors import InputError, NonFiniteError
from maskrcnn.log_lines import LogStyle, set_up_logs
from maskrcnn.redacted_output import redacted_errors
from maskrcnn.training.image_cache import ImageCache
from maskrcnn.training.settings import Place, RunSettings
from maskrcnn.training.worker import WorkerRun


@dataclass(frozen=True)
class LoopSettings:
    """What a worker needs on Ray."""

    run: RunSettings
    train_ref: Any
    """Ray's reference to the annotations: one copy a machine."""
    val_ref: Any
    board: Any
    """The actor that the driver watches."""
    uses_gpu: bool
    num_threads: int
    reached_stores: tuple[str, ...]
    """By the driver: workers wait for these when they are away."""
    log_style: LogStyle


def train_worker(worker_config: dict[str, Any]) -> None:
    """Train, as one worker of a group; nothing that it says or dies of tells a secret."""
    settings: LoopSettings = worker_config["settings"]
    set_up_logs(settings.log_style)
    storage.expect_outages(settings.reached_stores)
    with redacted_errors():
        _train(settings)


def _train(settings: LoopSettings) -> None:
    """Train; what is done once in a while stands before the step, and the loop comes round once after the last one."""
    failure = ray.get(settings.board.failure.remote())
    if failure is not None:  # what another attempt will not mend
        _remove_cache(settings.run)
        raise failure
    try:
        run = _build_run(settings)
        run.resume()
        while True:
            run.validate_if_due()
            run.save_if_due()
            if run.is_done:
                break
            run.learn()
        state = run.finish()
    except (InputError, NonFiniteError) as error:
        ray.get(settings.board.fail.remote(error))
        _remove_cache(settings.run)
        raise
    if ray.train.get_context().get_world_rank() == 0:  # the others know no scores
        ray.get(settings.board.finish.remote(state))


def _remove_cache(run: RunSettings) -> None:
    """Free this machine's disk, at the end of a training that failed for good."""
    ImageCache(run.output_uri, run.run_id, max_bytes=0).remove()


def _build_run(settings: LoopSettings) -> WorkerRun:
    context, board = ray.train.get_context(), settings.board
    torch.set_num_threads(settings.num_threads)
    place = Place(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        device=ray.train.torch.get_device() if settings.uses_gpu else torch.device("cpu"),
        say=lambda text: board.say.remote(text),
        show=lambda glance: board.show.remote(glance),
        mark=lambda step: ray.train.report({"step": step}),
        is_preempted=lambda: ray.train.get_preemption_info() is not None,
    )
    val = None if settings.val_ref is None else ray.get(settings.val_ref)
    return WorkerRun(settings.run, place, ray.get(settings.train_ref), val)
