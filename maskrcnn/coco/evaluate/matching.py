"""Which detection has found which truth: greedily, best score first, as COCO does. Knows no boxes and no masks.

One step takes the next detection of every group at once, at all IoU thresholds: groups have nothing to do with each
other, and only pairs that overlap enough are looked at.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.evaluate.overlaps import Pairs

_PERFECT = 1 - 1e-10


class Matcher:
    """Matches detections to truths within groups.

    Args:
        pairs: within groups, all that reach the lowest threshold.
        ranks: (D,) the place of each detection in its group, best score first.
        iou_thresholds: (T,)
    """

    def __init__(self, pairs: Pairs, ranks: NDArray[np.int64], iou_thresholds: NDArray[np.float64]) -> None:
        self._num_detections = len(ranks)
        # The best candidate of a detection comes last: the one that overlaps most; of equal ones the last truth.
        order = np.lexsort((pairs.truths, pairs.ious, pairs.detections, ranks[pairs.detections]))
        detections, self._truths = pairs.detections[order], pairs.truths[order]
        self._begins = np.flatnonzero(np.diff(detections, prepend=-1))
        self._detections = detections[self._begins]
        self._reaches = pairs.ious[order] >= np.minimum(iou_thresholds, _PERFECT)[:, None]
        steps = np.flatnonzero(np.diff(ranks[self._detections], prepend=-1))
        self._steps = np.append(steps, len(self._begins)).tolist()

    def match(self, is_ignored: NDArray[np.bool_], is_crowd: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Match at every IoU threshold.

        Args:
            is_ignored: (G,) truths that count neither for nor against a detection, and come after all others.
            is_crowd: (G,) truths that any number of detections may match.

        Returns:
            (T, D) the truth that each detection has found, -1 where it has found none.

        Source: pycocotools `cocoeval.py`, `COCOeval.evaluateImg`.
        """
        matches = np.full((len(self._reaches), self._num_detections), -1, np.int32)
        is_taken = np.zeros((len(self._reaches), len(is_ignored)), np.bool_)
        num_pairs = len(self._truths)
        preferences = np.arange(1, num_pairs + 1) + num_pairs * ~is_ignored[self._truths]
        ends = np.append(self._begins, num_pairs)
        for first, last in zip(self._steps[:-1], self._steps[1:], strict=True):
            begin, end = ends[first], ends[last]
            truths = self._truths[begin:end]
            is_open = self._reaches[:, begin:end] & ~is_taken[:, truths]
            best = np.maximum.reduceat(is_open * preferences[begin:end], self._begins[first:last] - begin, axis=1)
            thresholds, places = np.nonzero(best)
            chosen = self._truths[(best[thresholds, places] - 1) % num_pairs]
            matches[thresholds, self._detections[first:last][places]] = chosen
            is_taken[thresholds, chosen] = ~is_crowd[chosen]
        return matches
