"""Which detections of one image are the same object, and what becomes of them: on boxes and RLEs, never on bitmaps.

The same greedy rule serves duplicates in one picture and objects that several overlapping crops have seen. Knows no
files, no networks and no torch; masks are this package's own, already of the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pycocotools.mask
from numpy.typing import NDArray

from maskrcnn.coco.rle import Rle
from maskrcnn.config import OverlapMetric, PieceHandling

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_MAX_PAIRS_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class Candidates:
    """N detections in one image, in any order."""

    boxes: NDArray[np.float32]
    """(N, 4) XYXY, absolute px."""
    scores: NDArray[np.float32]
    """(N,)"""
    labels: Ints
    """(N,) Detections of different labels are never the same object."""
    rles: Sequence[Rle] = field(default_factory=list)
    """N masks of the whole image; none: boxes decide."""

    def __len__(self) -> int:
        return len(self.scores)


def find_overlapping(candidates: Candidates, *, metric: OverlapMetric, threshold: float) -> Ints:
    """Find the pairs that overlap so much that they are one object.

    Args:
        candidates: the detections.
        metric: iou: what two share, of what both cover together; iomin: of the smaller one, so that a piece counts.
        threshold: more than this is one object.

    Returns:
        (num_pairs, 2) int64, indices, the smaller first.
    """
    pairs = _find_touching(candidates)
    first, second = pairs.T
    if len(candidates.rles):
        # One by one: pycocotools' area overflows on lists of more than 255 masks with numpy 2.
        areas = np.array([pycocotools.mask.area(rle) for rle in candidates.rles], np.float64)
        shared = _shared_by_masks(candidates.rles, areas, pairs)
    else:
        sides = candidates.boxes[:, 2:] - candidates.boxes[:, :2]
        areas = sides.prod(axis=1, dtype=np.float64)
        shared = _shared_by_boxes(candidates.boxes, pairs)
    smaller = np.minimum(areas[first], areas[second])
    whole = smaller if metric == "iomin" else areas[first] + areas[second] - shared
    overlapping: Ints = pairs[shared > threshold * whole]
    return overlapping


def best_first(candidates: Candidates, is_cut: Bools | None = None) -> Ints:
    """Order detections: whole ones before those that are cut, each by score; the order they came in does not matter.

    Args:
        candidates: the detections.
        is_cut: (N,) bool, detections that are probably a piece of an object; None: none is.
    """
    cut = np.zeros(len(candidates), np.bool_) if is_cut is None else is_cut
    return np.lexsort((*candidates.boxes.T, candidates.labels, -candidates.scores, cut))


def group_same(order: Ints, pairs: Ints, *, is_cut: Bools | None = None, pieces: PieceHandling = "nms") -> list[Ints]:
    """Go through detections, best first: each that is left is an object, and those paired with it go.

    Args:
        order: (N,) int64, as `best_first` gives it.
        pairs: (num_pairs, 2) int64, as `find_overlapping` gives them.
        is_cut: (N,) bool, as for `best_first`.
        pieces: nms: what is paired with something better is dropped. merge: the same, but cut ones that no whole one
            replaces are one object with all cut ones that they are paired with, directly or through others.

    Returns:
        The objects, best first, each as the indices that make it up, its best first.
    """
    neighbours: list[list[int]] = [[] for _ in order]
    for first, second in pairs.tolist():
        neighbours[first].append(second)
        neighbours[second].append(first)
    is_piece = is_cut if is_cut is not None and pieces == "merge" else np.zeros(len(order), np.bool_)
    is_taken = np.zeros(len(order), np.bool_)
    groups = []
    for best in order.tolist():
        if is_taken[best]:
            continue
        is_taken[best] = True
        group = [best]
        for member in group:  # grows meanwhile
            rest = [other for other in neighbours[member] if not is_taken[other]]
            is_taken[rest] = True
            group += rest if is_piece[best] else []
        groups.append(np.array(group))
    return groups


def unite(candidates: Candidates, groups: Sequence[Ints]) -> Candidates:
    """Give each group as one detection: the union of masks, the box round the boxes, score and label of the best."""
    best = np.array([group[0] for group in groups], np.int64)
    boxes = candidates.boxes[best]
    rles = [candidates.rles[index] for index in best] if len(candidates.rles) else []
    for place, group in enumerate(groups):
        if len(group) == 1:
            continue
        members = candidates.boxes[group]
        boxes[place] = *members[:, :2].min(axis=0), *members[:, 2:].max(axis=0)
        if rles:
            united = pycocotools.mask.merge([candidates.rles[index] for index in group])
            rles[place] = {"size": list(united["size"]), "counts": united["counts"]}
    return Candidates(boxes, candidates.scores[best], candidates.labels[best], rles)


def _find_touching(candidates: Candidates) -> Ints:
    """Find the pairs that may be one object: of one label, with boxes that overlap."""
    x1, y1, x2, y2 = candidates.boxes.T
    labels, num = candidates.labels, len(candidates)
    found = [np.zeros((0, 2), np.int64)]
    rows_at_once = max(1, _MAX_PAIRS_AT_ONCE // max(1, num))
    for begin in range(0, num, rows_at_once):
        rows = slice(begin, begin + rows_at_once)
        may_be = labels[rows, None] == labels
        may_be &= (x1[rows, None] < x2) & (x1 < x2[rows, None])
        may_be &= (y1[rows, None] < y2) & (y1 < y2[rows, None])
        first, second = np.nonzero(may_be)
        first += begin
        is_first = first < second
        found.append(np.stack([first[is_first], second[is_first]], axis=1))
    return np.concatenate(found)


def _shared_by_boxes(boxes: NDArray[np.float32], pairs: Ints) -> NDArray[np.float64]:
    one, other = boxes[pairs[:, 0]], boxes[pairs[:, 1]]
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    return np.asarray(sides.clip(min=0).prod(axis=1, dtype=np.float64))


def _shared_by_masks(rles: Sequence[Rle], areas: NDArray[np.float64], pairs: Ints) -> NDArray[np.float64]:
    """Count the px that the masks of each pair share; the pairs are sorted by their first."""
    shares = [np.zeros(0)]
    firsts, starts = np.unique(pairs[:, 0], return_index=True)
    for first, seconds in zip(firsts.tolist(), np.split(pairs[:, 1], starts[1:]), strict=False):
        others = [rles[second] for second in seconds]
        # As a crowd's: what is shared, of the first mask alone.
        shares.append(pycocotools.mask.iou([rles[first]], others, [1] * len(others))[0] * areas[first])
    return np.concatenate(shares)
