"""One row made sound, where that can be done without guessing: pure functions of the row and its image's size.

A mask is never invented: what has no usable shape is dropped. Bounding boxes and areas follow the mask.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco import rle
from maskrcnn.coco.validate.comparisons import corners_of, find_odd_areas, is_bbox_off, leaves_image
from maskrcnn.coco.validate.fields import as_whole_number, name_area_problem, name_bbox_problem
from maskrcnn.coco.validate.outlines import measure_outlines
from maskrcnn.coco.validate.segmentations import NO_AREA_PX, are_pairs
from maskrcnn.errors import AnnotationError


@dataclass(frozen=True)
class Change:
    """What was done to one field of a row, or, with no field, to the row as a whole."""

    field: str
    action: str
    was: Any = None


class UnusableRowError(Exception):
    """A row that has to go, and why."""


def mend_numbers(row: dict[str, Any], fields: tuple[str, ...], changes: list[Change]) -> None:
    """Make whole numbers of texts and floats that are ones, in place."""
    for field in fields:
        value = row.get(field)
        number = as_whole_number(value)
        if number is not None and type(value) is not int:
            changes.append(Change(field, "made a whole number", value))
            row[field] = number


def mend_annotation(row: dict[str, Any], size: tuple[int, int] | None) -> list[Change]:
    """Make an annotation sound, in place.

    Args:
        row: the annotation; its ids are sound.
        size: (height, width) of its image, px, where it is known.

    Returns:
        What was changed.

    Raises:
        UnusableRowError: it has no shape that can be used.
    """
    changes: list[Change] = []
    _mend_crowd(row, changes)
    _mend_segmentation(row, size, changes)
    is_reshaped = any(change.field == "segmentation" for change in changes)
    mask = _draw(row["segmentation"], size)
    if isinstance(row["segmentation"], list) and row["iscrowd"] == 1 and size is not None:
        changes.append(Change("segmentation", "polygons of a crowd made an RLE"))
        row["segmentation"] = rle.to_json(mask)
    _mend_bbox(row, mask, is_reshaped, changes)
    _mend_area(row, rle.area(mask), is_reshaped, changes)
    return changes


def clip_polygon(points: NDArray[np.float64], width: float, height: float) -> NDArray[np.float64]:
    """Cut a polygon to an image.

    Args:
        points: (N, 2) x and y, absolute px.
        width, height: of the image, px.

    Returns:
        (M, 2), none where the image shows nothing of it. Parts that the cut leaves apart stay joined along the border.

    Source: Sutherland and Hodgman, Reentrant polygon clipping, 1974.
    """
    for axis, limit, sign in ((0, 0.0, 1.0), (0, width, -1.0), (1, 0.0, 1.0), (1, height, -1.0)):
        if not len(points):
            return points
        inside = sign * (points[:, axis] - limit) >= 0
        kept = []
        for this, following, is_in, is_next_in in zip(
            points, np.roll(points, -1, axis=0), inside, np.roll(inside, -1), strict=True
        ):
            if is_in:
                kept.append(this)
            if is_in != is_next_in:
                share = (limit - this[axis]) / (following[axis] - this[axis])
                crossing = this + share * (following - this)
                crossing[axis] = limit
                kept.append(crossing)
        points = np.array(kept).reshape(-1, 2)
    return points


def _mend_crowd(row: dict[str, Any], changes: list[Change]) -> None:
    value = row.get("iscrowd")
    crowd = 1 if value in (1, "1") else 0
    if value != crowd or isinstance(value, bool):
        changes.append(Change("iscrowd", f"set to {crowd}", value))
    row["iscrowd"] = crowd


def _mend_bbox(row: dict[str, Any], mask: rle.Rle, is_reshaped: bool, changes: list[Change]) -> None:
    bbox, tight = row.get("bbox"), rle.to_bbox(mask)
    if name_bbox_problem(bbox) is None and not is_reshaped:
        written, edges = np.array([bbox], np.float64), corners_of(np.array([tight]))
        if not is_bbox_off(written, edges)[0] and not leaves_image(corners_of(written), np.array([mask["size"]]))[0]:
            return
    if bbox != tight:
        changes.append(Change("bbox", "taken from the mask", bbox))
        row["bbox"] = tight


def _mend_area(row: dict[str, Any], mask_area: int, is_reshaped: bool, changes: list[Change]) -> None:
    area = row.get("area")
    if name_area_problem(area) is None and not is_reshaped:
        areas, mask_areas = np.array([area], np.float64), np.array([mask_area], np.float64)
        if not np.any(find_odd_areas(areas, mask_areas, np.array([row["bbox"]], np.float64))):
            return
    if area != mask_area:
        changes.append(Change("area", "taken from the mask", area))
        row["area"] = mask_area


def _mend_segmentation(row: dict[str, Any], size: tuple[int, int] | None, changes: list[Change]) -> None:
    segmentation = row.get("segmentation")
    if isinstance(segmentation, dict):
        if size is not None and segmentation.get("size") == [size[1], size[0]] and size[0] != size[1]:
            changes.append(Change("segmentation", "size turned to [height, width]", segmentation["size"]))
            row["segmentation"] = {**segmentation, "size": list(size)}
        return
    if not isinstance(segmentation, list) or not segmentation:
        raise UnusableRowError("no segmentation")
    parts = []
    for index, polygon in enumerate(_as_polygons(segmentation)):
        points = _as_points(polygon)
        if points is None:
            changes.append(Change("segmentation", f"polygon {index} dropped", polygon))
            continue
        strays = size is not None and _strays(points, size)
        if size is not None and strays:
            points = clip_polygon(points, size[1], size[0])
            changes.append(Change("segmentation", f"polygon {index} cut to the image", polygon))
        if len(points) >= 3:
            is_flat = all(isinstance(value, int | float) for value in polygon)
            parts.append(polygon if is_flat and not strays else points.reshape(-1).tolist())
    if not parts:
        raise UnusableRowError("no polygon with an area within the image")
    if parts != segmentation:
        if not any(change.field == "segmentation" for change in changes):
            changes.append(Change("segmentation", "made a list of flat polygons"))
        row["segmentation"] = parts


def _strays(points: NDArray[np.float64], size: tuple[int, int]) -> bool:
    extent = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return bool(leaves_image(extent[None], np.array([size]))[0])


def _as_polygons(segmentation: list[Any]) -> list[Any]:
    """Give a list of polygons, also where there is one that is not in a list, or one as a list of points."""
    if not isinstance(segmentation[0], list):
        return [segmentation]
    return [segmentation] if len(segmentation) > 1 and are_pairs(segmentation) else segmentation


def _as_points(polygon: Any) -> NDArray[np.float64] | None:
    """Give a polygon's (N, 2) points, absolute px; None where it is none, or covers nothing."""
    if not isinstance(polygon, list):
        return None
    values = [value for part in polygon for value in part] if polygon and are_pairs(polygon) else polygon
    numbers = [_as_number(value) for value in values]
    if len(numbers) < 6 or len(numbers) % 2 or any(number is None for number in numbers):
        return None
    points = np.array(numbers, np.float64).reshape(-1, 2)
    has_area = measure_outlines(points, np.array([len(points)])).spreads[0] > NO_AREA_PX
    return points if np.isfinite(points).all() and has_area else None


def _as_number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _draw(segmentation: Any, size: tuple[int, int] | None) -> rle.Rle:
    """Give the mask.

    Raises:
        UnusableRowError: there is none.
    """
    try:
        mask = rle.from_segmentation(segmentation, *(size or _canvas_of(segmentation)))
    except AnnotationError as error:
        raise UnusableRowError(str(error)) from None
    if not rle.area(mask):
        raise UnusableRowError("its mask covers no pixel")
    return mask


def _canvas_of(segmentation: Any) -> tuple[int, int]:
    """Give a (height, width), px, that holds a shape whose image's size is not known."""
    if isinstance(segmentation, dict):
        return rle.checked_size(segmentation, None, "segmentation", "")
    right, bottom = np.concatenate([np.reshape(part, (-1, 2)) for part in segmentation]).max(axis=0).clip(0)
    return int(np.ceil(bottom)) + 1, int(np.ceil(right)) + 1
