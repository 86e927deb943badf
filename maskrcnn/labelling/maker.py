"""One worker of the pool: makes parts, a few at a time. Knows the protocol, the output and the labeller; no Ray."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch

from maskrcnn import storage
from maskrcnn.config import Device, MasksKept, Precision, SliceConfig, ThresholdConfig
from maskrcnn.errors import BundleError, StorageError
from maskrcnn.labelling.labeller import Labeller
from maskrcnn.labelling.manifest import total_bytes
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan import PlannedPart
from maskrcnn.labelling.plan_files import PlanFile, read_again_if_damaged
from maskrcnn.labelling.protocol import LabelledPart, LabelPart, PartExists, PutMarker, PutPart, converse, make_part
from maskrcnn.labelling.results import ImageResult, ListedImage
from maskrcnn.labelling.stages import Span, StageSeconds
from maskrcnn.labelling.table import RunStamp, build_part, part_to_parquet
from maskrcnn.model.loading import load_predictor

MAX_OPEN_PLANS = 4


@dataclass(frozen=True)
class MakerSettings:
    """Everything a worker needs to know; travels to every actor once."""

    bundle_uri: str
    bundle_sha256: str
    output_uri: str
    run_id: str
    thresholds: ThresholdConfig
    mask_nms: float | None
    slicing: SliceConfig | None
    category_names: dict[int, str]
    device: Device
    precision: Precision
    batch_size: int
    masks: MasksKept
    max_pixels: int
    num_threads: int
    """For torch and for decoding."""
    reached_stores: tuple[str, ...] = ()
    """By the driver: workers wait for these when they are away."""


@dataclass(frozen=True)
class PartSummary:
    """What is streamed back to the driver: one row a part, never an image."""

    plan: int
    part: int
    was_there: bool = False
    num_images: int = 0
    num_instances: int = 0
    num_bytes: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    """Images by error kind."""
    read_s: float = 0.0
    decode_s: float = 0.0
    predict_s: float = 0.0
    put_s: float = 0.0
    began_at: float = 0.0
    """Unix time, by the worker's clock."""
    seconds: float = 0.0
    """From then to its put."""
    failure: str = ""
    """Why the part could not be made, as far as the worker lived to say it."""


class PartMaker:
    """Makes parts with one network, loaded once; `PARTS_IN_HAND` threads may ask at once."""

    def __init__(
        self,
        settings: MakerSettings,
        on_progress: Callable[[int, int], None] = lambda *_: None,
        *,
        keeps_spans: bool = False,
    ) -> None:
        storage.expect_outages(settings.reached_stores)
        self._on_progress = on_progress
        self._writer = PartWriter(settings, keeps_spans=keeps_spans)
        # One network an actor: its threads are the actor's CPUs; but Ray may be told of more CPUs than there are, and
        # threads that fight over a core are many times slower than one.
        num_threads = min(settings.num_threads, len(os.sched_getaffinity(0)))
        torch.set_num_threads(num_threads)
        predictor = load_predictor(
            settings.bundle_uri,
            thresholds=settings.thresholds,
            device=settings.device,
            precision=settings.precision,
            mask_nms=settings.mask_nms,
            slicing=settings.slicing,
            batch_size=settings.batch_size,
        )
        if predictor.bundle_sha256 != settings.bundle_sha256:
            raise BundleError("the bundle", "changed while the job was running", settings.bundle_uri)
        self._labeller = Labeller(
            predictor,
            batch_size=settings.batch_size,
            num_decoders=num_threads,
            with_masks=settings.masks == "full",
            max_pixels=settings.max_pixels,
        )

    @property
    def spans(self) -> list[Span]:
        """Give every piece of work so far, where they are kept."""
        return self._writer.spans

    def make(self, part: PlannedPart) -> PartSummary:
        """Make one part, unless it is there; storage failures are told, not raised."""
        return self._writer.make(part, self._label)

    def label_one(self, part: PlannedPart, place: int) -> ImageResult:
        """Label a single image of a part: for parts in which a worker keeps dying."""
        return self._label(self._writer.read_keys(part).slice(place, 1), StageSeconds())[0]

    def _label(self, keys: pa.Table, seconds: StageSeconds) -> list[ImageResult]:
        rows = zip(*(keys[name].to_pylist() for name in ("image_uri", "etag", "size")), strict=True)
        images = [ListedImage(*row) for row in rows]
        return self._labeller.label(
            images, seconds, on_result=lambda result: self._on_progress(1, int(result.error_kind is not None))
        )


