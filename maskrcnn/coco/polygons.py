"""The outlines of masks as polygons, along the edges of their pixels, holes and parts kept.

Works on the run lengths of many masks at once and never draws one. A polygon as `trace` gives it is its part to the
pixel, by pycocotools' filling and by either common rule, even-odd or non-zero: the outline runs round the pixels with
them on its left, and each hole is joined to it by a slit of no width that goes up from the hole's corner.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.runs import Counts

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Outlines:
    """R closed outlines, one a part, those of a mask together."""

    points: Ints
    """(total_points, 2) x and y, absolute px, corners of pixels: (0, 0) is the image's. An outline's last is not its
    first again."""
    offsets: Ints
    """(R + 1,) where each outline begins in `points`, and the end of the last."""
    masks: Ints
    """(R,) which mask each outline is a part of, ascending."""
    is_anchor: NDArray[np.bool_]
    """(total_points,) the ends of slits: simplification keeps them, so that both sides of a slit stay the same."""

    def by_mask(self, num_masks: int) -> list[list[list[int]]]:
        """Give each mask's parts as COCO polygons, flat [x1, y1, x2, y2, …]; none for an empty mask."""
        flat = self.points.ravel().tolist()
        found: list[list[list[int]]] = [[] for _ in range(num_masks)]
        bounds = itertools.pairwise((2 * self.offsets).tolist())
        for mask, (begin, end) in zip(self.masks.tolist(), bounds, strict=True):
            found[mask].append(flat[begin:end])
        return found


class _Edges(NamedTuple):
    """The vertical edges of outlines, in order of mask, x and y, as far as they are not slits."""

    mask: Ints
    x: Ints
    top: Ints
    bottom: Ints
    is_down: NDArray[np.bool_]
    """Walked down, along the left side of foreground, or up along its right side."""


class _Fills(NamedTuple):
    """The runs of foreground in each column, in order of mask, x and y."""

    mask: Ints
    x: Ints
    top: Ints
    bottom: Ints


def trace(runs: Sequence[Counts], size: tuple[int, int]) -> Outlines:
    """Trace the outline of every part of some masks of one image.

    Pixels that touch only by a corner are parts of their own.

    Args:
        runs: run lengths of each mask, background first, no run of 0 but a first one.
        size: (height, width) of the image, px.
    """
    fills = _column_fills(runs, size[0])
    edges = _vertical_edges(fills, size)
    rows = _Rows(edges, size)
    successors = rows.successors().tolist()
    starts = np.array(_cycle_starts(successors), np.int64)
    is_hole = ~edges.is_down[starts]
    slits = _join_holes(starts[is_hole], edges, fills, rows, successors, size)
    return _walk(starts[~is_hole], edges, slits, successors)


