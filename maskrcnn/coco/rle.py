"""COCO masks as compressed RLE: polygons, run lengths and pixels in, validated RLE out.

pycocotools trusts its input: counts beyond the mask, bytes outside the alphabet or a NaN in a polygon corrupt the heap
and end the process, so whatever comes from outside passes a check here first. Knows nothing of files, annotations or
torch.
"""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from maskrcnn.coco.runs import (
    MAX_MASK_PIXELS,
    Counts,
    decode_counts,
    encode_counts,
    encode_counts_batch,
    without_empty_runs,
)
from maskrcnn.errors import AnnotationError

__all__ = [
    "MAX_MASK_PIXELS",
    "Rle",
    "area",
    "check_polygon",
    "check_rle",
    "checked_size",
    "decode_counts",
    "encode_counts",
    "encode_counts_batch",
    "flat_numbers",
    "from_mask",
    "from_polygons",
    "from_segmentation",
    "from_uncompressed",
    "iou",
    "normalised",
    "runs_to_bbox",
    "runs_to_columns",
    "to_bbox",
    "to_json",
    "to_mask",
    "to_mask_columns",
]

MAX_OUTLINE_PX = 4_000_000
"""The longest polygon outline: pycocotools' rasteriser makes five points for each px of it, unchecked."""

MAX_REACH = 10
"""How far a polygon may lie from its image's corner, in longer sides: published files do stray by three."""


class Rle(TypedDict):
    """A compressed mask: `size` is [height, width], `counts` the compressed runs."""

    size: list[int]
    counts: bytes


def check_rle(rle: Any, *, size: tuple[int, int] | None = None, thing: str = "segmentation", place: str = "") -> Counts:
    """Check a compressed RLE from outside.

    Args:
        rle: the parsed JSON: `size` and `counts` (bytes or str).
        size: (height, width) of its image, px, where known.
        thing: what it belongs to, for the message, as in all functions here: "annotation 17 segmentation".
        place: the file it stands in, for the message.

    Returns:
        (num_runs,) int64, its run lengths, background first; they sum to height x width. Runs of 0 are legal anywhere.

    Raises:
        AnnotationError: naming what is broken.
    """
    height, width = checked_size(rle, size, thing, place)
    counts = rle.get("counts")
    if not isinstance(counts, bytes | str):
        raise AnnotationError(f"{thing} counts", f"must be a string, got {type(counts).__name__}", place)
    return _checked_sum(decode_counts(counts, thing=thing, place=place), height, width, thing, place)


def from_uncompressed(rle: Any, *, thing: str = "segmentation", place: str = "") -> Rle:
    """Compress an RLE whose `counts` is a list of run lengths.

    Raises:
        AnnotationError: counts that are not whole numbers of 0 or more, or do not sum to height x width.
    """
    height, width = checked_size(rle, None, thing, place)
    runs = flat_numbers(rle.get("counts"), f"{thing} counts", place)
    if runs.dtype.kind == "f" and not np.array_equal(runs, np.trunc(runs)):
        raise AnnotationError(f"{thing} counts", "must be whole numbers", place)
    if len(runs) and (runs.min() < 0 or runs.max() > MAX_MASK_PIXELS):
        raise AnnotationError(f"{thing} counts", f"must be runs of 0 to {MAX_MASK_PIXELS} px", place)
    checked = _checked_sum(runs.astype(np.int64), height, width, thing, place)
    return {"size": [height, width], "counts": encode_counts(without_empty_runs(checked))}


