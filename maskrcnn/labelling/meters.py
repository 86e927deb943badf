"""What Prometheus is told of a run, through Ray: the driver's counts are those of the run's record.

Ray puts `ray_` before a name and `_total` behind a counter's; deploy/README.md says what each one is for.
"""

from __future__ import annotations

import logging
import string
from dataclasses import dataclass
from urllib.parse import quote

import ray
import torch
from ray.util.metrics import Counter, Gauge

from maskrcnn import cluster
from maskrcnn.errors import ClusterError
from maskrcnn.labelling.maker import PartSummary
from maskrcnn.labelling.protocol import Reconciled
from maskrcnn.labelling.stages import STAGES
from maskrcnn.redaction import redact

logger = logging.getLogger(__name__)

OF_RUN = ("output", "sample")
"""Tags of every metric that a driver tells: a try, or a sample, must not pass for the night."""


@dataclass(frozen=True)
class Metric:
    """A metric that is exported."""

    name: str
    text: str
    tags: tuple[str, ...]


RUNS = Metric("maskrcnn_runs", "Runs that came to their end: complete, or with parts left.", (*OF_RUN, "result"))
IMAGES = Metric("maskrcnn_images", "Images that have their row, by what it says.", (*OF_RUN, "status", "error_kind"))
INSTANCES = Metric("maskrcnn_instances", "Detections in these rows.", OF_RUN)
BYTES_READ = Metric("maskrcnn_bytes_read", "Bytes of these images.", OF_RUN)
STAGE_SECONDS = Metric(
    "maskrcnn_stage_seconds", "Seconds by stage; of reading and decoding, of all threads.", (*OF_RUN, "stage")
)
PARTS = Metric(
    "maskrcnn_parts", "Parts by what came of them: made, found (another made it), failed.", (*OF_RUN, "result")
)
IMAGES_PLANNED = Metric("maskrcnn_run_images_planned", "Images that the run set out to label.", OF_RUN)
IMAGES_LEFT = Metric("maskrcnn_run_images_left", "Images whose part is not in the table yet.", OF_RUN)
GPU_MEMORY = Metric("maskrcnn_gpu_memory_peak_bytes", "The most that a worker's torch held on its GPU.", ("kind",))

COUNTERS = (RUNS, IMAGES, INSTANCES, BYTES_READ, STAGE_SECONDS, PARTS)
GAUGES = (IMAGES_PLANNED, IMAGES_LEFT, GPU_MEMORY)


class RunMeters:
    """The driver's metrics of one run.

    Counted from the parts' summaries, and by one process: a worker that dies takes no counts with it, and a part that
    is tried again is counted once. What counts at the end is a counter, since Ray forgets a driver's gauges within a
    minute of its end, and keeps its counters while the node lives.

    Args:
        output_uri: the run's OUTPUT.
        is_sample: whether it labels only a sample.
    """

    def __init__(self, output_uri: str, *, is_sample: bool) -> None:
        output = quote(redact(output_uri), safe=string.punctuation)  # Ray takes ASCII
        self._of_run = {"output": output, "sample": "yes" if is_sample else "no"}
        self._counters: dict[Metric, Counter] = {}
        self._gauges: dict[Metric, Gauge] = {}
        self._num_left = 0

    def begin(self, num_images: int) -> None:
        """Say what the run sets out to label; Ray must be up."""
        self._num_left = num_images
        self._set(IMAGES_PLANNED, num_images)
        self._set(IMAGES_LEFT, num_images)

    def add(self, summary: PartSummary) -> None:
        """Count one part."""
        if summary.failure:
            self._count(PARTS, 1, result="failed")
            return
        self._num_left -= summary.num_images
        self._set(IMAGES_LEFT, self._num_left)
        if summary.was_there:
            self._count(PARTS, 1, result="found")
            return
        self._count(PARTS, 1, result="made")
        self._count(IMAGES, summary.num_images - sum(summary.errors.values()), status="ok", error_kind="")
        for kind, num_images in summary.errors.items():
            self._count(IMAGES, num_images, status="error", error_kind=kind)
        self._count(INSTANCES, summary.num_instances)
        self._count(BYTES_READ, summary.num_bytes)
        for stage in STAGES:
            self._count(STAGE_SECONDS, getattr(summary, f"{stage}_s"), stage=stage)

    def finish(self, reconciled: Reconciled) -> None:
        """Say how the run ended; on a cluster also where there was nothing to do, as on a night without photos."""
        if not _has_ray():
            return
        self._set(IMAGES_LEFT, sum(part.num_images for part in reconciled.parts_left))
        self._count(RUNS, 1, result="incomplete" if reconciled.parts_left else "complete")

    def _count(self, metric: Metric, number: float, **tags: str) -> None:
        if metric not in self._counters:
            self._counters[metric] = Counter(metric.name, metric.text, metric.tags)
        if number:  # Ray takes no zero
            self._counters[metric].inc(number, tags=self._of_run | tags)

    def _set(self, metric: Metric, number: float) -> None:
        if metric not in self._gauges:
            self._gauges[metric] = _gauge(metric)
        self._gauges[metric].set(number, tags=self._of_run)


class GpuMeter:
    """A worker's metric of its GPU; nothing where there is none."""

    def __init__(self) -> None:
        self._gauge = _gauge(GPU_MEMORY) if torch.cuda.is_available() else None

    def read(self) -> None:
        """Tell the peaks since the worker's start."""
        if self._gauge is not None:
            self._gauge.set(torch.cuda.max_memory_allocated(), tags={"kind": "allocated"})
            self._gauge.set(torch.cuda.max_memory_reserved(), tags={"kind": "reserved"})


def exported_names() -> frozenset[str]:
    """Give the names under which Prometheus finds the metrics."""
    return frozenset([f"ray_{metric.name}_total" for metric in COUNTERS] + [f"ray_{metric.name}" for metric in GAUGES])


def _has_ray() -> bool:
    """Say whether Ray is up, joining the cluster that the job runs on where it was not needed so far."""
    if not ray.is_initialized() and cluster.is_on_cluster():
        try:
            cluster.connect()
        except ClusterError as error:  # the night is labelled all the same
            logger.warning("Prometheus is not told of this run: %s", error)
    return bool(ray.is_initialized())


def _gauge(metric: Metric) -> Gauge:
    return Gauge(metric.name, metric.text, metric.tags)
