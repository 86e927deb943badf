"""The actor pool on Ray: parts in, one summary row a part out. The only file of the labelling wing that knows Ray.

Only keys travel through Ray, and one summary row a part back: images are read, and parts written, by the actors.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning

from maskrcnn import cluster
from maskrcnn.errors import BrokenDeviceError, ClusterError
from maskrcnn.labelling.labeller import PARTS_IN_HAND
from maskrcnn.labelling.maker import MakerSettings, PartMaker, PartSummary, PartWriter
from maskrcnn.labelling.meters import GpuMeter
from maskrcnn.labelling.plan import PartId, PlannedPart
from maskrcnn.labelling.pool import Pool
from maskrcnn.labelling.results import ImageResult
from maskrcnn.log_lines import LogStyle, log_style, set_up_logs
from maskrcnn.progress import Progress, watched
from maskrcnn.redacted_output import redacted_errors
from maskrcnn.redaction import redact
from maskrcnn.storage import OutageNotice, tell_of_outages

logger = logging.getLogger(__name__)

DEATHS_TO_BLAME = 2
"""Fresh workers that must die on an image before it is called the killer: nodes die too."""


def run_on_pool(
    parts: Sequence[PlannedPart], pool: Pool, settings: MakerSettings, progress: Progress
) -> Iterator[PartSummary]:
    """Make parts on an actor pool; those in which workers keep dying, image by image.

    Yields:
        One summary a part, in the order in which they are done.
    """
    placed = _Counter.options(num_cpus=0, scheduling_strategy=cluster.beside_driver())  # type: ignore[attr-defined]
    counter = placed.remote()

    def look() -> None:
        with suppress(ray.exceptions.RayError):  # a line late is no reason to stop
            for notice in ray.get(counter.take_notices.remote(), timeout=30):
                progress.say(notice)
            progress.update(*ray.get(counter.counts.remote(), timeout=30))

    silent = {part.id: part for part in parts}
    try:
        with watched(look):
            for summary in _run_ray_data(parts, pool, settings, counter):
                del silent[PartId(summary.plan, summary.part)]
                yield summary
            if silent:
                logger.warning("workers died in %d parts; labelling these image by image", len(silent))
                # Ray Data lets go of its actors, but one that was restarting may live on, and keep its GPU.
                for worker in ray.get(counter.pool_workers.remote()):
                    ray.kill(worker)
            with ThreadPoolExecutor(pool.max_actors) as threads:
                yield from threads.map(lambda part: _make_one_by_one(part, pool, settings), silent.values())
    finally:
        ray.kill(counter)


@ray.remote
class _Counter:
    """What the driver is told: images as they are done (what is true is in the table), outages, and the actors."""

    def __init__(self) -> None:
        self._counts = (0, 0)
        self._away: set[str] = set()
        self._notices: list[str] = []
        self._pool_workers: list[Any] = []

    def add(self, num_done: int, num_failed: int) -> None:
        self._counts = (self._counts[0] + num_done, self._counts[1] + num_failed)

    def counts(self) -> tuple[int, int]:
        return self._counts

    def tell_of_outage(self, notice: OutageNotice) -> None:
        if notice.is_away != (notice.root in self._away):  # all workers tell of one outage
            self._away ^= {notice.root}
            self._notices.append(notice.text)

    def take_notices(self) -> list[str]:
        taken, self._notices = self._notices, []
        return taken

    def register(self, pool_worker: Any) -> None:
        self._pool_workers.append(pool_worker)

    def pool_workers(self) -> list[Any]:
        return self._pool_workers


class _PoolWorker:
    """The UDF of the actor pool: a PartMaker, fed a part a call; a second call may come while the first one runs."""

    def __init__(self, settings: MakerSettings, counter: Any, style: LogStyle) -> None:
        set_up_logs(style)
        counter.register.remote(ray.get_runtime_context().current_actor)
        tell_of_outages(lambda notice: counter.tell_of_outage.remote(notice))
        with redacted_errors():
            self._maker = PartMaker(settings, on_progress=lambda done, failed: counter.add.remote(done, failed))
        self._gpu_meter = GpuMeter()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        parts = [_part_from_row(row) for row in batch["part"]]
        with _ending_with_the_device(), redacted_errors():
            summaries = [self._maker.make(part) for part in parts]
        self._gpu_meter.read()
        # As text: the errors of a part are a mapping, which Arrow would turn into columns.
        return {"summary": [json.dumps(asdict(summary)) for summary in summaries]}


class _LoneWorker:
    """Labels single images; its process may die of one."""

    def __init__(self, settings: MakerSettings, style: LogStyle) -> None:
        set_up_logs(style)
        with redacted_errors():
            self._maker = PartMaker(settings)

    def wait_until_ready(self) -> None:
        """Return once the network is loaded, which is done before any call."""

    def label_one(self, part: PlannedPart, place: int) -> ImageResult:
        with _ending_with_the_device(), redacted_errors():
            return self._maker.label_one(part, place)


@contextmanager
def _ending_with_the_device() -> Iterator[None]:
    """End the process where its device is broken: Ray starts a new one, and tries again there."""
    try:
        yield
    except BrokenDeviceError:
        logger.exception("this worker ends")
        os._exit(1)


def _run_ray_data(
    parts: Sequence[PlannedPart], pool: Pool, settings: MakerSettings, counter: Any
) -> Iterator[PartSummary]:
    """Feed parts to the actor pool and stream the summaries back, in whatever order they are done."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A part in which workers keep dying is lost to this pass, not to the job: it is made image by image afterwards.
    context.max_errored_blocks = len(parts)
    rows = [{"part": _row_from_part(part)} for part in parts]
    compute = ray.data.ActorPoolStrategy(
        min_size=pool.min_actors,
        max_size=pool.max_actors,
        max_tasks_in_flight_per_actor=PARTS_IN_HAND,
        max_concurrent_calls_per_actor=PARTS_IN_HAND,
        enable_true_multi_threading=True,
    )
    with warnings.catch_warnings():
        # The two limits have no other door in Ray 2.60; this one is announced to close in 2.64.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        summaries = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _PoolWorker,
            batch_size=1,
            compute=compute,
            fn_constructor_args=(settings, counter, log_style()),
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
            # Ray's defaults try a task that kills its worker for ever.
            max_restarts=-1,
            max_task_retries=2,
        )
    for row in summaries.iter_rows():
        yield PartSummary(**json.loads(row["summary"]))


