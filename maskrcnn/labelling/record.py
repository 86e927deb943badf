"""The record of a run: counts, errors by kind, images/s by stage, cost, versions, config, the reconcile's result."""

from __future__ import annotations

import logging
import platform
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib import metadata
from typing import Any

from maskrcnn.config import LabelConfig
from maskrcnn.labelling.costs import measure_costs
from maskrcnn.labelling.forecast import ActorCosts, Forecast
from maskrcnn.labelling.labeller import MAX_ENCODED_BYTES
from maskrcnn.labelling.maker import PartSummary
from maskrcnn.labelling.plan import PartId
from maskrcnn.labelling.pool import Pool
from maskrcnn.labelling.protocol import Reconciled
from maskrcnn.labelling.stages import STAGES
from maskrcnn.storage import READS_IN_FLIGHT

logger = logging.getLogger(__name__)

PACKAGES = ("maskrcnn", "torch", "torchvision", "ray", "pyarrow", "obstore", "numpy", "pillow", "pycocotools")


@dataclass(frozen=True)
class DryRun:
    """What a run would do."""

    num_listed: int
    """In the sample, where one is wanted."""
    num_planned_before: int
    num_to_plan: int
    num_parts_to_plan: int
    num_bytes: int
    num_parts_left: int
    """Of earlier plans."""
    num_images_left: int
    """In these."""
    costs: ActorCosts | None
    """What an image costs an actor; None where no run has measured it yet."""
    num_outside_sample: int = 0

    @property
    def num_images(self) -> int:
        """Count what would be labelled."""
        return self.num_to_plan + self.num_images_left

    @property
    def num_parts(self) -> int:
        """Count the parts that would be made."""
        return self.num_parts_to_plan + self.num_parts_left


@dataclass(frozen=True)
class RunReport:
    """What a run did."""

    run_id: str
    record_uri: str
    record: dict[str, Any] = field(repr=False)
    reconciled: Reconciled = field(repr=False)

    @property
    def is_reconciled(self) -> bool:
        """Say whether every planned part is in the table."""
        return not self.reconciled.parts_left


@dataclass
class Tally:
    """Adds up the summaries of parts."""

    summaries: list[PartSummary] = field(default_factory=list)

    def add(self, summary: PartSummary) -> None:
        """Take in one part."""
        self.summaries.append(summary)

    def made(self) -> set[PartId]:
        """Give the parts that are in the table now, by the word of those who made them."""
        return {PartId(one.plan, one.part) for one in self.summaries if not one.failure}

    @property
    def own(self) -> list[PartSummary]:
        """Give the parts that this run made itself."""
        return [one for one in self.summaries if not one.was_there and not one.failure]

    @property
    def first_began_at(self) -> float | None:
        """Give when the first part was begun, Unix time; None where this run made none."""
        return min((one.began_at for one in self.own), default=None)

    @property
    def labelling_s(self) -> float:
        """Give the seconds from the first part's begin to the last one's end."""
        ends = [one.began_at + one.seconds for one in self.own]
        return 0.0 if self.first_began_at is None else max(ends) - self.first_began_at

    @property
    def failures(self) -> list[str]:
        """Give the reasons of parts that could not be made."""
        return [one.failure for one in self.summaries if one.failure]

    @property
    def errors(self) -> Counter[str]:
        """Count images by error kind."""
        total: Counter[str] = Counter()
        for one in self.own:
            total.update(one.errors)
        return total

    @property
    def num_images_seen(self) -> int:
        """Count the images of parts that are done, by whomever."""
        return sum(one.num_images for one in self.summaries)

    @property
    def num_failed(self) -> int:
        """Count the images with an error row."""
        return self.errors.total()


