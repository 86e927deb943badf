"""Segmentations measured without being drawn or kept: their extents, their area, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco import rle
from maskrcnn.coco.packed import NONE, POLYGONS, RLE, PackedBytes
from maskrcnn.coco.records import flatten_lists
from maskrcnn.coco.runs import MAX_MASK_PIXELS, encode_counts, parse_counts, without_empty_runs
from maskrcnn.coco.survey import measure as measure_plain
from maskrcnn.coco.survey import survey
from maskrcnn.coco.validate.comparisons import corners_of
from maskrcnn.coco.validate.fields import is_number
from maskrcnn.coco.validate.outlines import Outlines, measure_outlines
from maskrcnn.errors import AnnotationError

SLIVER_PX = 0.5
"""Polygons whose area is less than their outline times this may cover no pixel."""

MOST_DRAWN_PX = 20_000
"""Polygons that reach or go round further are not drawn."""

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
    rles: dict[int, dict[str, Any]] = {}
    for index, segmentation in enumerate(segmentations):
        if isinstance(segmentation, list) and segmentation:
            polygons[index] = segmentation
        elif isinstance(segmentation, dict):
            rles[index] = segmentation
        else:
            report(index, *_name_absence(segmentation))
    _measure_rles(rles, measured, report)
    _measure_polygons(polygons, measured, report)
    draw_areas(segmentations, measured.areas < SLIVER_PX * measured.outlines, measured)
    return measured


def name_problem(segmentation: list[Any]) -> tuple[str, Any] | None:
    """Say in which way polygons are not flat lists of numbers; None where they are."""
    if all(is_number(part) for part in segmentation):
        return "polygon_flat_list", f"{len(segmentation)} numbers"
    if len(segmentation) > 1 and are_pairs(segmentation):
        return "polygon_points_as_pairs", segmentation[0]
    for index, part in enumerate(segmentation):
        if not isinstance(part, list):
            return "polygon_type", f"polygon {index} is {type(part).__name__}"
        for value in part:
            if isinstance(value, list):
                return "polygon_points_as_pairs", value
            if isinstance(value, str):
                return "polygon_strings", value
            if not is_number(value):
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


def are_pairs(parts: list[Any]) -> bool:
    """Say whether these are points as pairs of numbers."""
    return all(isinstance(part, list) and len(part) == 2 and all(map(is_number, part)) for part in parts)


def _measure_rles(rles: dict[int, dict[str, Any]], measured: Measured, report: Report) -> None:
    """Measure RLEs, the compressed ones that are plainly sound all at once."""
    texts: dict[int, bytes] = {}
    for index, segmentation in rles.items():
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if not _is_size(size) or not isinstance(counts, str | list):
            report(index, "rle_type", {name: type(value).__name__ for name, value in segmentation.items()})
        elif size[0] * size[1] > MAX_MASK_PIXELS:
            report(index, "rle_too_large", f"{size[0]} x {size[1]}")
        else:
            measured.sizes[index] = size
            texts[index] = counts.encode() if isinstance(counts, str) and counts.isascii() else b""
    indices = np.array(list(texts), np.int64)
    packed = PackedBytes.from_list(list(texts.values()))
    is_plain, areas, boxes = survey(packed, measured.sizes[indices])
    _keep_rles(indices[is_plain], areas[is_plain], boxes[is_plain], measured)
    for index in indices[~is_plain].tolist():
        counts = _plain_counts(rles[index], partial(report, index))
        if counts is None:
            del texts[index]
        else:
            texts[index] = counts
            areas, boxes = measure_plain(PackedBytes.from_list([counts]), measured.sizes[[index], 0])
            _keep_rles(np.array([index]), areas, boxes, measured)
    for index, counts in texts.items():
        measured.digests[index] = hash((counts, *rles[index]["size"]))


def _keep_rles(
    indices: NDArray[np.int64], areas: NDArray[np.int64], boxes: NDArray[np.float64], measured: Measured
) -> None:
    measured.kinds[indices] = RLE
    measured.areas[indices] = areas
    measured.extents[indices] = corners_of(boxes)


def _is_size(size: Any) -> TypeGuard[list[int]]:
    return isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)


def _plain_counts(segmentation: dict[str, Any], report: Callable[[str, Any], None]) -> bytes | None:
    """Give the one spelling of an RLE's counts; None where they are broken, which is reported."""
    height, width = segmentation["size"]
    runs = _runs_of(segmentation["counts"], report)
    if runs is None:
        return None
    if len(runs) and runs.min() < 0:
        report("rle_negative_run", f"run {int(runs.argmin())} of {int(runs.min())}")
    elif (total := int(runs.sum())) != height * width:
        report("rle_wrong_sum", f"{total}, and {height} x {width} = {height * width}")
    else:
        return encode_counts(without_empty_runs(runs))
    return None


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

    shapes = measure_outlines(xy[np.repeat(is_kept, lengths)].reshape(-1, 2), lengths[is_kept] // 2)
    has_area = shapes.spreads > NO_AREA_PX
    is_flat = np.zeros(len(lengths), np.bool_)
    is_flat[np.flatnonzero(is_kept)[~has_area]] = True
    refuse("polygon_zero_area", is_flat, lambda part: f"{lengths[part] // 2} points on a line")
    _sum_parts(owners[is_kept], shapes, has_area, measured)


def _sum_parts(owners: NDArray[np.int64], shapes: Outlines, is_kept: NDArray[np.bool_], measured: Measured) -> None:
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


def draw_areas(segmentations: Sequence[Any], is_chosen: NDArray[np.bool_], measured: Measured) -> int:
    """Take the areas of some polygons from their pixels, whatever crosses or covers what; give how many were drawn.

    Those that no image can show, or that take long, keep the area that they have.
    """
    lasts = measured.extents[:, 2:].max(axis=1, initial=0)
    is_sane = (np.abs(measured.extents).max(axis=1, initial=0) < MOST_DRAWN_PX) & (measured.outlines < MOST_DRAWN_PX)
    num_drawn = 0
    for index in np.flatnonzero(is_chosen & is_sane & (measured.kinds == POLYGONS) & (lasts > 0)).tolist():
        left, top = np.floor(measured.extents[index, :2])
        width, height = (np.ceil(measured.extents[index, 2:]) - [left, top] + 1).tolist()
        try:
            parts = [(np.reshape(part, (-1, 2)) - [left, top]).ravel().tolist() for part in segmentations[index]]
            measured.areas[index] = rle.area(rle.from_polygons(parts, int(height), int(width)))
        except (AnnotationError, ValueError):  # a part that is reported
            continue
        num_drawn += 1
    return num_drawn
