"""What is one object, told by masks: for products that touch, whose boxes overlap far more than they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from maskrcnn.coco.merging import Candidates, best_first, find_overlapping, group_same
from maskrcnn.config import ThresholdConfig, check_mask_nms
from maskrcnn.model.decode import DecodedImage
from maskrcnn.model.detections import Detections
from maskrcnn.model.predictor import AnyPredictor

CANDIDATES_PER_DETECTION = 3
"""How many times the maximum of detections get a mask, before masks tell which of them are the same."""


class MaskNmsPredictor:
    """Drops detections whose masks overlap a better one's of their category; as a `Predictor` otherwise.

    Args:
        predictor: gives the candidates: its box NMS is loose, and its maximum `CANDIDATES_PER_DETECTION` times theirs.
        mask_nms: masks that overlap more than this (IoU) are one object, in (0, 1].
        thresholds: of what is given back.
    """

    def __init__(self, predictor: AnyPredictor, mask_nms: float, thresholds: ThresholdConfig) -> None:
        self.preprocess = predictor.preprocess
        self.thresholds = thresholds
        self.categories = predictor.categories
        self.bundle_sha256 = predictor.bundle_sha256
        self.whole_above_px = predictor.whole_above_px
        self.is_on_gpu = predictor.is_on_gpu
        self._predictor = predictor
        self._mask_nms = mask_nms

    def __call__(self, images: Sequence[Tensor | bytes | DecodedImage], *, with_masks: bool = True) -> list[Detections]:
        """Detect objects, as `Predictor` does.

        Raises:
            InputError: as `Predictor`; and without masks.
        """
        check_mask_nms(self._mask_nms, has_masks=with_masks)
        return [self._without_duplicates(found) for found in self._predictor(images)]

    def _without_duplicates(self, found: Detections) -> Detections:
        candidates = _to_candidates(found)
        pairs = find_overlapping(candidates, metric="iou", threshold=self._mask_nms)
        groups = group_same(best_first(candidates), pairs)
        return _select(found, np.array([group[0] for group in groups[: self.thresholds.max_detections]], np.int64))


def _to_candidates(found: Detections) -> Candidates:
    """Give an image's detections to those who know no torch."""
    return Candidates(found.boxes.numpy(), found.scores.numpy(), found.labels.numpy(), found.rles)


def _select(found: Detections, indices: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Detections:
    """Keep some of an image's detections, in the order of ``indices``."""
    at = torch.from_numpy(indices)
    rles = [found.rles[index] for index in indices] if found.rles else []
    return replace(
        found,
        boxes=found.boxes[at],
        scores=found.scores[at],
        labels=found.labels[at],
        category_ids=found.category_ids[at],
        rles=rles,
    )