class PartWriter:
    """Carries one part through the protocol; whoever calls says how its images are labelled."""

    def __init__(self, settings: MakerSettings, *, keeps_spans: bool = False) -> None:
        self.spans: list[Span] = []
        self._keeps_spans = keeps_spans
        self._output = Output(settings.output_uri)
        self._open_plans: OrderedDict[int, PlanFile] = OrderedDict()
        self._plans_lock = threading.Lock()
        self._stamp = RunStamp(
            run_id=settings.run_id,
            bundle_sha256=settings.bundle_sha256,
            score_threshold=settings.thresholds.score_threshold,
            category_names=settings.category_names,
            masks=settings.masks,
        )

    def make(self, part: PlannedPart, label: Callable[[pa.Table, StageSeconds], list[ImageResult]]) -> PartSummary:
        """Make one part, unless it is there; a store's failure is told, not raised.

        Args:
            part: the part.
            label: given the part's rows of its plan, labels their images, adding to the seconds.
        """
        began_at = time.time()
        seconds = StageSeconds(keeps_spans=self._keeps_spans)
        keys: pa.Table | None = None
        results: list[ImageResult] = []

        def answer(request: Any) -> Any:
            nonlocal keys, results
            match request:
                case PartExists():
                    return storage.exists(self._output.part_uri(part))
                case LabelPart():
                    keys = self.read_keys(part)
                    results = label(keys, seconds)
                    kinds = frozenset(str(one.error_kind) for one in results if one.error_kind)
                    return LabelledPart(part_to_parquet(build_part(keys, results, self._stamp)), kinds)
                case PutMarker(is_transient=is_transient):
                    return self._output.put_marker(part, is_transient=is_transient)
                case PutPart(rows=rows):
                    with seconds.timed("put"):
                        return storage.put_if_absent(self._output.part_uri(part), rows)
            raise TypeError(f"no answer to {request}")

        try:
            labelled = converse(make_part(part.id), answer)
        except StorageError as error:
            return PartSummary(part.id.plan, part.id.part, failure=f"{type(error).__name__}: {error}")
        if labelled is None:
            return PartSummary(part.id.plan, part.id.part, was_there=True, num_images=part.num_images)
        assert keys is not None
        self.spans += seconds.spans
        return _summary(part, keys, results, seconds, began_at)

    def read_keys(self, part: PlannedPart) -> pa.Table:
        """Read a part's rows of its plan.

        Raises:
            IntegrityError: when the plan was damaged, twice.
            OutputError: when it is no plan.
            StorageError: as the store answers.
        """
        return read_again_if_damaged(self._output.plan_uri(part.id.plan), lambda: self._read_keys(part))

    def _read_keys(self, part: PlannedPart) -> pa.Table:
        number = part.id.plan
        with self._plans_lock:
            if number not in self._open_plans:
                self._open_plans[number] = PlanFile(self._output.plan_uri(number))
                if len(self._open_plans) > MAX_OPEN_PLANS:
                    self._open_plans.popitem(last=False)[1].close()
            try:
                return self._open_plans[number].read([part.id.part])
            except BaseException:
                self._open_plans.pop(number).close()
                raise


def _summary(
    part: PlannedPart, keys: pa.Table, results: list[ImageResult], seconds: StageSeconds, began_at: float
) -> PartSummary:
    return PartSummary(
        plan=part.id.plan,
        part=part.id.part,
        num_images=len(results),
        num_instances=sum(result.num_instances for result in results),
        num_bytes=total_bytes(keys["size"]),
        errors=dict(Counter(str(result.error_kind) for result in results if result.error_kind)),
        read_s=seconds.read,
        decode_s=seconds.decode,
        predict_s=seconds.predict,
        put_s=seconds.put,
        began_at=began_at,
        seconds=time.time() - began_at,
    )
