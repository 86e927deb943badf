"""Segmentations measured without being drawn or kept: their extents, their area, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco import rle
from maskrcnn.coco.packed import NONE, POLYGONS, RLE
from maskrcnn.coco.records import flatten_lists
from maskrcnn.coco.runs import MAX_MASK_PIXELS, parse_counts
from maskrcnn.errors import AnnotationError

SLIVER_PX = 0.5
"""Polygons whose area is less than their outline times this may cover no pixel."""

MISSING = object()
"""Stands for a field that is not there, which null is not."""

NO_AREA_PX = 1e-6
"""A polygon of less has its points on a line, but for rounding."""

Report = Callable[[int, str, Any], None]
"""Takes the place of a segmentation in its batch, the code of what is wrong, and what is there."""


@dataclass(frozen=True)
class Measured:
    """N segmentations, of which only the sound parts count."""

    kinds: NDArray[np.int8]
    """(N,) NONE, also where no part is sound; POLYGONS or RLE."""
    extents: NDArray[np.float64]
    """(N, 4) left, top, right, bottom, absolute px."""
    areas: NDArray[np.float64]
    """(N,) px: of an RLE its pixels; of polygons the sum of their parts' areas, which may overlap, and 0 where they
    cover no pixel."""
    outlines: NDArray[np.float64]
    """(N,) px: the longest outline of its polygons."""
    sizes: NDArray[np.int64]
    """(N, 2) height and width of an RLE, px."""
    digests: NDArray[np.int64]
    """(N,) equal for equal shapes, within this process."""


def measure(segmentations: Sequence[Any], report: Report) -> Measured:
    """Measure segmentations as parsed from JSON; `MISSING` where there is none.

    Args:
        segmentations: N of them, whatever they hold.
        report: called for everything that is wrong, once a segmentation and code.
    """
    num = len(segmentations)
    measured = Measured(
        kinds=np.full(num, NONE, np.int8),
        extents=np.zeros((num, 4)),
        areas=np.zeros(num),
        outlines=np.zeros(num),
        sizes=np.zeros((num, 2), np.int64),
        digests=np.zeros(num, np.int64),
    )
    polygons: dict[int, list[Any]] = {}
    for index, segmentation in enumerate(segmentations):
        if isinstance(segmentation, list) and segmentation:
            polygons[index] = segmentation
        elif isinstance(segmentation, dict):
            _measure_rle(index, segmentation, measured, report)
        else:
            report(index, *_name_absence(segmentation))
    _measure_polygons(polygons, measured, report)
    _draw_slivers(polygons, measured)
    return measured


def name_problem(segmentation: list[Any]) -> tuple[str, Any] | None:
    """Say in which way polygons are not flat lists of numbers; None where they are."""
    if all(_is_number(part) for part in segmentation):
        return "polygon_flat_list", f"{len(segmentation)} numbers"
    if all(_is_pair(part) for part in segmentation) and len(segmentation) > 1:
        return "polygon_points_as_pairs", segmentation[0]
    for index, part in enumerate(segmentation):
        if not isinstance(part, list):
            return "polygon_type", f"polygon {index} is {type(part).__name__}"
        for value in part:
            if isinstance(value, list):
                return "polygon_points_as_pairs", value
            if isinstance(value, str):
                return "polygon_strings", value
            if not _is_number(value):
                return "polygon_type", value
            try:
                float(value)
            except OverflowError:
                return "polygon_not_finite", f"a number of {len(str(value))} digits"
    return None


def _name_absence(segmentation: Any) -> tuple[str, str]:
    if segmentation is MISSING:
        return "segmentation_missing", ""
    if segmentation is None:
        return "segmentation_null", "null"
    if segmentation == []:
        return "segmentation_empty", "[]"
    return "segmentation_type", type(segmentation).__name__


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_pair(part: Any) -> bool:
    return isinstance(part, list) and len(part) == 2 and all(_is_number(value) for value in part)


def _measure_rle(index: int, segmentation: dict[str, Any], measured: Measured, report: Report) -> None:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    is_size = isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
    if not is_size or not isinstance(counts, str | list):
        report(index, "rle_type", {name: type(value).__name__ for name, value in segmentation.items()})
        return
    height, width = size  # type: ignore[misc]
    if height * width > MAX_MASK_PIXELS:
        report(index, "rle_too_large", f"{height} x {width}")
        return
    runs = _runs_of(counts, lambda code, value: report(index, code, value))
    if runs is None:
        return
    if len(runs) and runs.min() < 0:
        report(index, "rle_negative_run", f"run {int(runs.argmin())} of {int(runs.min())}")
    elif (total := int(runs.sum())) != height * width:
        report(index, "rle_wrong_sum", f"{total}, and {height} x {width} = {height * width}")
    else:
        measured.kinds[index] = RLE
        left, top, box_width, box_height = rle.runs_to_bbox(runs, height)
        measured.extents[index] = left, top, left + box_width, top + box_height
        measured.areas[index] = runs[1::2].sum()
        measured.sizes[index] = height, width
        measured.digests[index] = hash((height, width, runs.tobytes()))


def _runs_of(counts: str | list[Any], report: Callable[[str, Any], None]) -> NDArray[np.int64] | None:
    """Give runs that may be negative, but fit; None where there are none, which is reported."""
    if isinstance(counts, str):
        try:
            runs = parse_counts(counts)
        except AnnotationError as error:
            report("rle_invalid_characters", error.rule)
            return None
    else:
        flat = flatten_lists([counts])
        if flat is None or not np.array_equal(flat[0], np.trunc(flat[0])):
            report("rle_type", "counts that are not whole numbers")
            return None
        if not np.isfinite(flat[0]).all():
            report("rle_wrong_sum", "a run that is infinite")
            return None
        runs = flat[0].clip(-(2.0**40), 2.0**40).astype(np.int64)
    if len(runs) and runs.max() > MAX_MASK_PIXELS:
        report("rle_wrong_sum", f"a run of {int(runs.max())}")
        return None
    return runs


def _measure_polygons(polygons: dict[int, list[Any]], measured: Measured, report: Report) -> None:
    flat = flatten_lists([part for parts in polygons.values() for part in parts])
    if flat is None:
        for index in list(polygons):
            if problem := name_problem(polygons[index]):
                report(index, *problem)
                del polygons[index]
        flat = flatten_lists([part for parts in polygons.values() for part in parts])
        assert flat is not None  # name_problem says what flatten_lists refuses
    xy, lengths = flat
    if not len(lengths):
        return
    indices = np.array(list(polygons))
    num_parts = np.fromiter(map(len, polygons.values()), np.int64, len(polygons))
    owners = np.repeat(indices, num_parts)
    first_parts = np.repeat(np.cumsum(num_parts) - num_parts, num_parts)

    def refuse(code: str, is_bad: NDArray[np.bool_], value_of: Callable[[int], Any]) -> None:
        """Report the first bad part of each segmentation."""
        parts = np.flatnonzero(is_bad)
        _, firsts = np.unique(owners[parts], return_index=True)
        for part in parts[firsts].tolist():
            report(int(owners[part]), code, f"polygon {part - first_parts[part]}: {value_of(part)}")

    is_pairs = np.zeros(len(lengths), np.bool_)
    for index, parts in polygons.items():
        if len(parts) > 1 and all(len(part) == 2 for part in parts):
            is_pairs |= owners == index
            report(index, "polygon_points_as_pairs", parts[0])
    is_odd = (lengths % 2 == 1) & ~is_pairs
    refuse("polygon_odd_count", is_odd, lambda part: f"{lengths[part]} numbers")
    is_few = (lengths < 6) & ~is_odd & ~is_pairs
    refuse("polygon_too_few_points", is_few, lambda part: f"{lengths[part] // 2} points")
    is_kept = ~is_odd & ~is_few & ~is_pairs
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    is_finite = np.ones(len(lengths), np.bool_)
    is_finite[lengths > 0] = np.logical_and.reduceat(np.isfinite(xy), offsets[:-1][lengths > 0]) if len(xy) else True
    refuse("polygon_not_finite", is_kept & ~is_finite, lambda part: "NaN or infinity")
    is_kept &= is_finite

    shapes = _outline_polygons(xy[np.repeat(is_kept, lengths)].reshape(-1, 2), lengths[is_kept] // 2)
    has_area = shapes.areas > NO_AREA_PX
    is_flat = np.zeros(len(lengths), np.bool_)
    is_flat[np.flatnonzero(is_kept)[~has_area]] = True
    refuse("polygon_zero_area", is_flat, lambda part: f"{lengths[part] // 2} points on a line")
    _sum_parts(owners[is_kept], shapes, has_area, measured)


@dataclass(frozen=True)
class _Outlines:
    """P polygons."""

    extents: NDArray[np.float64]
    """(P, 4) left, top, right, bottom, px."""
    areas: NDArray[np.float64]
    lengths: NDArray[np.float64]
    """(P,) px, along the longer axis of each edge."""
    digests: NDArray[np.int64]


def _outline_polygons(points: NDArray[np.float64], num_points: NDArray[np.int64]) -> _Outlines:
    """Measure polygons whose points, (num, 2), stand one after the other; each has at least 3."""
    if not len(num_points):
        return _Outlines(np.zeros((0, 4)), np.zeros(0), np.zeros(0), np.zeros(0, np.int64))
    ends = np.cumsum(num_points)
    starts = ends - num_points
    # Relative to its polygon's first point a coordinate is small, and products of them lose no digits.
    with np.errstate(over="ignore", invalid="ignore"):
        local = points - np.repeat(points[starts], num_points, axis=0)
        following = np.roll(local, -1, axis=0)
        following[ends - 1] = 0
        cross = local[:, 0] * following[:, 1] - following[:, 0] * local[:, 1]
        areas = np.abs(np.add.reduceat(cross, starts)) / 2
        lengths = np.add.reduceat(np.abs(following - local).max(axis=1), starts)
    content = points.tobytes()
    digests = [hash(content[16 * start : 16 * end]) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    corners = [np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)]
    return _Outlines(np.concatenate(corners, axis=1), np.nan_to_num(areas), lengths, np.array(digests, np.int64))


def _sum_parts(owners: NDArray[np.int64], shapes: _Outlines, is_kept: NDArray[np.bool_], measured: Measured) -> None:
    """Give each segmentation what its sound parts have together."""
    owners = owners[is_kept]
    if not len(owners):
        return
    indices, firsts = np.unique(owners, return_index=True)
    extents = shapes.extents[is_kept]
    measured.kinds[indices] = POLYGONS
    measured.extents[indices, :2] = np.minimum.reduceat(extents[:, :2], firsts)
    measured.extents[indices, 2:] = np.maximum.reduceat(extents[:, 2:], firsts)
    measured.areas[indices] = np.add.reduceat(shapes.areas[is_kept], firsts)
    measured.outlines[indices] = np.maximum.reduceat(shapes.lengths[is_kept], firsts)
    with np.errstate(over="ignore"):
        place = np.arange(len(owners)) - np.repeat(firsts, np.diff(np.append(firsts, len(owners))))
        measured.digests[indices] = np.add.reduceat(shapes.digests[is_kept] * (2 * place + 1), firsts)


def _draw_slivers(polygons: dict[int, list[Any]], measured: Measured) -> None:
    """Give polygons that are so thin that they cover no pixel an area of 0."""
    is_sliver = (measured.kinds == POLYGONS) & (measured.areas < SLIVER_PX * measured.outlines)
    for index in np.flatnonzero(is_sliver).tolist():
        left, top = np.floor(measured.extents[index, :2])
        width, height = (np.ceil(measured.extents[index, 2:]) - [left, top] + 1).tolist()
        try:
            parts = [(np.reshape(part, (-1, 2)) - [left, top]).ravel().tolist() for part in polygons[index]]
            mask = rle.from_polygons(parts, int(height), int(width))
        except (AnnotationError, ValueError):  # a part that is reported, or far from any image
            continue
        if not rle.area(mask):
            measured.areas[index] = 0