def _column_fills(runs: Sequence[Counts], height: int) -> _Fills:
    ends = [np.cumsum(one) for one in runs]
    none = np.zeros(0, np.int64)
    begins = np.concatenate([none, *(each[: len(each) // 2 * 2 : 2] for each in ends)])
    stops = np.concatenate([none, *(each[1::2] for each in ends)])
    masks = np.repeat(np.arange(len(runs)), [len(each) // 2 for each in ends])
    first_column = begins // height
    num_columns = (stops - 1) // height - first_column + 1
    run = np.repeat(np.arange(len(begins)), num_columns)
    x = np.arange(len(run)) - np.repeat(np.cumsum(num_columns) - num_columns, num_columns) + first_column[run]
    top, bottom = np.maximum(begins[run] - x * height, 0), np.minimum(stops[run] - x * height, height)
    return _Fills(masks[run], x, top, bottom)


def _vertical_edges(fills: _Fills, size: tuple[int, int]) -> _Edges:
    """Pair the corners on each vertical line between two columns, from the top: there is an edge between each two."""
    mask = np.tile(fills.mask, 4)
    x = np.concatenate([fills.x, fills.x, fills.x + 1, fills.x + 1])
    y = np.tile(np.concatenate([fills.top, fills.bottom]), 2)
    # Going down along a line, right of it foreground begins (1) or ends (-1); left of it the other way round.
    change = np.repeat([1, -1, -1, 1], len(fills.x))
    key = _key(mask, x, y, size)
    order = np.argsort(key, kind="stable")
    key, change = key[order], change[order]
    # Where both sides change alike, a horizontal edge passes; where they change contrarily, two corners touch.
    passes = np.flatnonzero((key[1:] == key[:-1]) & (change[1:] != change[:-1]))
    is_corner = np.ones(len(key), np.bool_)
    is_corner[passes] = is_corner[passes + 1] = False
    corners = order[is_corner]
    tops, bottoms = corners[::2], corners[1::2]
    return _Edges(mask[tops], x[tops], y[tops], y[bottoms], change[is_corner][::2] > 0)


class _Rows:
    """The corners in order of mask, y and x; two by two they are the ends of horizontal edges.

    Corner 2e is the top of edge e, 2e + 1 its bottom.
    """

    def __init__(self, edges: _Edges, size: tuple[int, int]) -> None:
        self._size = size
        self._is_down = edges.is_down
        y = np.stack([edges.top, edges.bottom], axis=1).ravel()
        # Of two corners that touch, the edge that goes down belongs to the foreground on the right.
        keys = 2 * self._row_key(np.repeat(edges.mask, 2), y, np.repeat(edges.x, 2)) + np.repeat(edges.is_down, 2)
        self._corners = np.argsort(keys, kind="stable")
        self._keys = keys[self._corners]

    def successors(self) -> Ints:
        """Give the edge that follows each edge, along the horizontal edge that begins where it ends."""
        partners = np.empty(len(self._corners), np.int64)
        partners[self._corners[::2]] = self._corners[1::2]
        partners[self._corners[1::2]] = self._corners[::2]
        heads = 2 * np.arange(len(self._is_down)) + self._is_down
        return partners[heads] // 2

    def edges_before(self, mask: Ints, x: Ints, y: Ints) -> Ints:
        """Give the edge from which the top of foreground at (x, y) is walked: the one at its right end."""
        left_ends = np.searchsorted(self._keys, 2 * self._row_key(mask, y, x) + 1, side="right") - 1
        return self._corners[left_ends + 1] // 2

    def _row_key(self, mask: Ints, y: Ints, x: Ints) -> Ints:
        height, width = self._size
        return _key(mask, y, x, (width, height))


def _key(mask: Ints, first: Ints, second: Ints, size: tuple[int, int]) -> Ints:
    """Order by mask, then `first` in [0, size[1]], then `second` in [0, size[0]]."""
    return (mask * (size[1] + 1) + first) * (size[0] + 1) + second


def _cycle_starts(successors: list[int]) -> list[int]:
    """Give the first edge of every cycle: the topmost of those furthest left."""
    starts: list[int] = []
    is_seen = bytearray(len(successors))
    for start in range(len(successors)):
        if not is_seen[start]:
            starts.append(start)
            edge = start
            while not is_seen[edge]:
                is_seen[edge] = 1
                edge = successors[edge]
    return starts


def _join_holes(
    holes: Ints, edges: _Edges, fills: _Fills, rows: _Rows, successors: list[int], size: tuple[int, int]
) -> _Edges:
    """Join each hole to what is above it, and give the slits: two edges a hole, down and up.

    A hole's first edge ends at its topmost corner furthest left. Above that, in the column to the right, foreground
    begins at another outline, whose own first edge lies further left or up: so the joining has no circles.
    """
    mask, x, y = edges.mask[holes], edges.x[holes], edges.top[holes]
    above = np.searchsorted(_key(fills.mask, fills.x, fills.bottom, size), _key(mask, x, y, size))
    tops = fills.top[above]
    # Holes come from left to right and tops are walked to the left: the last joined to an edge is the first walked.
    for hole, edge in zip(holes.tolist(), rows.edges_before(mask, x, tops).tolist(), strict=True):
        down, up = len(successors), len(successors) + 1
        successors += [successors[hole], successors[edge]]
        successors[edge], successors[hole] = down, up
    twice = [np.repeat(column, 2) for column in (mask, x, tops, y)]
    return _Edges(twice[0], twice[1], twice[2], twice[3], np.tile([True, False], len(holes)))


def _walk(starts: Ints, edges: _Edges, slits: _Edges, successors: list[int]) -> Outlines:
    walked: list[int] = []
    num_walked: list[int] = []
    for start in starts.tolist():
        walked.append(start)
        edge = successors[start]
        while edge != start:
            walked.append(edge)
            edge = successors[edge]
        num_walked.append(len(walked))
    x, top, bottom, is_down = (
        np.concatenate([of_edges, of_slits])[walked] for of_edges, of_slits in zip(edges[1:], slits[1:], strict=True)
    )
    y = np.where(is_down, [top, bottom], [bottom, top]).T
    points = np.stack([np.repeat(x, 2), y.ravel()], axis=1)
    is_anchor = np.repeat(np.array(walked, np.int64) >= len(edges.x), 2)
    ends = 2 * np.array([0, *num_walked], np.int64)
    # A slit that begins or ends at a corner repeats it.
    is_repeat = (points[1:] == points[:-1]).all(axis=1)
    is_repeat[ends[1:-1] - 1] = False
    is_anchor[:-1] |= is_repeat
    is_kept = np.concatenate([[True], ~is_repeat])[: len(points)]
    offsets = np.concatenate([[0], np.cumsum(is_kept)])[ends]
    return Outlines(points[is_kept], offsets, edges.mask[starts], is_anchor[is_kept])