def check_polygon(polygon: Any, height: int, width: int, *, thing: str, place: str = "") -> NDArray[np.float64]:
    """Check one polygon from outside.

    Args:
        polygon: flat [x1, y1, x2, y2, …], absolute px.
        height, width: of its image, px.

    Returns:
        (2 x num_points,) float64. It may leave the image, within reason.

    Raises:
        AnnotationError: fewer than 3 points, half a point, not finite, or far outside the image.
    """
    xy = flat_numbers(polygon, thing, place).astype(np.float64)
    if len(xy) < 6 or len(xy) % 2:
        raise AnnotationError(thing, f"must have 3 or more points (x, y), got {len(xy)} numbers", place)
    if not np.isfinite(xy).all():
        raise AnnotationError(thing, "must be finite, got NaN or infinity", place)
    reach = MAX_REACH * max(height, width)
    if (farthest := float(np.abs(xy).max())) > reach:
        rule = f"must lie near its image of {width} x {height} px, got a coordinate of {farthest:g} px"
        raise AnnotationError(thing, rule, place)
    points = xy.reshape(-1, 2)
    outline = np.abs(np.roll(points, -1, axis=0) - points).max(axis=1).sum()
    if outline > MAX_OUTLINE_PX:
        raise AnnotationError(thing, f"must have an outline of at most {MAX_OUTLINE_PX} px, got {outline:.0f}", place)
    return xy


def from_polygons(polygons: Any, height: int, width: int, *, thing: str = "segmentation", place: str = "") -> Rle:
    """Rasterise the union of polygons, each a flat [x1, y1, x2, y2, …] in absolute px.

    Raises:
        AnnotationError: no polygon, or one that `check_polygon` refuses.
    """
    checked_size({"size": [height, width]}, None, thing, place)
    if not isinstance(polygons, list | tuple) or not polygons:
        raise AnnotationError(thing, "must hold at least one polygon", place)
    parts = [
        check_polygon(polygon, height, width, thing=f"{thing} polygon {index}", place=place).tolist()
        for index, polygon in enumerate(polygons)
    ]
    merged = pycocotools.mask.merge(pycocotools.mask.frPyObjects(parts, height, width))
    return {"size": [height, width], "counts": merged["counts"]}


def from_segmentation(
    segmentation: Any, height: int, width: int, *, thing: str = "segmentation", place: str = ""
) -> Rle:
    """Turn any COCO segmentation into one compressed RLE, safe to give to pycocotools.

    Args:
        segmentation: parsed JSON: a list of polygons, or an RLE, compressed or not.
        height, width: of its image, px.

    Raises:
        AnnotationError: naming what is broken.
    """
    if isinstance(segmentation, list | tuple):
        return from_polygons(segmentation, height, width, thing=thing, place=place)
    checked_size(segmentation, (height, width), thing, place)
    if isinstance(segmentation.get("counts"), list | tuple | np.ndarray):
        return from_uncompressed(segmentation, thing=thing, place=place)
    return normalised(segmentation, size=(height, width), thing=thing, place=place)[0]


def normalised(
    rle: Any, *, size: tuple[int, int] | None = None, thing: str = "segmentation", place: str = ""
) -> tuple[Rle, Counts]:
    """Check a compressed RLE from outside, and give the one spelling of its mask.

    Returns:
        The RLE, safe to give to pycocotools, and its run lengths, without runs of 0 but a first one.

    Raises:
        AnnotationError: naming what is broken.
    """
    runs = check_rle(rle, size=size, thing=thing, place=place)
    counts = rle["counts"]
    if (runs[1:] == 0).any():
        # pycocotools takes a wrong bounding box from runs of 0, and skips overlaps by that box.
        runs = without_empty_runs(runs)
        counts = encode_counts(runs)
    sides = [int(side) for side in rle["size"]]
    return {"size": sides, "counts": counts.encode() if isinstance(counts, str) else counts}, runs


def from_mask(mask: NDArray[Any]) -> Rle:
    """Compress a (height, width) mask; whatever is not 0 is foreground."""
    if mask.ndim != 2 or not 0 < mask.size <= MAX_MASK_PIXELS:
        raise AnnotationError("mask", f"must be (height, width) of 1 to {MAX_MASK_PIXELS} px, got {mask.shape}")
    counts: bytes = pycocotools.mask.encode(np.asfortranarray(mask != 0, dtype=np.uint8))["counts"]
    return {"size": list(mask.shape), "counts": counts}


def to_mask(rle: Rle) -> NDArray[np.uint8]:
    """Draw an RLE as (height, width) uint8 of 0 and 1, in column-major memory as pycocotools does."""
    runs = check_rle(rle)
    height, width = rle["size"]
    colours = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.repeat(colours, runs).reshape(width, height).T


