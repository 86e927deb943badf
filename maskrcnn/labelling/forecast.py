"""How long a run will take: from what an image costs an actor, the rate, the limiting stage, the end and the dollars.

Pure arithmetic. An actor reads, decodes and predicts at the same time, so that the slowest of these sets its pace; what
none of them hides is the fourth stage. Parts are what actors share out: the last ones leave some actors idle.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, fields
from datetime import datetime, timedelta


@dataclass(frozen=True)
class ActorCosts:
    """What an image costs one actor, in seconds, as a run measured it."""

    source: str
    """The run."""
    device: str
    """What the actor runs on: a kind of GPU, or CPU."""
    num_threads: int
    """Of the actor's CPUs; they decode, and predict where there is no GPU."""
    num_images: int
    """From which this was measured."""
    image_bytes: float
    read_s: float
    """Summed over the reads in flight."""
    decode_s: float
    """Summed over the threads that decode."""
    predict_s: float
    put_s: float
    """What nothing hides: encoding and putting parts, and everything between them."""
    num_readers: int
    startup_s: float
    """From the start of the run to its first part: listing, planning, Ray, loading the model."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 1 if field.name.startswith("num_") else 0
            if field.name not in ("source", "device") and not least <= value < math.inf:
                raise ValueError(f"{field.name} must be a number of at least {least}, got {value}")
        if self.image_s <= 0:
            raise ValueError(f"an image must take time, got {self.image_s}")

    @property
    def stage_s(self) -> dict[str, float]:
        """Give the seconds between two images of each stage, if nothing else held it up."""
        return {
            "read": self.read_s / self.num_readers,
            "decode": self.decode_s / self.num_threads,
            "predict": self.predict_s,
            "put": self.put_s,
        }

    @property
    def image_s(self) -> float:
        """Give the seconds between two images of an actor."""
        stage_s = self.stage_s
        return max(stage_s["read"], stage_s["decode"], stage_s["predict"]) + stage_s["put"]

    @property
    def limiting_stage(self) -> str:
        """Name the stage that would have to become faster."""
        stage_s = self.stage_s
        return max(stage_s, key=lambda stage: stage_s[stage])


@dataclass(frozen=True)
class Forecast:
    """What a run will come to."""

    costs: ActorCosts
    num_actors: int
    num_images: int
    labelling_s: float
    """From the first part's begin to the last one's end."""

    @property
    def seconds(self) -> float:
        """Give the whole run's seconds."""
        return self.costs.startup_s + self.labelling_s

    @property
    def images_per_s(self) -> float:
        """Give the rate while labelling, the idle end included."""
        return self.num_images / self.labelling_s if self.labelling_s else 0.0

    @property
    def bytes_per_s(self) -> float:
        """Give what the store and the network between must carry."""
        return self.images_per_s * self.costs.image_bytes

    def dollars_per_million(self, price_per_actor_hour: float) -> float:
        """Price a million images; actors are paid for from the start of the run to its end."""
        return price_per_actor_hour * self.num_actors * self.seconds / 3600 / self.num_images * 1e6

    def end(self, started_at: datetime) -> datetime:
        """Give when a run is done that starts then."""
        return started_at + timedelta(seconds=self.seconds)


def forecast_run(costs: ActorCosts, *, num_actors: int, num_images: int, num_parts: int) -> Forecast:
    """Forecast a run.

    Args:
        costs: of an image, for one actor.
        num_actors: how many work at once.
        num_images: to label.
        num_parts: into which they are cut, all about as large.
    """
    num_rounds = math.ceil(num_parts / num_actors)
    part_s = num_images / max(num_parts, 1) * costs.image_s
    return Forecast(costs, num_actors, num_images, num_rounds * part_s)


def fewest_actors(costs: ActorCosts, *, num_images: int, num_parts: int, within_s: float) -> int | None:
    """Give the fewest actors that are done within some seconds; None where not even one a part is."""
    numbers = range(1, max(num_parts, 1) + 1)

    def is_in_time(num_actors: int) -> bool:
        forecast = forecast_run(costs, num_actors=num_actors, num_images=num_images, num_parts=num_parts)
        return forecast.seconds <= within_s

    place = bisect.bisect_left(numbers, True, key=is_in_time)
    return numbers[place] if place < len(numbers) else None
