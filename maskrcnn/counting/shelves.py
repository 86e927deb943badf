"""Images that hold far less than their own group usually does: perhaps empty shelves. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrcnn.counting.counts import FAILED, Counts
from maskrcnn.labelling.groups import Group

MOST_SHARE = 0.5
"""Of the usual count: more is no empty shelf."""
RARE_SHARE = 0.05
"""Of the group's images before: a count that more of them had is usual there."""
MIN_USUAL = 2
"""Instances; a shelf that usually has fewer cannot be told from an empty one."""
MIN_IMAGES = 5
"""Of the group in the nights before."""


@dataclass(frozen=True)
class EmptyShelf:
    """An image with far fewer instances than usual."""

    place: int
    """Among the table's current rows."""
    group: Group
    count: int
    usual: float
    """The median of the group's images in the nights before."""


def find_empty_shelves(counts: Counts, night: str | None, nights_before: tuple[str, ...]) -> list[EmptyShelf]:
    """Find a night's images that hold half or less of what their group's images usually hold, and less than nearly all.

    Args:
        counts: of nights.
        night: whose images; nothing is found without nights before it.
        nights_before: what is usual.

    Returns:
        The emptiest first; of equal ones those that usually hold most.
    """
    order = np.argsort(counts.image_cells, kind="stable")
    bounds = np.searchsorted(counts.image_cells[order], np.arange(len(counts.cells) + 1))
    places = {cell: order[bounds[n] : bounds[n + 1]] for n, cell in enumerate(counts.cells)}
    found: list[EmptyShelf] = []
    for (date, group), images in places.items():
        if date != night or date is None:
            continue
        before = [places[one, group] for one in nights_before if (one, group) in places]
        past = _labelled(counts, np.concatenate([np.zeros(0, np.int64), *before]))[1]
        if len(past) < MIN_IMAGES or (usual := float(np.median(past))) < MIN_USUAL:
            continue
        now, numbers = _labelled(counts, images)
        few = min(usual * MOST_SHARE, float(np.quantile(past, RARE_SHARE, method="lower")) - 1)
        for place, count in zip(now[numbers <= few].tolist(), numbers[numbers <= few].tolist(), strict=True):
            found.append(EmptyShelf(place, group, count, usual))
    return sorted(found, key=lambda one: (one.count / one.usual, -one.usual, one.place))


def _labelled(counts: Counts, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    numbers = counts.image_counts[places]
    return places[numbers != FAILED], numbers[numbers != FAILED]
