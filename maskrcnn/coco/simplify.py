"""Outlines of fewer points, for people to edit: many at once, each within a tolerance of what it was."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.polygons import Outlines

MOST_AREA_CHANGE = 0.1
"""A part whose area would change by more than this share keeps its exact outline."""


def simplify(outlines: Outlines, tolerance_px: float) -> Outlines:
    """Leave out points from which the outline strays no further than a tolerance.

    Args:
        outlines: as traced.
        tolerance_px: the furthest that a point left out may lie from the side that takes its place.

    Returns:
        The same outlines of fewer points; one whose area that would change by more than MOST_AREA_CHANGE, as it was.

    Source: Douglas and Peucker 1973.
    """
    outline = np.repeat(np.arange(len(outlines.masks)), np.diff(outlines.offsets))
    is_kept = _keep_far_points(outlines, outline, tolerance_px)
    before = _areas(outlines.points, outlines.offsets)
    offsets = np.concatenate([[0], np.cumsum(is_kept)])[outlines.offsets]
    after = _areas(outlines.points[is_kept], offsets)
    is_kept |= (np.abs(after - before) > MOST_AREA_CHANGE * before)[outline]
    offsets = np.concatenate([[0], np.cumsum(is_kept)])[outlines.offsets]
    return Outlines(outlines.points[is_kept], offsets, outlines.masks, outlines.is_anchor[is_kept])


def _keep_far_points(outlines: Outlines, outline: NDArray[np.int64], tolerance_px: float) -> NDArray[np.bool_]:
    """Split every side at its furthest point, all outlines at once, until none is further than the tolerance."""
    is_kept = outlines.is_anchor.copy()
    is_kept[outlines.offsets[:-1]] = True
    left = np.flatnonzero(~is_kept)
    while len(left):
        kept = np.flatnonzero(is_kept)
        after = np.searchsorted(kept, left)
        begin, end = kept[after - 1], kept[np.minimum(after, len(kept) - 1)]
        # An outline's last side ends at its first point.
        is_last = (after == len(kept)) | (outline[end] != outline[left])
        end = np.where(is_last, outlines.offsets[outline[left]], end)
        distance = _distances(outlines.points[left], outlines.points[begin], outlines.points[end])
        sides = np.flatnonzero(np.diff(begin, prepend=-1))
        furthest = np.repeat(np.maximum.reduceat(distance, sides), np.diff(sides, append=len(left)))
        is_open = furthest > tolerance_px
        candidates = np.flatnonzero(is_open & (distance == furthest))
        splits = candidates[np.diff(begin[candidates], prepend=-1) != 0]
        is_kept[left[splits]] = True
        is_open[splits] = False
        left = left[is_open]
    return is_kept


def _distances(points: NDArray[np.int64], begin: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give each point's distance from the straight side between two others, px; all (N, 2)."""
    side_x, side_y = (end - begin).T.astype(np.float64)
    offset_x, offset_y = (points - begin).T.astype(np.float64)
    # A side from a point to itself has no length.
    length_squared = np.maximum(side_x**2 + side_y**2, 1e-9)
    along = np.clip((side_x * offset_x + side_y * offset_y) / length_squared, 0, 1)
    distances: NDArray[np.float64] = np.hypot(offset_x - along * side_x, offset_y - along * side_y)
    return distances


def _areas(points: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the area within each outline, px; slits do not count, and none has no point."""
    following = np.arange(1, len(points) + 1)
    following[offsets[1:] - 1] = offsets[:-1]
    (x, y), (next_x, next_y) = points.T, points[following].T
    doubled = np.add.reduceat(next_x * y - x * next_y, offsets[:-1]) if len(points) else np.zeros(0, np.int64)
    return doubled / 2
