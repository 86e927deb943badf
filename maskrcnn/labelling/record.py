"""The record of a run: counts, errors by kind, images/s by stage, cost, versions, config, the reconcile's result."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib import metadata
from typing import Any

from maskrcnn.config import LabelConfig
from maskrcnn.labelling.maker import PartSummary
from maskrcnn.labelling.output import complete_name
from maskrcnn.labelling.plan import PartId
from maskrcnn.labelling.pool import Pool
from maskrcnn.labelling.protocol import Reconciled

STAGES = ("read", "decode", "predict", "put")
PACKAGES = ("maskrcnn", "torch", "torchvision", "ray", "pyarrow", "obstore", "numpy", "pillow", "pycocotools")


@dataclass
class Tally:
    """Adds up the summaries of parts."""

    summaries: list[PartSummary] = field(default_factory=list)

    def add(self, summary: PartSummary) -> None:
        """Take in one part."""
        self.summaries.append(summary)

    def made(self) -> set[PartId]:
        """Give the parts that are in the table now."""
        return {PartId(one.plan, one.part) for one in self.summaries if not one.failure}

    @property
    def own(self) -> list[PartSummary]:
        """Give the parts that this run made itself."""
        return [one for one in self.summaries if not one.was_there and not one.failure]

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


def build_record(
    *,
    run_id: str,
    started_at: datetime,
    seconds: float,
    config: LabelConfig,
    settings: Mapping[str, Any],
    num_listed: int,
    pool: Pool | None,
    tally: Tally,
    reconciled: Reconciled,
) -> dict[str, Any]:
    """Build the JSON of a run's record; images/s of a stage is an actor's, as if it did nothing else."""
    num_images = sum(one.num_images for one in tally.own)
    stage_s = {stage: sum(getattr(one, f"{stage}_s") for one in tally.own) for stage in STAGES}
    price = config.price_per_hour
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
        "errors": dict(tally.errors),
        "instances": sum(one.num_instances for one in tally.own),
        "bytes_read": sum(one.num_bytes for one in tally.own),
        "images_per_s": round(num_images / seconds, 3) if seconds else None,
        "stage_seconds": {stage: round(value, 3) for stage, value in stage_s.items()},
        "stage_images_per_s": {
            stage: round(num_images / value, 3) if value else None for stage, value in stage_s.items()
        },
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
            "dates_complete": [complete_name(date) for date in reconciled.dates_complete],
        },
        "settings": dict(settings),
        "config": asdict(config),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
