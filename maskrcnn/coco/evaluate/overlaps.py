"""Which detections and truths overlap, and how much: by boxes or by masks. Knows no scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from maskrcnn.coco.rle import Rle

_BLOCK_PAIRS = 1 << 17

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """P pairs of a detection and a truth; those of one detection follow each other, truths ascending."""

    detections: Indices
    """(P,)"""
    truths: Indices
    """(P,)"""
    ious: NDArray[np.float64]
    """(P,) intersection over union; over the detection alone where the truth is a crowd."""

    def where(self, is_chosen: NDArray[np.bool_]) -> Pairs:
        """Give some of the pairs."""
        return Pairs(self.detections[is_chosen], self.truths[is_chosen], self.ious[is_chosen])


class Overlaps(ABC):
    """The overlap of D detections with G truths, of which some are crowds."""

    def __init__(self, is_crowd: NDArray[np.bool_]) -> None:
        self._is_crowd = is_crowd

    def find(
        self, detections: Indices, detection_groups: Indices, truths: Indices, truth_groups: Indices, floor: float
    ) -> Pairs:
        """Find the pairs within groups that overlap enough.

        Args:
            detections, truths: which ones, by number.
            detection_groups, truth_groups: the group of each, of the same shapes; only within one are there pairs.
            floor: the least IoU of a pair, above 0.
        """
        by_group, truths_by_group = (np.argsort(groups, kind="stable") for groups in (detection_groups, truth_groups))
        detections, truths = detections[by_group], truths[truths_by_group]
        found, begins = np.unique(detection_groups[by_group], return_index=True)
        ends = np.append(begins, len(detections))[1:]
        truth_begins, truth_ends = (
            np.searchsorted(truth_groups[truths_by_group], found, side=side) for side in ("left", "right")
        )
        bounds = np.stack([begins, ends, truth_begins, truth_ends], axis=1)[truth_ends > truth_begins]
        blocks = list(self._find(detections, truths, bounds, floor))
        return Pairs(
            np.concatenate([np.zeros(0, np.int64), *(block.detections for block in blocks)]),
            np.concatenate([np.zeros(0, np.int64), *(block.truths for block in blocks)]),
            np.concatenate([np.zeros(0), *(block.ious for block in blocks)]),
        )

    @abstractmethod
    def _find(self, detections: Indices, truths: Indices, bounds: Indices, floor: float) -> Iterator[Pairs]:
        """Find pairs; (num_groups, 4) bounds say where each group's detections and truths begin and end."""


class BoxOverlaps(Overlaps):
    """The overlap of boxes: (D, 4) and (G, 4) XYWH, absolute px.

    Source: pycocotools `maskApi.c`, `bbIou`.
    """

    def __init__(
        self, boxes: NDArray[np.float64], truth_boxes: NDArray[np.float64], is_crowd: NDArray[np.bool_]
    ) -> None:
        super().__init__(is_crowd)
        self._boxes, self._truth_boxes = boxes, truth_boxes

    def _find(self, detections: Indices, truths: Indices, bounds: Indices, floor: float) -> Iterator[Pairs]:
        begins, ends, truth_begins, truth_ends = bounds.T
        detections = detections[_ranges(begins, ends - begins)]
        firsts = np.repeat(truth_begins, ends - begins)
        counts = np.repeat(truth_ends - truth_begins, ends - begins)
        sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        begin = 0
        while begin < len(detections):
            end = max(begin + 1, int(np.searchsorted(sums, sums[begin] + _BLOCK_PAIRS, side="right")) - 1)
            of_pair = np.repeat(detections[begin:end], counts[begin:end])
            truths_of_pair = truths[_ranges(firsts[begin:end], counts[begin:end])]
            ious = self._ious(of_pair, truths_of_pair)
            yield Pairs(of_pair, truths_of_pair, ious).where(ious >= floor)
            begin = end

    @np.errstate(over="ignore", invalid="ignore")  # a box may be of any size, and then overlaps with nothing
    def _ious(self, detections: Indices, truths: Indices) -> NDArray[np.float64]:
        x, y, w, h = self._boxes[detections].T
        truth_x, truth_y, truth_w, truth_h = self._truth_boxes[truths].T
        shared_w = np.minimum(w + x, truth_w + truth_x) - np.maximum(x, truth_x)
        shared_h = np.minimum(h + y, truth_h + truth_y) - np.maximum(y, truth_y)
        shared = np.where((shared_w > 0) & (shared_h > 0), shared_w * shared_h, 0)
        area = w * h
        whole = np.where(self._is_crowd[truths], area, area + truth_w * truth_h - shared)
        ious: NDArray[np.float64] = np.divide(shared, whole, out=np.zeros(len(shared)), where=shared > 0)
        return ious


class MaskOverlaps(Overlaps):
    """The overlap of masks.

    Args:
        mask_of: gives a detection's mask by its number, safe to give to pycocotools, as the next.
        truth_mask_of: gives a truth's.
        is_crowd: (G,)
    """

    def __init__(
        self, mask_of: Callable[[int], Rle], truth_mask_of: Callable[[int], Rle], is_crowd: NDArray[np.bool_]
    ) -> None:
        super().__init__(is_crowd)
        self._mask_of, self._truth_mask_of = mask_of, truth_mask_of

    def _find(self, detections: Indices, truths: Indices, bounds: Indices, floor: float) -> Iterator[Pairs]:
        for begin, end, truth_begin, truth_end in bounds.tolist():
            chosen, chosen_truths = detections[begin:end], truths[truth_begin:truth_end]
            masks = [self._mask_of(index) for index in chosen.tolist()]
            truth_masks = [self._truth_mask_of(index) for index in chosen_truths.tolist()]
            ious = pycocotools.mask.iou(masks, truth_masks, self._is_crowd[chosen_truths].tolist())
            rows, columns = np.nonzero(ious >= floor)
            if len(rows):
                yield Pairs(chosen[rows], chosen_truths[columns], ious[rows, columns])


def _ranges(begins: Indices, lengths: Indices) -> Indices:
    """Count up from each of some numbers, one after the other."""
    numbers: Indices = np.repeat(begins - (np.cumsum(lengths) - lengths), lengths)
    numbers += np.arange(len(numbers))
    return numbers