def _make_one_by_one(part: PlannedPart, pool: Pool, settings: MakerSettings) -> PartSummary:
    """Make a part in which workers keep dying: the image that kills becomes a row, the others are labelled."""
    workers: list[Any] = []

    def label_one(place: int) -> ImageResult:
        reason = ""
        for _ in range(DEATHS_TO_BLAME):
            if not workers:
                workers.append(_start_lone_worker(pool, settings))
            try:
                result: ImageResult = ray.get(workers[-1].label_one.remote(part, place))
            except ray.exceptions.OutOfMemoryError:
                reason = " for want of memory"
                workers.clear()
            except ray.exceptions.RayActorError:
                workers.clear()
            else:
                return result
        message = f"the worker died {DEATHS_TO_BLAME} times{reason} on this image alone; see Ray's worker logs"
        return ImageResult(error_kind="worker_crash", error_message=message)

    def label(keys: pa.Table, _: object) -> list[ImageResult]:
        return [label_one(place) for place in range(len(keys))]

    try:
        return PartWriter(settings).make(part, label)
    except ClusterError as error:
        return PartSummary(part.id.plan, part.id.part, failure=str(error))
    finally:
        for worker in workers:
            ray.kill(worker)


def _start_lone_worker(pool: Pool, settings: MakerSettings) -> Any:
    """Start a worker and wait until it has its network: what fails until then is no image's fault.

    Raises:
        ClusterError: why it could not start.
    """
    worker_class = ray.remote(num_cpus=pool.num_cpus, num_gpus=pool.num_gpus, max_restarts=0)(_LoneWorker)
    reason = ""
    for _ in range(DEATHS_TO_BLAME):
        worker: Any = worker_class.remote(settings, log_style())
        try:
            ray.get(worker.wait_until_ready.remote())
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            reason = redact(str(error).strip().splitlines()[-1])
        else:
            return worker
    raise ClusterError("a worker", f"must start, and did not: {reason}")


def _row_from_part(part: PlannedPart) -> dict[str, Any]:
    return {"plan": part.id.plan, "part": part.id.part, "date": part.date, "num_images": part.num_images}


def _part_from_row(row: dict[str, Any]) -> PlannedPart:
    return PlannedPart(PartId(int(row["plan"]), int(row["part"])), row["date"], int(row["num_images"]))
