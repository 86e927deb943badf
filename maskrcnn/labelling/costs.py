"""What an image costs an actor: read off the parts that a run made, kept in its record, and found there again."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from maskrcnn import storage
from maskrcnn.config import LabelConfig
from maskrcnn.errors import InputError, StorageError
from maskrcnn.labelling.forecast import ActorCosts
from maskrcnn.labelling.pool import CPU

if TYPE_CHECKING:  # whoever reads costs needs no torch
    from maskrcnn.labelling.maker import PartSummary

logger = logging.getLogger(__name__)

MIN_MEASURED_IMAGES = 100
"""A run of fewer tells more of its first batches than of its pace."""
MAX_RECORDS_READ = 30


def measure_costs(
    summaries: Sequence[PartSummary],
    *,
    source: str,
    device: str,
    num_actors: int,
    num_threads: int,
    num_readers: int,
    startup_s: float,
    labelling_s: float,
) -> ActorCosts | None:
    """Read an actor's costs off the parts that a run made.

    Args:
        summaries: of the parts.
        source: the run.
        device: what an actor runs on.
        num_actors: at most, at once.
        num_threads: of an actor.
        num_readers: reads in flight, of an actor.
        startup_s: from the run's start to its first part's.
        labelling_s: from there to the last part's end.

    Returns:
        The costs; None where no part was made in the usual way.
    """
    usual = [one for one in summaries if one.num_images and one.read_s]
    num_images = sum(one.num_images for one in usual)
    # Each bounds the other: actors wait for the last part, and parts of one actor may overlap.
    actor_s = min(sum(one.seconds for one in usual), num_actors * labelling_s)
    if not num_images or actor_s <= 0:
        return None
    read_s, decode_s, predict_s = (
        sum(getattr(one, name) for one in usual) / num_images for name in ("read_s", "decode_s", "predict_s")
    )
    overlapped_s = max(read_s / num_readers, decode_s / num_threads, predict_s)
    return ActorCosts(
        source=source,
        device=device,
        num_threads=num_threads,
        num_images=num_images,
        image_bytes=sum(one.num_bytes for one in usual) / num_images,
        read_s=read_s,
        decode_s=decode_s,
        predict_s=predict_s,
        put_s=max(actor_s / num_images - overlapped_s, 0.0),
        num_readers=num_readers,
        startup_s=startup_s,
    )


def parse_costs(values: Any) -> ActorCosts | None:
    """Read the costs in a run's record; None where it holds none, or damaged ones."""
    try:
        return ActorCosts(**{field.name: values[field.name] for field in fields(ActorCosts)})
    except (KeyError, TypeError, ValueError):
        return None


def load_costs(record_uri: str) -> ActorCosts:
    """Read the costs from one run's record.

    Raises:
        InputError: when it holds none.
        NotFoundError: when there is no such record.
    """
    costs = parse_costs(_read_record(record_uri).get("costs"))
    if costs is None:
        rule = "must be the record of a run that labelled images"
        raise InputError("--forecast-from", rule, record_uri, "take OUTPUT/runs/….json of a sample")
    return costs


def find_costs(
    output_uri: str, settings: Mapping[str, Any], config: LabelConfig, *, has_gpu: bool
) -> ActorCosts | None:
    """Find the newest run that tells how long another will take.

    Args:
        output_uri: whose records are looked through, newest first.
        settings: what rows depend on; these must be equal, except where dates come from.
        config: of the run to come; batches and precision must be equal too.
        has_gpu: whether GPUs will predict.
    """
    wanted = _pace_of({"settings": settings, "config": asdict(config)})
    try:
        uris = sorted(storage.list_uris(storage.join(output_uri, "runs")), reverse=True)
        for uri in uris[:MAX_RECORDS_READ]:
            record = _read_record(uri)
            costs = parse_costs(record.get("costs"))
            if costs is None or costs.num_images < MIN_MEASURED_IMAGES:
                continue
            if (costs.device == CPU) != has_gpu and _pace_of(record) == wanted:
                return costs
    except StorageError as error:  # no reason not to label
        logger.warning("no forecast: %s", error)
    return None


def _pace_of(record: Mapping[str, Any]) -> dict[str, Any]:
    settings, config = record.get("settings", {}), record.get("config", {})
    return {**settings, "date_from": None, **{name: config.get(name) for name in ("batch_size", "precision")}}


def _read_record(uri: str) -> dict[str, Any]:
    try:
        record = json.loads(storage.read_bytes(uri))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
