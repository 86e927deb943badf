"""COCO's precision and recall of detections, from how they overlap with the truths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.annotations import MEDIUM_PX, SMALL_PX
from maskrcnn.coco.evaluate.matching import Matcher
from maskrcnn.coco.evaluate.overlaps import Overlaps, Pairs
from maskrcnn.coco.evaluate.sides import Detections, Truths, group_by_image_and_category

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS: dict[str, tuple[float, float]] = {
    "": (0, 1e10),
    "s": (0, SMALL_PX),
    "m": (SMALL_PX, MEDIUM_PX),
    "l": (MEDIUM_PX, 1e10),
}
"""px; a truth of another area is ignored, and so is a detection of another area that matches nothing."""


@dataclass(frozen=True)
class Scores:
    """Precision and recall at T IoU thresholds and R recalls, of K categories, in A ranges of areas."""

    precision: NDArray[np.float64]
    """(T, R, K, A) the best precision at this recall or more; 0 beyond the reach, -1 for categories without truths."""
    recall: NDArray[np.float64]
    """(T, K, A, M) at each of the M limits on detections."""
    thresholds: NDArray[np.float64]
    """(T, R, K, A) the highest score threshold that has this recall; filled as `precision` is."""
    matches: NDArray[np.int32]
    """(D,) the truth that each detection has found at IoU 0.5, of all areas; -1 where none."""


def score(
    truths: Truths,
    detections: Detections,
    areas: NDArray[np.float64],
    overlaps: Overlaps,
    *,
    num_categories: int,
    limits: Sequence[int],
) -> Scores:
    """Match and accumulate.

    Args:
        truths, detections: the two sides.
        areas: (D,) of the detections, px.
        overlaps: between them.
        num_categories: K.
        limits: on detections in an image and category, ascending.

    Source: pycocotools `cocoeval.py`, `COCOeval.evaluate` and `accumulate`.
    """
    precision = np.empty((len(IOU_THRESHOLDS), len(RECALLS), num_categories, len(AREAS)))
    thresholds = np.empty(precision.shape)
    recall = np.empty((len(IOU_THRESHOLDS), num_categories, len(AREAS), len(limits)))
    matcher = Matcher(_find_pairs(truths, detections, overlaps), detections.ranks, IOU_THRESHOLDS)
    for area, (low, high) in enumerate(AREAS.values()):
        is_ignored = truths.is_crowd | (truths.areas < low) | (truths.areas > high)
        is_outside = (areas < low) | (areas > high)
        num_truths = np.bincount(truths.categories[~is_ignored], minlength=num_categories)
        matches = matcher.match(is_ignored, truths.is_crowd)
        for index, row in enumerate(matches):
            hits, places = find_hits(row, is_ignored, is_outside, detections.categories)
            recall[index, :, area] = _recall(detections, hits, num_truths, limits)
            curves = _curves(detections, hits, places, num_truths)
            precision[index, ..., area], thresholds[index, ..., area] = curves
        if area == 0:
            matches_at_50 = matches[0].copy()
    return Scores(precision, recall, thresholds, matches_at_50)


def find_hits(
    matches: NDArray[np.int32],
    is_ignored: NDArray[np.bool_],
    is_outside: NDArray[np.bool_],
    categories: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the detections that are right, and how many of their category count down to each.

    Args:
        matches: (D,) the truth of each detection, -1 where none.
        is_ignored: (G,) truths that do not count.
        is_outside: (D,) detections that do not count if they match nothing.
        categories: (D,) ascending; within one, best score first.

    Returns:
        (H,) the right detections, and (H,) their places among those of their category that count, from 1.
    """
    is_matched = matches >= 0
    is_right = is_matched.copy()
    is_right[is_matched] = ~is_ignored[matches[is_matched]]
    counts = np.where(is_matched, is_right, ~is_outside)
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    hits = np.flatnonzero(is_right)
    begins = np.searchsorted(categories, categories[hits])
    return hits, before[hits + 1] - before[begins]


def _find_pairs(truths: Truths, detections: Detections, overlaps: Overlaps) -> Pairs:
    return overlaps.find(
        np.arange(len(detections.indices)),
        group_by_image_and_category(detections.images, detections.categories),
        np.arange(len(truths.indices)),
        group_by_image_and_category(truths.images, truths.categories),
        IOU_THRESHOLDS[0],
    )


def _recall(
    detections: Detections, hits: NDArray[np.int64], num_truths: NDArray[np.int64], limits: Sequence[int]
) -> NDArray[np.float64]:
    """Give (K, M) the share of each category's truths that is found within each limit; -1 without truths."""
    recall = np.full((len(num_truths), len(limits)), -1.0)
    for index, limit in enumerate(limits):
        found = detections.categories[hits[detections.ranks[hits] < limit]]
        counts = np.bincount(found, minlength=len(num_truths))
        np.divide(counts, num_truths, out=recall[:, index], where=num_truths > 0)
    return recall


def _curves(
    detections: Detections, hits: NDArray[np.int64], places: NDArray[np.int64], num_truths: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give (R, K) the best precision at each recall or more, and (R, K) the score of the detection that reaches it."""
    precision = np.where(num_truths > 0, np.zeros((len(RECALLS), 1)), -1.0)
    thresholds = precision.copy()
    bounds = np.searchsorted(detections.categories[hits], np.arange(len(num_truths) + 1))
    for category in np.flatnonzero(np.diff(bounds)).tolist():
        own = slice(bounds[category], bounds[category + 1])
        num_right = np.arange(1, own.stop - own.start + 1)
        envelope = np.maximum.accumulate((num_right / (places[own] + np.spacing(1)))[::-1])[::-1]
        at = np.searchsorted(num_right / num_truths[category], RECALLS, side="left")
        is_reached = at < len(num_right)
        precision[is_reached, category] = envelope[at[is_reached]]
        thresholds[is_reached, category] = detections.scores[hits[own][at[is_reached]]]
    return precision, thresholds
