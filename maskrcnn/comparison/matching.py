"""Which instances of two tables are the same object. Pure functions over arrays; knows no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.evaluate.overlaps import BoxOverlaps, MaskOverlaps, Overlaps, Pairs
from maskrcnn.coco.packed import SizedSegmentations
from maskrcnn.coco.rle import Rle

MIN_IOU = 0.5
"""Instances of one category that overlap less are different objects, as in COCO's AP50."""

_CATEGORY_BITS = 32


@dataclass(frozen=True)
class Instances:
    """N instances that one table has of a few images."""

    of_image: NDArray[np.int64]
    """(N,) ascending."""
    categories: NDArray[np.int64]
    """(N,) numbers that both tables share."""
    scores: NDArray[np.float64]
    """(N,)"""
    boxes: NDArray[np.float64]
    """(N, 4) XYWH, absolute px."""
    masks: SizedSegmentations
    """N checked RLEs; empty ones where the table has no mask."""

    def mask(self, index: int) -> Rle:
        """Give one mask."""
        height, width = self.masks.sizes[index].tolist()
        return {"size": [height, width], "counts": self.masks.packed.counts[index]}

    def where(self, is_chosen: NDArray[np.bool_]) -> Instances:
        """Give some of the instances."""
        return Instances(
            self.of_image[is_chosen],
            self.categories[is_chosen],
            self.scores[is_chosen],
            self.boxes[is_chosen],
            SizedSegmentations.from_rles([self.mask(index) for index in np.flatnonzero(is_chosen).tolist()]),
        )


@dataclass(frozen=True)
class Matches:
    """What became of the instances of a few images."""

    b_of_a: NDArray[np.int64]
    """(N_a,) the instance of B that is the same object, -1 where there is none: lost."""
    ious: NDArray[np.float64]
    """(N_a,) their intersection over union, 0 where lost."""
    is_gained: NDArray[np.bool_]
    """(N_b,) whether an instance is in B only."""


def match(a: Instances, b: Instances, has_masks: NDArray[np.bool_]) -> Matches:
    """Match the instances of each image within categories, the pair that overlaps most first.

    Args:
        a, b: instances of the same images.
        has_masks: (num_images,) whether an image is matched by masks, which both tables have; else by boxes.
    """
    no_crowds = np.zeros(len(b.scores), np.bool_)
    by_masks = _find(MaskOverlaps(a.mask, b.mask, no_crowds), a, b, has_masks)
    by_boxes = _find(BoxOverlaps(a.boxes, b.boxes, no_crowds), a, b, ~has_masks)
    b_of_a = np.full(len(a.scores), -1)
    ious = np.zeros(len(a.scores))
    is_gained = np.ones(len(b.scores), np.bool_)
    for first, second, iou in _best_first([by_masks, by_boxes]):
        if b_of_a[first] < 0 and is_gained[second]:
            b_of_a[first], ious[first], is_gained[second] = second, iou, False
    return Matches(b_of_a, ious, is_gained)


def _find(overlaps: Overlaps, a: Instances, b: Instances, is_wanted: NDArray[np.bool_]) -> Pairs:
    chosen = [np.flatnonzero(is_wanted[one.of_image]) for one in (a, b)]
    groups = [
        (one.of_image << _CATEGORY_BITS | one.categories)[places] for one, places in zip((a, b), chosen, strict=True)
    ]
    return overlaps.find(chosen[0], groups[0], chosen[1], groups[1], MIN_IOU)


def _best_first(found: Sequence[Pairs]) -> list[tuple[int, int, float]]:
    a, b = (np.concatenate([getattr(pairs, name) for pairs in found]) for name in ("detections", "truths"))
    ious = np.concatenate([pairs.ious for pairs in found])
    order = np.lexsort((b, a, -ious))
    return list(zip(a[order].tolist(), b[order].tolist(), ious[order].tolist(), strict=True))
