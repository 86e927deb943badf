"""One run of the labelling job, as its driver sees it: check, list, plan, label, reconcile, record.

Answers the protocol's requests from the real OUTPUT; the labelling itself is ``pipeline.py``'s, on Ray.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import torch

from maskrcnn import cluster, storage
from maskrcnn.config import LabelConfig
from maskrcnn.errors import (
    ERROR_KINDS,
    TRANSIENT_KINDS,
    AccessError,
    NotFoundError,
    OutputError,
    StorageError,
    UnavailableError,
)
from maskrcnn.labelling import pipeline, protocol
from maskrcnn.labelling.backlog import Backlog
from maskrcnn.labelling.costs import find_costs, load_costs
from maskrcnn.labelling.forecast import ActorCosts, Forecast, forecast_run
from maskrcnn.labelling.listing import list_manifest
from maskrcnn.labelling.maker import MakerSettings
from maskrcnn.labelling.manifest import total_bytes
from maskrcnn.labelling.meters import RunMeters
from maskrcnn.labelling.output import Output, complete_name
from maskrcnn.labelling.plan import PartId, PlannedPart
from maskrcnn.labelling.plan_files import PlanHeader, num_rows_by_date
from maskrcnn.labelling.pool import Pool, name_device, size_pool
from maskrcnn.labelling.record import DryRun, RunReport, Tally, build_record, warn_if_late
from maskrcnn.labelling.settings import choose_thresholds, name_settings
from maskrcnn.log_lines import new_run_id
from maskrcnn.model.bundle import Bundle, load_bundle
from maskrcnn.progress import Progress

ROWS_PER_PART_GPU = 2048
ROWS_PER_PART_CPU = 256


class LabellingJob:
    """One run of the job, checked and listed when it is built, run once.

    Args:
        config: what the user asked for.
        run_id: of the process that this is the only run of, as its log lines name it; default: a new one.

    Raises:
        InputError: when the bundle, the images or the output cannot be used.
    """

    def __init__(self, config: LabelConfig, run_id: str | None = None) -> None:
        self._begin = time.monotonic()
        self._started_at = datetime.now(UTC)
        self.run_id = run_id or new_run_id(self._started_at)
        self._config = config
        self._bundle: Bundle = load_bundle(config.bundle_uri)
        self._thresholds = choose_thresholds(config, self._bundle)
        self._output = Output(config.output_uri)
        self._settings = name_settings(config, self._bundle, self._thresholds)
        self._output.check_settings(self._settings)
        # Before the listing, which may take minutes.
        record_uri = config.forecast_from_uri
        self._given_costs = load_costs(storage.normalise(record_uri)) if record_uri else None
        self.manifest = list_manifest(
            config.images_uri,
            image_root_uri=config.image_root_uri,
            date_from=config.date_from,
            leave_out_uri=self._output.uri,
            sample=config.sample,
            seed=config.seed,
        )
        self._dates = self.manifest.dates
        self._touched_dates = set(self._dates)
        self._complete_before = self._output.list_complete()
        self._complete_now: list[str] = []
        self._retry_kinds = ERROR_KINDS if config.retry_errors else TRANSIENT_KINDS
        self._tally = Tally()
        self._pool: Pool | None = None
        self._forecast: Forecast | None = None
        self._meters = RunMeters(self._output.uri, is_sample=config.sample is not None)

    def dry_run(self) -> DryRun:
        """Say what would be done; reads the plans, writes nothing."""
        numbers = range(1, max([0, *self._output.list_plans()]) + 1)
        backlog = self._backlog()
        backlog.subtract(self._output.read_planned(numbers, self._dates))
        backlog.retry(self._output.read_failed(self._retry_kinds, self._dates))
        num_to_plan = num_parts_to_plan = num_bytes = 0
        while (rows := backlog.next_plan()) is not None:
            num_to_plan += len(rows)
            num_parts_to_plan += rows["part"][-1].as_py() + 1
            num_bytes += total_bytes(rows["size"])
            backlog.advance()
        made = self._output.list_parts()
        left = [part for part in self._output.read_parts(numbers) if part.id not in made]
        return DryRun(
            num_listed=self.manifest.num_images,
            num_outside_sample=self.manifest.num_outside_sample,
            num_planned_before=backlog.num_planned,
            num_to_plan=num_to_plan,
            num_parts_to_plan=num_parts_to_plan,
            num_bytes=num_bytes,
            num_parts_left=len(left),
            num_images_left=sum(part.num_images for part in left),
            costs=self._find_costs(),
        )

    def run(self) -> RunReport:
        """Plan, label, reconcile, and write the run's record.

        Raises:
            OutputError: when the output cannot be written.
            ClusterError: when the cluster is too small.
            UnavailableError: when a store stays away.
        """
        steps = protocol.run_driver(self._backlog(), self.run_id, self._retry_kinds)
        try:
            return self._report(protocol.converse(steps, self._perform))
        except (AccessError, NotFoundError) as error:  # a file in a folder's place, a bucket that is gone
            raise OutputError("--output", f"cannot be written: {error.reason}", error.uri) from error

    def _perform(self, request: Any) -> Any:
        """Answer one request of the protocol from the real world."""
        match request:
            case protocol.ListPlans():
                return self._output.list_plans()
            case protocol.ReadPlans(numbers):
                # Another driver may have begun this output while this one listed its images.
                self._output.refuse_other_settings(numbers, self._settings)
                return self._output.read_planned(numbers, self._dates)
            case protocol.ReadFailed(kinds):
                return self._output.read_failed(kinds, self._dates)
            case protocol.PutPlan(number, rows, token):
                # Too small a cluster must not leave a plan behind.
                self._connect(num_parts=rows["part"][-1].as_py() + 1)
                # A larger sample, or all images, may follow on the same output: not among what must be equal.
                settings = self._settings | {"sample": self._config.sample}
                header = PlanHeader(token, settings, self._rows_per_part(), num_rows_by_date(rows))
                return self._output.put_plan(number, rows, header)
            case protocol.ReadToken(number):
                return self._output.read_token(number)
            case protocol.ReadParts(numbers):
                return self._output.read_parts(numbers)
            case protocol.ListParts():
                return self._output.list_parts()
            case protocol.MakeParts(parts):
                self._touched_dates |= {part.date for part in parts}
                return self._make_parts(list(parts))
            case protocol.PutComplete(date, as_of_plan, parts):
                is_sample = self._is_sample(date, parts)
                name = complete_name(date, is_sample=is_sample)
                # A year of dates that nobody touched need not be read and said again every night.
                if date in self._touched_dates or name not in self._complete_before:
                    self._output.put_complete(date, as_of_plan, parts, self.run_id, is_sample=is_sample)
                self._complete_now.append(name)
                return None
        raise TypeError(f"no answer to {request}")

    def _is_sample(self, date: str | None, parts: Collection[PlannedPart]) -> bool:
        """Say whether only a sample of a date is planned.

        A run that drew a sample cannot know whether a plan of all images is the last of several. One that listed all
        leaves no plan where a sample was all, but knows of a date only what lies where it looked: it calls the date
        whole if it found what was sampled before. Of dates that it did not list their plans tell.
        """
        plans = {part.id.plan for part in parts}
        sampled = {number for number in plans if self._output.header(number).settings.get("sample")}
        if date not in self._dates:
            return sampled == plans
        if self._config.sample is not None:
            return True
        return not self.manifest.holds(self._output.read_uris([part for part in parts if part.id.plan in sampled]))

    def _backlog(self) -> Backlog:
        return Backlog(self.manifest, self._rows_per_part())

    def _rows_per_part(self) -> int:
        return self._config.rows_per_part or (ROWS_PER_PART_GPU if self._wants_gpu() else ROWS_PER_PART_CPU)

    def _wants_gpu(self) -> bool:
        if self._config.device != "auto":
            return self._config.device == "cuda"
        if not cluster.is_on_cluster():
            return torch.cuda.is_available()
        cluster.connect()
        return any(node.get("GPU", 0) for node in [*cluster.nodes(), cluster.growth()])

    def _connect(self, num_parts: int) -> Pool:
        cluster.connect()
        self._pool = size_pool(
            cluster.nodes(),
            cluster.growth(),
            wants_gpu=self._wants_gpu(),
            num_actors=self._config.num_actors,
            num_parts=num_parts,
        )
        return self._pool

    def _make_parts(self, parts: list[PlannedPart]) -> set[PartId]:
        # Another driver on the same output starts elsewhere, so that the two share the work.
        random.Random(self.run_id).shuffle(parts)
        pool = self._connect(len(parts))
        num_images = sum(part.num_images for part in parts)
        self._forecast = self._foresee(num_images, len(parts), pool)
        self._meters.begin(num_images)
        progress = Progress(num_images, "labelling")
        try:
            for summary in pipeline.run_on_pool(parts, pool, self._maker_settings(pool), progress):
                self._tally.add(summary)
                self._meters.add(summary)
        finally:
            progress.finish(self._tally.num_images_seen, self._tally.num_failed)
        return self._tally.made()

    def _find_costs(self) -> ActorCosts | None:
        if self._given_costs is not None:
            return self._given_costs
        return find_costs(self._output.uri, self._settings, self._config, has_gpu=self._wants_gpu())

    def _foresee(self, num_images: int, num_parts: int, pool: Pool) -> Forecast | None:
        costs, forecast = self._find_costs(), None
        if costs is not None:
            forecast = forecast_run(costs, num_actors=pool.max_actors, num_images=num_images, num_parts=num_parts)
        warn_if_late(forecast, self._started_at, self._config.finish_by)
        return forecast

    def _maker_settings(self, pool: Pool) -> MakerSettings:
        return MakerSettings(
            bundle_uri=storage.normalise(self._config.bundle_uri),
            bundle_sha256=self._bundle.sha256,
            output_uri=self._output.uri,
            run_id=self.run_id,
            thresholds=self._thresholds,
            mask_nms=self._config.mask_nms,
            slicing=self._config.slicing,
            category_names={category.id: category.name for category in self._bundle.categories},
            device="cuda" if pool.num_gpus else "cpu",
            precision=self._config.precision,
            batch_size=self._config.batch_size,
            masks=self._config.masks,
            max_pixels=self._config.max_pixels,
            num_threads=pool.num_cpus,
            reached_stores=storage.reached_stores(),
        )

    def _report(self, reconciled: protocol.Reconciled) -> RunReport:
        self._meters.finish(reconciled)
        record = build_record(
            run_id=self.run_id,
            started_at=self._started_at,
            seconds=time.monotonic() - self._begin,
            config=self._config,
            settings=self._settings,
            num_listed=self.manifest.num_images,
            num_outside_sample=self.manifest.num_outside_sample,
            pool=self._pool,
            tally=self._tally,
            reconciled=reconciled,
            complete=self._complete_now,
            device=name_device(cluster.nodes(), has_gpu=bool(self._pool.num_gpus)) if self._pool else "",
            forecast=self._forecast,
        )
        if self._tally.failures and reconciled.parts_left and not self._tally.made():
            with contextlib.suppress(StorageError):  # why there are no parts says more than why there is no record
                self._output.put_run(self.run_id, record)
            raise UnavailableError(self._output.uri, f"no part could be made: {self._tally.failures[0]}")
        return RunReport(self.run_id, self._output.put_run(self.run_id, record), record, reconciled)


def label_images(config: LabelConfig) -> RunReport:
    """Label every image that OUTPUT does not hold yet, each exactly once.

    Raises:
        InputError: when the bundle, the images, the output or the cluster cannot be used.
    """
    return LabellingJob(config).run()
