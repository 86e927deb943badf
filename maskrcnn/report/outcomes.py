"""What the truth says of an image's detections: right, wrong or in a crowd, and which objects were found by which.

At IoU 0.5 and within categories, as COCO matches. What a lower score threshold adds never changes the matches of the
better detections, so that one matching serves every threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco import rle
from maskrcnn.coco.annotations import CocoDataset
from maskrcnn.coco.evaluate.matching import Matcher
from maskrcnn.coco.evaluate.overlaps import BoxOverlaps, MaskOverlaps, Overlaps
from maskrcnn.errors import AnnotationError

NOT_JUDGED, RIGHT, WRONG, IN_CROWD = 0, 1, 2, 3
MATCH_IOU = 0.5


@dataclass(frozen=True)
class Found:
    """The D detections of one image, best score first."""

    size: tuple[int, int]
    """(height, width) px"""
    category_ids: NDArray[np.int64]
    """(D,)"""
    boxes: NDArray[np.float64]
    """(D, 4) XYWH, absolute px."""
    masks: Sequence[rle.Rle] | None
    """D, safe to give to pycocotools; None where the job kept none."""


@dataclass(frozen=True)
class Outcomes:
    """What became of D detections and of G objects that are no crowds."""

    kinds: NDArray[np.uint8]
    """(D,) RIGHT, WRONG, IN_CROWD, or NOT_JUDGED where the truth has no such category."""
    truths: NDArray[np.int64]
    """(G,) indices of the dataset's annotations."""
    finders: NDArray[np.int64]
    """(G,) the detection that found each, -1 where none has."""


def judge(found: Found, dataset: CocoDataset, image_index: int) -> Outcomes:
    """Match one image's detections with its annotations: by masks where both sides have them all, else by boxes.

    Args:
        found: the detections.
        dataset: the truth.
        image_index: of the image in the dataset.

    Raises:
        AnnotationError: an image that is of another size in the truth.
    """
    expected = (int(dataset.heights[image_index]), int(dataset.widths[image_index]))
    if expected != found.size:
        labelled, got = (f"{width} x {height}" for height, width in (found.size, expected))
        rule = f"must be of the size that was labelled, {labelled} px, got {got}"
        raise AnnotationError(f"image {dataset.image_ids[image_index]}", rule, dataset.place)
    annotations = dataset.annotations_of(image_index)
    own = np.arange(annotations.start, annotations.stop)
    is_crowd, categories = dataset.iscrowd[own], dataset.category_ids[own]
    pairs = _overlaps(found, dataset, own).find(
        np.arange(len(found.category_ids)), found.category_ids, np.arange(len(own)), categories, MATCH_IOU
    )
    matcher = Matcher(pairs, _ranks_within(found.category_ids), np.array([MATCH_IOU]))
    matches = matcher.match(is_crowd, is_crowd)[0]
    kinds = np.where(matches >= 0, RIGHT, WRONG).astype(np.uint8)
    is_matched = matches >= 0
    kinds[is_matched] = np.where(is_crowd[matches[is_matched]], IN_CROWD, RIGHT)
    kinds[~np.isin(found.category_ids, np.array(dataset.categories.ids))] = NOT_JUDGED
    finders = np.full(len(own), -1, np.int64)
    finders[matches[is_matched]] = np.flatnonzero(is_matched)
    return Outcomes(kinds, own[~is_crowd], finders[~is_crowd])


def _ranks_within(category_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give each detection's place among those of its category."""
    _, groups, counts = np.unique(category_ids, return_inverse=True, return_counts=True)
    ranks = np.empty(len(category_ids), np.int64)
    ranks[np.argsort(groups, kind="stable")] = np.arange(len(groups)) - np.repeat(np.cumsum(counts) - counts, counts)
    return ranks


def _overlaps(found: Found, dataset: CocoDataset, own: NDArray[np.int64]) -> Overlaps:
    is_crowd = dataset.iscrowd[own]
    masks = found.masks
    if masks is None or not all(dataset.has_segmentation(index) for index in own.tolist()):
        return BoxOverlaps(found.boxes, dataset.bboxes[own], is_crowd)
    return MaskOverlaps(masks.__getitem__, lambda truth: dataset.rle(int(own[truth])), is_crowd)