def to_mask_columns(rle: Rle, begin: int, end: int) -> NDArray[np.uint8]:
    """Draw only the columns from ``begin`` up to ``end`` of an RLE: (height, end - begin) uint8 of 0 and 1."""
    return runs_to_columns(check_rle(rle), rle["size"][0], begin, end)


def runs_to_columns(runs: Counts, height: int, begin: int, end: int) -> NDArray[np.uint8]:
    """Draw columns of a mask's run lengths, as `to_mask_columns` does."""
    ends = np.cumsum(runs).clip(begin * height, end * height)
    seen = np.diff(ends, prepend=begin * height)
    colours = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.repeat(colours, seen).reshape(end - begin, height).T


def area(rle: Rle) -> int:
    """Count the foreground pixels."""
    return int(check_rle(rle)[1::2].sum())


def to_bbox(rle: Rle) -> list[float]:
    """Give the tight box round the foreground as [x, y, width, height], absolute px; all 0 for an empty mask."""
    return runs_to_bbox(check_rle(rle), rle["size"][0])


def runs_to_bbox(runs: Counts, height: int) -> list[float]:
    """Give the tight box of a mask's run lengths, as `to_bbox` does."""
    ends = np.cumsum(runs)[1::2]
    starts = ends - runs[1::2]
    starts, lasts = starts[ends > starts], ends[ends > starts] - 1
    if not len(starts):
        return [0.0, 0.0, 0.0, 0.0]
    left, right = int(starts[0]) // height, int(lasts[-1]) // height
    spans_columns = (starts // height != lasts // height).any()
    top = 0 if spans_columns else int((starts % height).min())
    bottom = height - 1 if spans_columns else int((lasts % height).max())
    return [float(left), float(top), float(right - left + 1), float(bottom - top + 1)]


def iou(first: Rle, second: Rle) -> float:
    """Give the intersection over union of two masks of one size, checked and normalised."""
    return float(pycocotools.mask.iou([first], [second], [0])[0, 0])


def to_json(rle: Rle) -> dict[str, Any]:
    """Give an RLE as JSON holds it: `counts` as text."""
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def checked_size(rle: Any, expected: tuple[int, int] | None, thing: str, place: str) -> tuple[int, int]:
    """Give an RLE's (height, width), px.

    Raises:
        AnnotationError: it is no RLE, too large, or not of the expected size.
    """
    if not isinstance(rle, dict):
        raise AnnotationError(thing, f"must be polygons or an RLE, got {type(rle).__name__}", place)
    size = rle.get("size")
    is_pair = isinstance(size, list | tuple) and len(size) == 2
    if not is_pair or not all(isinstance(side, int | np.integer) and side > 0 for side in size or ()):
        raise AnnotationError(f"{thing} size", f"must be [height, width] in px, got {size!r:.80}", place)
    height, width = int(size[0]), int(size[1])  # type: ignore[index]
    if height * width > MAX_MASK_PIXELS:
        rule = f"must be at most {MAX_MASK_PIXELS} px, got {height} x {width}"
    elif expected is not None and (height, width) != expected:
        rule = f"must be its image's [height, width] {list(expected)}, got {[height, width]}"
    else:
        return height, width
    raise AnnotationError(f"{thing} size", rule, place)


def _checked_sum(runs: Counts, height: int, width: int, thing: str, place: str) -> Counts:
    if (total := int(runs.sum())) != height * width:
        rule = f"must sum to {height} x {width} = {height * width} px, got {total}"
        raise AnnotationError(f"{thing} counts", rule, place)
    return runs


def flat_numbers(values: Any, thing: str, place: str) -> NDArray[Any]:
    """Give a flat list of numbers as an array, of whole numbers or not.

    Raises:
        AnnotationError: it is anything else.
    """
    try:
        numbers = np.asarray(values if values is not None else "")
    except ValueError:  # ragged nesting
        numbers = np.asarray("")
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iuf"):
        raise AnnotationError(thing, "must be a flat list of numbers", place)
    return numbers
