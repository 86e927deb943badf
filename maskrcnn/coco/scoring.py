"""COCO's precision and recall of detections, from how they overlap with the truths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.matching import Matcher
from maskrcnn.coco.overlaps import Overlaps, Pairs
from maskrcnn.coco.sides import Detections, Truths, group_by_image_and_category

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
AREAS: dict[str, tuple[float, float]] = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}
"""px; a truth of another area is ignored, and so is a detection of another area that matches nothing."""


@dataclass(frozen=True)
class Scores:
    """Precision and recall at T IoU thresholds and R recalls, of K categories, in A ranges of areas."""

    precision: NDArray[np.float64]
    """(T, R, K, A) the best precision at this recall or more; 0 beyond the reach, -1 for categories without truths."""
    recall: NDArray[np.float64]
    """(T, K, A, M) at each of the M limits on detections."""
    thresholds: NDArray[np.float64]
    """(T, R, K) the highest score threshold that has this recall, of all areas; filled as `precision` is."""
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
    num_thresholds, num_limits = len(IOU_THRESHOLDS), len(limits)
    precision = np.full((num_thresholds, len(RECALLS), num_categories, len(AREAS)), -1.0)
    recall = np.full((num_thresholds, num_categories, len(AREAS), num_limits), -1.0)
    thresholds = np.full(precision.shape[:3], -1.0)
    matcher = Matcher(_find_pairs(truths, detections, overlaps), detections.ranks, IOU_THRESHOLDS)
    for area, (low, high) in enumerate(AREAS.values()):
        is_ignored = truths.is_crowd | (truths.areas < low) | (truths.areas > high)
        matches = matcher.match(is_ignored, truths.is_crowd)
        num_truths = np.bincount(truths.categories[~is_ignored], minlength=num_categories)
        has_truths = num_truths > 0
        precision[:, :, has_truths, area] = 0
        recall[:, has_truths, area] = 0
        if area == 0:
            matches_at_50 = matches[0].copy()
            thresholds[:, :, has_truths] = 0
        is_outside = (areas < low) | (areas > high)
        for index, row in enumerate(matches):
            hits, places = find_hits(row, is_ignored, is_outside, detections.categories)
            categories = detections.categories[hits]
            for limit, most in enumerate(limits):
                counts = np.bincount(categories[detections.ranks[hits] < most], minlength=num_categories)
                recall[index, has_truths, area, limit] = counts[has_truths] / num_truths[has_truths]
            begins = np.searchsorted(categories, np.arange(num_categories + 1))
            for category in np.unique(categories).tolist():
                chosen = slice(begins[category], begins[category + 1])
                reached, at, envelope = _interpolate(places[chosen], int(num_truths[category]))
                precision[index, reached, category, area] = envelope
                if area == 0:
                    thresholds[index, reached, category] = detections.scores[hits[chosen][at]]
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


def _interpolate(
    places: NDArray[np.int64], num_truths: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float64]]:
    """Give which recalls one category reaches, by which of its right detections, and the best precision from there."""
    num_right = np.arange(1, len(places) + 1)
    envelope = np.maximum.accumulate((num_right / (places + np.spacing(1)))[::-1])[::-1]
    at = np.searchsorted(num_right / num_truths, RECALLS, side="left")
    is_reached = at < len(places)
    return is_reached, at[is_reached], envelope[at[is_reached]]
