"""One night against those before it: which groups' counts have changed by more than chance and habit. Pure arithmetic.

Each group and category has a rate a night, its instances per image. Usual is the median of the nights before; the
spread is their median absolute deviation, which one bad night does not move, and never less than the noise of counting:
a mean of n images that each hold m things on average varies by sqrt(m / n) if the things come independently.

Source: Iglewicz and Hoaglin, "How to Detect and Handle Outliers" (1993), for the modified z-score and its bound of 3.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrcnn.config import check
from maskrcnn.counting.counts import Counts
from maskrcnn.labelling.groups import Group

MAD_TO_SIGMA = 1.4826
"""For a normal distribution."""


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
    """In spreads, either way."""
    min_change: float = 0.2
    """As a share of the usual rate, either way: large groups also notice what does not matter."""

    def __post_init__(self) -> None:
        check(self.num_nights >= self.min_nights >= 1, "num_nights", self.num_nights, "at least min_nights, from 1")
        check(self.min_images >= 1, "min_images", self.min_images, "1 or more")
        check(self.min_z > 0 and self.min_change >= 0, "min_z, min_change", (self.min_z, self.min_change), "positive")


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
    change: float | None
    """As a share of the usual rate; None too where that is 0."""
    is_judged: bool
    is_drift: bool

    @property
    def rate(self) -> float | None:
        """Give the judged night's."""
        return self.rates[-1]


@dataclass(frozen=True)
class Drift:
    """What a night says beside those before it."""

    night: str | None
    """None where the table knows no dates: then nothing is judged."""
    nights_before: tuple[str, ...]
    totals: list[Trend]
    """Each group with images in any of these nights, all categories together; the largest change first."""
    drifting: list[Trend]
    """That changed, of groups and categories; the largest z first."""
    num_judged: int
    """Groups and categories."""
    new_groups: list[Group]
    """With images in the night, and in none before."""
    vanished_groups: list[Group]
    """With images in a night before and none in this one, not even failed ones."""
    dark_groups: list[Group]
    """With labelled images in a night before and none in this one: all failed, or the group has vanished."""

    @property
    def is_judged(self) -> bool:
        """Say whether anything could be judged: a gate over nothing is closed."""
        return self.num_judged > 0

    @property
    def drift_share(self) -> float:
        """Give the share of the judged that drift: one number for an alert."""
        return len(self.drifting) / self.num_judged if self.num_judged else 0.0


def find_drift(counts: Counts, rule: DriftRule, night: str | None = None) -> Drift:
    """Judge a night.

    Args:
        counts: of nights.
        rule: what is drift.
        night: which one; None: the newest.
    """
    dates = counts.dates
    chosen = (dates[-1] if dates else None) if night is None else night
    before = tuple(date for date in dates if chosen is not None and date < chosen)[-rule.num_nights :]
    nights: list[str | None] = [*before, chosen]
    groups = sorted({group for date, group in counts.cells if date in nights}, key=repr)
    num_images, num_failed, instances = _by_night(counts, nights, groups)
    rates = np.divide(
        instances, num_images[..., None], out=np.full(instances.shape, np.nan), where=num_images[..., None] > 0
    )
    num_before = (num_images[:-1] > 0).sum(axis=0)
    trends = [
        _judge(group, name, rates[:, g, c], int(num_images[-1, g]), int(num_failed[-1, g]), int(num_before[g]), rule)
        for g, group in enumerate(groups)
        for c, name in enumerate([None, *counts.categories.values()])
    ]
    is_there = num_images + num_failed > 0
    was_there = is_there[:-1].any(axis=0)
    is_dark = (num_before > 0) & (num_images[-1] == 0)
    return Drift(
        chosen,
        before,
        sorted((one for one in trends if one.category is None), key=_by_size),
        sorted((one for one in trends if one.is_drift), key=lambda one: -abs(one.z or 0)),
        sum(one.is_judged for one in trends),
        [group for group, is_new in zip(groups, ~was_there & is_there[-1] & bool(before), strict=True) if is_new],
        [group for group, is_gone in zip(groups, was_there & ~is_there[-1], strict=True) if is_gone],
        [group for group, is_one in zip(groups, is_dark, strict=True) if is_one],
    )


def _by_night(
    counts: Counts, nights: list[str | None], groups: list[Group]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Give (num_nights, num_groups) labelled and failed images, and (…, 1 + num_categories) instances, all first."""
    places = {cell: place for place, cell in enumerate(counts.cells)}
    shape = (len(nights), len(groups))
    num_images, num_failed = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    instances = np.zeros((*shape, 1 + len(counts.categories)))
    for n, night in enumerate(nights):
        for g, group in enumerate(groups):
            place = places.get((night, group))
            if place is not None:
                num_images[n, g], num_failed[n, g] = counts.num_images[place], counts.num_failed[place]
                instances[n, g, 1:] = counts.sums[place, :, 0]
    instances[..., 0] = instances[..., 1:].sum(axis=-1)
    return num_images, num_failed, instances


def _judge(
    group: Group,
    category: str | None,
    rates: NDArray[np.float64],
    num_images: int,
    num_failed: int,
    num_before: int,
    rule: DriftRule,
) -> Trend:
    usual = z = change = None
    past = rates[:-1][~np.isnan(rates[:-1])]
    if num_before >= rule.min_nights:
        usual = float(np.median(past))
    if usual is not None and num_images:
        mad = float(np.median(np.abs(past - usual)))
        noise = float(np.sqrt(max(usual, 1 / num_images) / num_images))
        z = (float(rates[-1]) - usual) / max(MAD_TO_SIGMA * mad, noise)
        change = (float(rates[-1]) - usual) / usual if usual else None
    is_judged = z is not None and num_images >= rule.min_images
    matters = change is None or abs(change) >= rule.min_change
    is_drift = is_judged and matters and abs(z or 0) >= rule.min_z
    return Trend(
        group,
        category,
        tuple(None if np.isnan(rate) else float(rate) for rate in rates),
        num_images,
        num_failed,
        usual,
        z,
        change,
        is_judged,
        is_drift,
    )


def _by_size(trend: Trend) -> tuple[bool, float, str]:
    return not trend.is_drift, -abs(trend.z or 0), repr(trend.group)
