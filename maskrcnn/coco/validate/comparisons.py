"""When a box, an area and a shape count as other than each other, and a shape as outside of its image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STRAY_PX = 1.0
"""How far a shape may leave its image: tools round to a px."""

BBOX_OFF_PX, BBOX_OFF_SHARE = 2.0, 0.02
"""How far an edge of bbox may be off the mask's, px and as a share of the longer side."""

BOXLIKE_SHARE = 0.95
"""A mask that fills this much of its box may have the box's area."""

AREA_FACTOR = 2.0
AREA_OFF_PX = 16.0


def corners_of(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn (N, 4) XYWH into left, top, right, bottom."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def is_bbox_off(boxes: NDArray[np.float64], extents: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say of (N, 4) XYWH whether they are other than their masks' left, top, right, bottom; not where one is NaN."""
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(corners_of(boxes) - extents).max(axis=1, initial=0)
        longer = (extents[:, 2:] - extents[:, :2]).max(axis=1, initial=0)
        return np.asarray(gap > np.maximum(BBOX_OFF_PX, BBOX_OFF_SHARE * longer), np.bool_)


def find_odd_areas(
    areas: NDArray[np.float64], mask_areas: NDArray[np.float64], boxes: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say of (N,) areas, px, whether they are the box's instead of the mask's, and whether they are far off else."""
    with np.errstate(invalid="ignore", over="ignore"):
        box_areas = boxes[:, 2] * boxes[:, 3]
        equals_box = (np.abs(areas - box_areas) <= 1e-3 * box_areas) & (mask_areas < BOXLIKE_SHARE * box_areas)
        is_far_off = (areas > AREA_FACTOR * mask_areas) | (areas < mask_areas / AREA_FACTOR)
        is_far_off &= np.abs(areas - mask_areas) > AREA_OFF_PX
    return equals_box, is_far_off & ~equals_box


def leaves_image(corners: NDArray[np.float64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say of boxes (N, 4) left, top, right, bottom whether they leave their images of (N, 2) height, width."""
    with np.errstate(invalid="ignore", over="ignore"):
        is_before = (corners[:, :2] < -STRAY_PX).any(axis=1)
        is_behind = (corners[:, 2:] > sizes[:, ::-1] + STRAY_PX).any(axis=1)
    return np.asarray(is_before | is_behind, np.bool_)
