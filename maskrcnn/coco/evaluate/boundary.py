"""Boundary IoU: how well outlines agree, which the IoU of large masks hardly tells.

A mask's boundary is what lies within 2% of the image's diagonal of its outline; where a mask meets the edge of the
image there is an outline too.

Source: Cheng et al. 2021, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from maskrcnn.coco import rle
from maskrcnn.coco.evaluate.overlaps import Indices, MaskOverlaps, Pairs
from maskrcnn.coco.runs import encode_counts, without_empty_runs

DISTANCE = 0.02
"""The width of a boundary, in diagonals of the image."""


def boundary_width(height: int, width: int) -> int:
    """Give the width of the boundaries of an image's masks, px."""
    return max(1, round(DISTANCE * math.hypot(height, width)))


def boundary_of(mask: rle.Rle) -> rle.Rle:
    """Give the part of a mask that is near its outline.

    Only the mask's box is drawn, never the whole image.
    """
    height, width = mask["size"]
    reach = boundary_width(height, width)
    left, top, w, h = map(int, rle.to_bbox(mask))
    if min(w, h) <= 2 * reach:  # all of it
        return mask
    drawn = rle.to_mask_columns(mask, left, left + w)[top : top + h]
    inside = erode(drawn, reach)
    if not inside.any():
        return mask
    return _encode_crop(drawn & ~inside, left, top, height, width)


def erode(mask: NDArray[np.uint8], reach: int) -> NDArray[np.uint8]:
    """Keep the pixels whose neighbours up to ``reach`` px away, in rows, columns and diagonals, are all foreground.

    Args:
        mask: (h, w) of 0 and 1; beyond it is background.
        reach: px, 1 or more.
    """
    return _erode_columns(_erode_columns(mask, reach).T, reach).T


class BoundaryOverlaps(MaskOverlaps):
    """The overlap of masks or of their boundaries, whichever is less; of crowds that of masks."""

    def __init__(
        self,
        mask_of: Callable[[int], rle.Rle],
        truth_mask_of: Callable[[int], rle.Rle],
        is_crowd: NDArray[np.bool_],
    ) -> None:
        super().__init__(mask_of, truth_mask_of, is_crowd)
        self._boundaries: dict[int, rle.Rle] = {}
        self._truth_boundaries: dict[int, rle.Rle] = {}

    def _find(self, detections: Indices, truths: Indices, bounds: Indices, floor: float) -> Iterator[Pairs]:
        # Boundaries are made of those only that overlap enough as masks.
        for pairs in super()._find(detections, truths, bounds, floor):
            ious = pairs.ious.copy()
            is_object = ~self._is_crowd[pairs.truths]
            chosen, rows = np.unique(pairs.detections[is_object], return_inverse=True)
            chosen_truths, columns = np.unique(pairs.truths[is_object], return_inverse=True)
            if len(chosen):
                found = pycocotools.mask.iou(
                    [self._boundary(self._boundaries, self._mask_of, index) for index in chosen.tolist()],
                    [
                        self._boundary(self._truth_boundaries, self._truth_mask_of, index)
                        for index in chosen_truths.tolist()
                    ],
                    [0] * len(chosen_truths),
                )
                ious[is_object] = np.minimum(ious[is_object], found[rows, columns])
            yield Pairs(pairs.detections, pairs.truths, ious).where(ious >= floor)

    @staticmethod
    def _boundary(known: dict[int, rle.Rle], mask_of: Callable[[int], rle.Rle], index: int) -> rle.Rle:
        if index not in known:
            known[index] = boundary_of(mask_of(index))
        return known[index]


def _erode_columns(mask: NDArray[np.uint8], reach: int) -> NDArray[np.uint8]:
    """Keep the pixels that have foreground up to ``reach`` px above and below."""
    sums = np.zeros((len(mask) + 1, mask.shape[1]), np.int32)
    np.cumsum(mask, axis=0, out=sums[1:])
    span = 2 * reach + 1
    kept = np.zeros(mask.shape, np.uint8)
    if len(mask) >= span:
        kept[reach : len(mask) - reach] = sums[span:] - sums[:-span] == span
    return kept


def _encode_crop(crop: NDArray[np.uint8], left: int, top: int, height: int, width: int) -> rle.Rle:
    """Compress a mask of which only a part of the image is drawn; around it is background."""
    h, w = crop.shape
    columns = np.zeros((w, h + 2), np.int8)  # with background above and below, so that no run crosses columns
    columns[:, 1:-1] = crop.T
    column, row = np.nonzero(np.diff(columns, axis=1))
    edges = (left + column) * height + top + row  # where foreground begins, and ends, by turns
    runs = np.diff(np.concatenate([[0], edges, [height * width]]))
    return {"size": [height, width], "counts": encode_counts(without_empty_runs(runs))}