def _reads_in_flight(tally: Tally) -> int:
    """Give the reads that an actor has in flight: large images are bounded by their bytes."""
    num_images = sum(one.num_images for one in tally.own)
    num_bytes = sum(one.num_bytes for one in tally.own)
    return max(1, min(READS_IN_FLIGHT, MAX_ENCODED_BYTES * num_images // max(num_bytes, 1)))


def build_record(
    *,
    run_id: str,
    started_at: datetime,
    seconds: float,
    config: LabelConfig,
    settings: Mapping[str, Any],
    num_listed: int,
    num_outside_sample: int,
    pool: Pool | None,
    tally: Tally,
    reconciled: Reconciled,
    complete: Collection[str],
    device: str,
    forecast: Forecast | None,
) -> dict[str, Any]:
    """Build the JSON of a run's record; images/s of a stage is an actor's, as if it did nothing else.

    ``complete`` names the completion markers of the dates that are complete, a sample's as the sample's.
    """
    num_images = sum(one.num_images for one in tally.own)
    stage_s = {stage: sum(getattr(one, f"{stage}_s") for one in tally.own) for stage in STAGES}
    price = config.price_per_hour
    costs = pool and measure_costs(
        tally.own,
        source=f"run {run_id}",
        device=device,
        num_actors=pool.max_actors,
        num_threads=pool.num_cpus,
        num_readers=_reads_in_flight(tally),
        startup_s=max((tally.first_began_at or 0.0) - started_at.timestamp(), 0.0),
        labelling_s=tally.labelling_s,
    )
    return {
        "run_id": run_id,
        "started_at": started_at.isoformat(),
        "seconds": round(seconds, 3),
        "images": {
            "listed": num_listed,
            "planned": reconciled.num_images_planned,
            "labelled": num_images,
            "ok": num_images - tally.num_failed,
            "failed": tally.num_failed,
        },
        "sample": config.sample and {"share": config.sample, "seed": config.seed, "images_outside": num_outside_sample},
        "errors": dict(tally.errors),
        "instances": sum(one.num_instances for one in tally.own),
        "bytes_read": sum(one.num_bytes for one in tally.own),
        "images_per_s": round(num_images / seconds, 3) if seconds else None,
        "stage_seconds": {stage: round(value, 3) for stage, value in stage_s.items()},
        "stage_images_per_s": {
            stage: round(num_images / value, 3) if value else None for stage, value in stage_s.items()
        },
        "costs": None if costs is None else asdict(costs),
        "forecast": None if forecast is None else _compare(forecast, num_images, tally.labelling_s, seconds),
        "parts": {
            "made": len(tally.own),
            "found": len(tally.summaries) - len(tally.own) - len(tally.failures),
            "failed": len(tally.failures),
            "failures": tally.failures[:10],
        },
        "cost": None if price is None else round(price * seconds / 3600, 6),
        "pool": None if pool is None else asdict(pool),
        "reconcile": {
            "plans": reconciled.num_plans,
            "parts_planned": len(reconciled.parts_planned),
            "parts_left": [part.id.file_name for part in reconciled.parts_left],
            "images_left": sum(part.num_images for part in reconciled.parts_left),
            "dates_complete": list(complete),
        },
        "settings": dict(settings),
        "config": asdict(config),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def warn_if_late(forecast: Forecast | None, started_at: datetime, finish_by: datetime | None) -> None:
    """Say in the log that a run that has begun will not be done in time, or that nobody knows."""
    if finish_by is None:
        return
    wish = f"--finish-by {finish_by.astimezone():%a %H:%M}"
    if forecast is None:
        logger.warning("%s: no run like this one was measured yet, so there is no forecast", wish)
    elif forecast.end(started_at) > finish_by:
        actors = f"{forecast.num_actors} actor{'s' if forecast.num_actors > 1 else ''}"
        end = f"{forecast.end(started_at).astimezone():%a %H:%M}"
        logger.warning("%s: %s will be done by about %s; --dry-run says how many it takes", wish, actors, end)


def _compare(forecast: Forecast, num_images: int, labelling_s: float, seconds: float) -> dict[str, Any]:
    """Set what was predicted beside what came; a ratio above 1 is better than predicted."""
    actual_images_per_s = num_images / labelling_s if labelling_s else None
    return {
        "source": forecast.costs.source,
        "device": forecast.costs.device,
        "actors": forecast.num_actors,
        "limiting_stage": forecast.costs.limiting_stage,
        "predicted_images_per_s": round(forecast.images_per_s, 3),
        "actual_images_per_s": actual_images_per_s and round(actual_images_per_s, 3),
        "ratio": actual_images_per_s and round(actual_images_per_s / forecast.images_per_s, 3),
        "predicted_seconds": round(forecast.seconds, 3),
        "actual_seconds": round(seconds, 3),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
