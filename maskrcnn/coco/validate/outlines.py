"""Polygons measured all at once, without being drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Outlines:
    """P polygons, measured."""

    extents: NDArray[np.float64]
    """(P, 4) left, top, right, bottom, px."""
    areas: NDArray[np.float64]
    """(P,) px; of an outline that crosses itself less than what it covers."""
    spreads: NDArray[np.float64]
    """(P,) px: 0 where all points lie on a line, else more than 0."""
    lengths: NDArray[np.float64]
    """(P,) px, along the longer axis of each edge."""
    digests: NDArray[np.int64]


def measure_outlines(points: NDArray[np.float64], num_points: NDArray[np.int64]) -> Outlines:
    """Measure polygons whose points, (num, 2), stand one after the other; each has at least 3."""
    if not len(num_points):
        none = np.zeros(0)
        return Outlines(np.zeros((0, 4)), none, none, none, np.zeros(0, np.int64))
    ends = np.cumsum(num_points)
    starts = ends - num_points
    # Relative to its polygon's first point a coordinate is small, and products of them lose no digits.
    with np.errstate(over="ignore", invalid="ignore"):
        local = points - np.repeat(points[starts], num_points, axis=0)
        following = np.roll(local, -1, axis=0)
        following[ends - 1] = 0
        cross = local[:, 0] * following[:, 1] - following[:, 0] * local[:, 1]
        areas = np.abs(np.add.reduceat(cross, starts)) / 2
        spreads = np.add.reduceat(np.abs(cross), starts) / 2
        lengths = np.add.reduceat(np.abs(following - local).max(axis=1), starts)
    content = points.tobytes()
    digests = [hash(content[16 * start : 16 * end]) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    corners = [np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)]
    return Outlines(
        extents=np.concatenate(corners, axis=1),
        areas=np.nan_to_num(areas),
        spreads=np.nan_to_num(spreads),
        lengths=lengths,
        digests=np.array(digests, np.int64),
    )
