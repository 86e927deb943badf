"""The records of the labelling runs behind a table, newest first: how fast each was, and what it cost."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from maskrcnn import storage
from maskrcnn.labelling.stages import STAGES

FILES_AT_ONCE = 16


@dataclass(frozen=True)
class Run:
    """One run, as its record tells."""

    run_id: str
    started_at: str
    seconds: float
    num_images: int
    num_failed: int
    images_per_s: float
    stages: dict[str, float]
    """images/s of each stage of a worker, as if it did nothing else; only those that were measured."""
    cost: float | None
    """None where no price is known."""


def load_runs(predictions_uri: str, price_per_hour: float | None) -> tuple[list[Run], int]:
    """Read the runs' records.

    Args:
        predictions_uri: the OUTPUT of the job.
        price_per_hour: of the whole cluster; None: what each run was told.

    Returns:
        The runs that labelled something, newest first, and how many records there are of any.
    """
    uris = sorted(storage.list_uris(storage.join(storage.normalise(predictions_uri), "runs")), reverse=True)
    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        runs = [parse_run(body, price_per_hour) for body in threads.map(storage.read_bytes, uris)]
    return [run for run in runs if run is not None and run.num_images], len(uris)


def parse_run(body: bytes, price_per_hour: float | None) -> Run | None:
    """Read one record; None where it is damaged."""
    try:
        record: dict[str, Any] = json.loads(body)
        seconds = float(record["seconds"])
        stages = {stage: record["stage_images_per_s"].get(stage) for stage in STAGES}
        return Run(
            run_id=str(record["run_id"]),
            started_at=str(record["started_at"])[:16].replace("T", " "),
            seconds=seconds,
            num_images=int(record["images"]["labelled"]),
            num_failed=int(record["images"]["failed"]),
            images_per_s=float(record["images_per_s"] or 0.0),
            stages={stage: float(rate) for stage, rate in stages.items() if rate},
            cost=record.get("cost") if price_per_hour is None else price_per_hour * seconds / 3600,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
