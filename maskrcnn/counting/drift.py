"""One night against those before it: which groups' counts have changed by more than chance and habit, which are gone.

Pure arithmetic. Each group and category has a trend (``trends.py``). The more of them are judged, the further one must
lie from the nights before: the chance of a false alarm is the night's, not each one's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from maskrcnn.counting.counts import Counts
from maskrcnn.counting.trends import DriftRule, Trend, follow_group
from maskrcnn.labelling.groups import Group

MOST_SHARE = 0.5
"""Of its usual images: a group that has more is not sparse."""


@dataclass(frozen=True)
class SparseGroup:
    """A group of which too little was labelled to be judged, or less than failed."""

    group: Group
    num_images: int
    """Labelled in the night."""
    num_failed: int
    usual_images: float
    """Labelled in the median of the nights before that had any of its images; 0 where there are none."""


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
    min_z: float
    """From which one drifts: the rule's, or more, since many are judged."""
    new_groups: list[Group]
    """With images in the night, and in none before."""
    vanished_groups: list[Group]
    """With images in most nights before, a week ago too, and none in this one, not even failed ones."""
    dark_groups: list[Group]
    """With labelled images in a night before and none in this one: all failed, or the group has vanished."""
    sparse_groups: list[SparseGroup]
    """Not dark, with fewer images than can be judged and than half of what is usual, or most of them failed."""
    unjudged_groups: list[Group]
    """Of all in these nights: with too few nights before, or too few labelled images in this one."""
    future_nights: tuple[str, ...]
    """Left out: nobody can have taken a photo then."""

    @property
    def is_judged(self) -> bool:
        """Say whether anything could be judged: a gate over nothing is closed."""
        return self.num_judged > 0

    @property
    def drift_share(self) -> float:
        """Give the share of the judged that drift: one number for an alert."""
        return len(self.drifting) / self.num_judged if self.num_judged else 0.0


def find_drift(counts: Counts, rule: DriftRule, night: str | None = None, today: date | None = None) -> Drift:
    """Judge a night.

    Args:
        counts: of nights.
        rule: what is drift.
        night: which one; None: the newest.
        today: by UTC; nights later than the day after it, which has begun somewhere, are left out. None: none is.
    """
    last = None if today is None else (today + timedelta(days=1)).isoformat()
    future = tuple(one for one in counts.dates if last is not None and one > last and one != night)
    dates = [one for one in counts.dates if one not in future]
    chosen = (dates[-1] if dates else None) if night is None else night
    before = tuple(one for one in dates if chosen is not None and one < chosen)[-rule.num_nights :]
    nights: list[str | None] = [*before, chosen]
    groups = sorted({group for one, group in counts.cells if one in nights}, key=repr)
    num_images, num_failed, instances = _by_night(counts, nights, groups)
    names = [None, *counts.categories.values()]
    trends = [
        trend
        for g, group in enumerate(groups)
        for trend in follow_group(group, names, num_images[:, g], int(num_failed[-1, g]), instances[:, g], rule)
    ]
    num_judged = sum(one.is_judged for one in trends)
    min_z = max(rule.min_z, NormalDist().inv_cdf(1 - rule.false_alarms / 2 / max(num_judged, 1)))
    trends = [replace(one, is_drift=one.exceeds(min_z, rule.min_change)) for one in trends]
    totals = sorted((one for one in trends if one.category is None), key=_by_size)
    is_there = num_images + num_failed > 0
    is_new = is_there[-1] & ~is_there[:-1].any(axis=0) & bool(before)
    has_vanished = _is_expected(is_there[:-1], before, chosen) & ~is_there[-1]
    is_dark = (num_images[:-1] > 0).any(axis=0) & (num_images[-1] == 0) & (is_there[-1] | has_vanished)
    unjudged = {one.group for one in totals if not one.is_judged}
    return Drift(
        chosen,
        before,
        totals,
        sorted((one for one in trends if one.is_drift), key=lambda one: -abs(one.z or 0)),
        num_judged,
        min_z,
        [groups[g] for g in np.flatnonzero(is_new)],
        [groups[g] for g in np.flatnonzero(has_vanished)],
        [groups[g] for g in np.flatnonzero(is_dark)],
        [
            sparse
            for g in np.flatnonzero(is_there[-1] & ~is_dark)
            if (sparse := _find_sparse(groups[g], num_images[:, g], num_failed[:, g], rule.min_images))
        ],
        [group for group in groups if group in unjudged],
        future,
    )


def _is_expected(was_there: NDArray[np.bool_], before: tuple[str, ...], night: str | None) -> NDArray[np.bool_]:
    """Say of which groups there should be images: a store that closes on one day of the week has none then."""
    is_expected: NDArray[np.bool_] = was_there.sum(axis=0) > len(before) / 2
    week_ago = _week_before(night)
    return is_expected & was_there[before.index(week_ago)] if week_ago in before else is_expected


def _week_before(night: str | None) -> str | None:
    try:
        return None if night is None else (date.fromisoformat(night) - timedelta(weeks=1)).isoformat()
    except ValueError:  # a date is what looks like one, 2026-02-31 too
        return None


def _find_sparse(
    group: Group, num_images: NDArray[np.int64], num_failed: NDArray[np.int64], min_images: int
) -> SparseGroup | None:
    before = num_images[:-1][(num_images + num_failed)[:-1] > 0]
    usual = float(np.median(before)) if len(before) else 0.0
    now, failed = int(num_images[-1]), int(num_failed[-1])
    is_short = now < min_images <= usual and now < MOST_SHARE * usual
    has_mostly_failed = failed > now and failed + now >= min_images
    return SparseGroup(group, now, failed, usual) if is_short or has_mostly_failed else None


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


def _by_size(trend: Trend) -> tuple[bool, float, str]:
    return not trend.is_drift, -abs(trend.z or 0), repr(trend.group)
