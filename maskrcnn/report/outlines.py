"""Masks as rings to draw: outlines of few points, holes as rings of their own, for any filling by the even-odd rule."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from maskrcnn.coco.polygons import Outlines, trace
from maskrcnn.coco.runs import Counts
from maskrcnn.coco.simplify import simplify

Ring = list[int]
"""Flat x1, y1, x2, y2, …; closed, its last point not its first again."""
_Point = tuple[int, int]


def trace_rings(runs: Sequence[Counts], size: tuple[int, int], tolerance_px: float) -> list[list[Ring]]:
    """Trace the outlines of an image's masks.

    Args:
        runs: run lengths of each mask, as `rle.normalised` gives them.
        size: (height, width) of the image, px.
        tolerance_px: how far an outline may stray from the pixels'.

    Returns:
        The rings of each mask, px from the image's corner; none of an empty mask.
    """
    outlines = simplify(trace(runs, size), tolerance_px)
    rings: list[list[Ring]] = [[] for _ in runs]
    for place, mask in enumerate(outlines.masks.tolist()):
        rings[mask] += _rings_of(outlines, place)
    return rings


def _rings_of(outlines: Outlines, place: int) -> list[Ring]:
    own = slice(int(outlines.offsets[place]), int(outlines.offsets[place + 1]))
    points = outlines.points[own]
    if not outlines.is_anchor[own].any():
        return [points.ravel().tolist()]
    return [list(itertools.chain(*ring)) for ring in split_at_slits([(x, y) for x, y in points.tolist()])]


def split_at_slits(outline: Sequence[_Point]) -> list[list[_Point]]:
    """Leave out the sides of an outline that are walked both ways, which join holes to it, and give the rings left.

    A line drawn along the rings then shows no slits.
    """
    sides: Counter[tuple[_Point, _Point]] = Counter()
    for begin, end in zip(outline, [*outline[1:], outline[0]], strict=True):
        if sides[end, begin]:
            sides[end, begin] -= 1
        else:
            sides[begin, end] += 1
    following: dict[_Point, list[_Point]] = {}
    for begin, end in sides.elements():
        following.setdefault(begin, []).append(end)
    rings = []
    while following:
        first = point = next(iter(following))
        ring: list[_Point] = []
        while not ring or point != first:
            ring.append(point)
            ends = following[point]
            point = ends.pop()
            if not ends:
                del following[ring[-1]]
        rings.append(ring)
    return rings
