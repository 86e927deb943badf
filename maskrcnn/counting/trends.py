"""One group's rates over some nights: what is usual, and how far the last night lies from it. Pure arithmetic.

Usual is the median of the nights before. The last night's count is compared with those before it without the highest
and the lowest one, so that one bad night moves neither; counts that vary more than independent things do, by their
median absolute deviation, are given as much more room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrcnn.config import check
from maskrcnn.counting.tails import compare_rates
from maskrcnn.labelling.groups import Group

MAD_TO_SIGMA = 1.4826
"""For a normal distribution."""
MIN_NIGHTS_TO_TRIM = 3


@dataclass(frozen=True)
class DriftRule:
    """What counts as drift."""

    num_nights: int = 7
    """Before the night, at most."""
    min_nights: int = 3
    """With images of the group; fewer tell nothing."""
    min_images: int = 5
    """Of the group in the night; fewer tell nothing."""
    min_z: float = 3.5
    """In spreads, either way; more where many are judged."""
    false_alarms: float = 0.01
    """The chance that any of those judged in a night drifts where counts vary by chance alone, at most."""
    min_change: float = 0.2
    """As a share of the usual rate, either way: large groups also notice what does not matter."""

    def __post_init__(self) -> None:
        check(self.num_nights >= self.min_nights >= 1, "num_nights", self.num_nights, "at least min_nights, from 1")
        check(self.min_images >= 1, "min_images", self.min_images, "1 or more")
        check(self.min_z > 0 and self.min_change >= 0, "min_z, min_change", (self.min_z, self.min_change), "positive")
        check(0 < self.false_alarms < 1, "false_alarms", self.false_alarms, "between 0 and 1")


@dataclass(frozen=True)
class Trend:
    """A group's rate of one category, or of all together, over some nights."""

    group: Group
    category: str | None
    """None for all together."""
    rates: tuple[float | None, ...]
    """Instances per image, a night each, the judged one last; None where there were no images."""
    num_images: int
    """In the judged night; so for the next."""
    num_failed: int
    usual: float | None
    """None where there are too few nights before; so for the next two."""
    z: float | None
    """How far the night lies from those before, in spreads of a normal distribution; None where it has no images."""
    change: float | None
    """As a share of the usual rate; None too where that is 0."""
    is_judged: bool
    is_drift: bool = False

    @property
    def rate(self) -> float | None:
        """Give the judged night's."""
        return self.rates[-1]

    def exceeds(self, min_z: float, min_change: float) -> bool:
        """Say whether the night is off by more than chance and habit, the same way from the median as from the rest."""
        if not self.is_judged or self.rate is None or self.usual is None or self.z is None:
            return False
        matters = self.change is None or abs(self.change) >= min_change
        return matters and abs(self.z) >= min_z and (self.rate - self.usual) * self.z > 0


def follow_group(
    group: Group,
    categories: Sequence[str | None],
    num_images: NDArray[np.int64],
    num_failed: int,
    instances: NDArray[np.float64],
    rule: DriftRule,
) -> list[Trend]:
    """Give a group's trend of each category.

    Args:
        group: whose.
        categories: names, None for all together.
        num_images: (num_nights,) labelled, the judged night last.
        num_failed: in that night.
        instances: (num_nights, num_categories).
        rule: what is judged.
    """
    has_images = num_images > 0
    rates = np.full(instances.shape, np.nan)
    rates[has_images] = instances[has_images] / num_images[has_images, None]
    num_now, before = int(num_images[-1]), np.flatnonzero(has_images[:-1])
    usual: NDArray[np.float64] | None = None
    z: NDArray[np.float64] | None = None
    if len(before) >= rule.min_nights:
        usual = np.median(rates[before], axis=0)
        if num_now:
            z = _surprise(instances[-1], num_now, instances[before], num_images[before], usual)
    return [
        Trend(
            group,
            name,
            tuple(None if np.isnan(rate) else float(rate) for rate in rates[:, place]),
            num_now,
            num_failed,
            None if usual is None else float(usual[place]),
            None if z is None else float(z[place]),
            float(rates[-1, place] / usual[place] - 1) if usual is not None and num_now and usual[place] else None,
            is_judged=z is not None and num_now >= rule.min_images,
        )
        for place, name in enumerate(categories)
    ]


def _surprise(
    now: NDArray[np.float64],
    num_now: int,
    past: NDArray[np.float64],
    num_past: NDArray[np.int64],
    usual: NDArray[np.float64],
) -> NDArray[np.float64]:
    rates = past / num_past[:, None]
    kept = np.argsort(rates, axis=0, kind="stable")
    if len(past) >= MIN_NIGHTS_TO_TRIM:
        kept = kept[1:-1]
    z = compare_rates(now, np.take_along_axis(past, kept, axis=0).sum(axis=0), num_now, num_past[kept].sum(axis=0))
    spread = MAD_TO_SIGMA * np.median(np.abs(rates - usual), axis=0)
    by_chance = np.sqrt(usual / np.median(num_past))
    return z / np.maximum(np.divide(spread, by_chance, out=np.ones_like(spread), where=by_chance > 0), 1)
