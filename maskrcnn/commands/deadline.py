"""When a run must be done: reading --finish-by, and saying how many workers that takes."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from maskrcnn.errors import InputError
from maskrcnn.labelling.costs import MIN_MEASURED_IMAGES
from maskrcnn.labelling.forecast import ActorCosts, Forecast, fewest_actors, forecast_run
from maskrcnn.labelling.pool import CPU
from maskrcnn.progress import clock

if TYPE_CHECKING:
    from maskrcnn.labelling.record import DryRun

_RULE = "must be HH:MM, or an ISO date and time that lies ahead"


def parse_finish_by(text: str | None, now: datetime) -> datetime | None:
    """Read HH:MM, the next such time here, or an ISO date and time, which is local unless it has a zone.

    Args:
        text: as given.
        now: local, without a zone, so that a night in which clocks change is as long as it is.

    Raises:
        InputError: when it is something else, or has passed.
    """
    if text is None:
        return None
    try:
        if re.fullmatch(r"\d{1,2}:\d\d", text):
            today = now.replace(hour=int(text[:-3]), minute=int(text[-2:]), second=0, microsecond=0)
            return (today if today > now else today + timedelta(days=1)).astimezone()
        given = datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise InputError("--finish-by", f"{_RULE}, got {text}") from None
    if given <= now.astimezone():
        raise InputError("--finish-by", f"{_RULE}, got {text}")
    return given


def can_finish(dry_run: DryRun, now: datetime, finish_by: datetime) -> bool:
    """Say whether it is known that some number of workers is done in time."""
    if dry_run.num_images == 0 or dry_run.costs is None:
        return dry_run.num_images == 0
    within_s = (finish_by - now).total_seconds()
    of_run = {"num_images": dry_run.num_images, "num_parts": dry_run.num_parts}
    return fewest_actors(dry_run.costs, **of_run, within_s=within_s) is not None


def describe_forecast(
    dry_run: DryRun, *, now: datetime, finish_by: datetime | None, price_per_actor_hour: float | None
) -> str:
    """Say how long the work would take one worker, and how many are done in time."""
    costs = dry_run.costs
    if dry_run.num_images == 0:
        return "nothing is left to label"
    if costs is None:
        sample = f"label a sample of {MIN_MEASURED_IMAGES} images or more with the same options first"
        return f"no forecast: no run like this one was measured yet; {sample}, or name a record with --forecast-from"

    def of(num_actors: int) -> Forecast:
        return forecast_run(costs, num_actors=num_actors, num_images=dry_run.num_images, num_parts=dry_run.num_parts)

    def price(forecast: Forecast) -> str:
        if price_per_actor_hour is None:
            return ""
        return f", ${forecast.dollars_per_million(price_per_actor_hour):,.2f} per million images"

    alone = of(1)
    lines = [
        f"{dry_run.num_images:,} images to label; {_name_actors(1, costs)} labels {1 / costs.image_s:,.1f} images/s "
        f"(measured by {costs.source} from {costs.num_images:,} images, limited by {costs.limiting_stage}): "
        f"{clock(alone.seconds)}{price(alone)}"
    ]
    if finish_by is None:
        return lines[0]
    within_s = (finish_by - now).total_seconds()
    by = f"to finish by {finish_by:%a %H:%M} ({clock(within_s)} from now)"
    num_actors = fewest_actors(costs, num_images=dry_run.num_images, num_parts=dry_run.num_parts, within_s=within_s)
    if num_actors is None:
        most = of(dry_run.num_parts)
        lines.append(
            f"{by}: not even {_name_actors(most.num_actors, costs)}, one a part, would do, which take "
            f"{clock(most.seconds)}; begin earlier, or take smaller --rows-per-part"
        )
    else:
        enough = of(num_actors)
        lines.append(
            f"{by}: {_name_actors(num_actors, costs)}, done by {enough.end(now):%a %H:%M}{price(enough)}; "
            f"they read {enough.bytes_per_s / 1e6:,.1f} MB/s"
        )
    return "\n".join(lines)


def _name_actors(num_actors: int, costs: ActorCosts) -> str:
    plural = "s" if num_actors > 1 else ""
    if costs.device != CPU:
        return f"{num_actors:,} {costs.device}{plural}"
    return f"{num_actors:,} worker{plural} of {costs.num_threads} CPU{'s' if costs.num_threads > 1 else ''}"
