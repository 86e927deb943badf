"""What the matches tell beyond COCO's numbers: curves, the best score thresholds, confusions, and kinds of errors.

All at IoU 0.5 where nothing else is said, among the detections that COCO counts. Crowds are no truths, and what lies in
one is neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.evaluate.matching import Matcher
from maskrcnn.coco.evaluate.overlaps import Overlaps, Pairs
from maskrcnn.coco.evaluate.scoring import RECALLS, Scores
from maskrcnn.coco.evaluate.sides import Detections, Truths

_RIGHT_IOU = 0.5
_NEAR_IOU = 0.1
_IOU_50, _IOU_75 = 0, 5


def analyse(
    truths: Truths, detections: Detections, scores: Scores, overlaps: Overlaps, category_ids: Sequence[int]
) -> dict[str, Any]:
    """Analyse the matches of one IoU type.

    Args:
        truths, detections: the two sides.
        scores: of the two.
        overlaps: between them.
        category_ids: K, ascending.

    Returns:
        curves: as `trace_curves` gives them.
        best_f1: as `find_best_thresholds` gives it.
        confusion: `score_threshold`, the best one overall; `categories`, the ids and "background"; `matrix`, as
            `confuse` gives it.
        errors: `score_threshold`, the same; `counts` and `shares` of each kind as `count_errors` tells them apart;
            shares sum to 1, or are all 0 where there are no errors.
    """
    best = find_best_thresholds(truths, detections, scores, category_ids)
    threshold = best["overall"]["score_threshold"]
    # Without a best one all count; scores may be anything, -1 too.
    is_chosen = (detections.scores >= threshold) | (best["overall"]["f1"] <= 0)
    chosen = np.flatnonzero(is_chosen)
    pairs = overlaps.find(
        chosen, detections.images[chosen], np.arange(len(truths.images)), truths.images, floor=_NEAR_IOU
    )
    matrix = confuse(truths, detections, pairs, chosen, len(category_ids))
    counts = count_errors(truths, detections, pairs, chosen, scores.matches)
    num_errors = max(1, sum(counts.values()))
    return {
        "curves": trace_curves(scores, category_ids),
        "best_f1": best,
        "confusion": {
            "score_threshold": threshold,
            "categories": [*category_ids, "background"],
            "matrix": matrix.tolist(),
        },
        "errors": {
            "score_threshold": threshold,
            "counts": counts,
            "shares": {kind: count / num_errors for kind, count in counts.items()},
        },
    }


def trace_curves(scores: Scores, category_ids: Sequence[int]) -> dict[str, Any]:
    """Give precision by recall, of categories that have truths, and the mean of these.

    Returns:
        `recall`, the 101 recalls that COCO looks at; `overall` and `per_category`, of each `precision` (the mean over
        IoU 0.5 to 0.95), `precision_50` and `precision_75`, and by category `score_threshold_50`, the highest threshold
        that has this recall at IoU 0.5; 0 where it is not reached.
    """

    def trace(precision: NDArray[np.float64]) -> dict[str, list[float]]:
        rows = {"precision": precision.mean(0), "precision_50": precision[_IOU_50], "precision_75": precision[_IOU_75]}
        return {name: _rounded(row) for name, row in rows.items()}

    precision = scores.precision[:, :, :, 0]
    found = np.flatnonzero(precision[0, 0] > -1)
    per_category = {
        str(category_ids[category]): {
            **trace(precision[:, :, category]),
            "score_threshold_50": _rounded(scores.thresholds[_IOU_50, :, category, 0]),
        }
        for category in found.tolist()
    }
    overall = trace(precision[:, :, found].mean(axis=2)) if len(found) else {}
    return {"recall": _rounded(RECALLS), "overall": overall, "per_category": per_category}


def find_best_thresholds(
    truths: Truths, detections: Detections, scores: Scores, category_ids: Sequence[int]
) -> dict[str, Any]:
    """Find the score thresholds with the best F1, where detections with a score of the threshold or more are kept.

    Returns:
        `overall`, all categories together with one threshold, and `per_category`: each `score_threshold` (the highest
        of equally good ones), `precision`, `recall`, `f1` and `num_truths`. Without truths all are -1; where nothing
        is right the threshold and the precision are -1, and F1 and recall 0. `overall` also has the `lowest_score` of
        all, -1 without detections: where it is the best one, lower ones may be better still.
    """
    is_right, counts = _judge(truths, scores.matches)
    num_truths = np.bincount(truths.categories[~truths.is_crowd], minlength=len(category_ids))
    by_score = np.argsort(-detections.scores, kind="stable")
    kept = by_score[counts[by_score]]
    begins = np.searchsorted(detections.categories, np.arange(len(category_ids) + 1))
    per_category = {}
    for index, category_id in enumerate(category_ids):
        own = slice(begins[index], begins[index + 1])
        own_scores, own_right = detections.scores[own][counts[own]], is_right[own][counts[own]]
        per_category[str(category_id)] = _best_f1(own_scores, own_right, int(num_truths[index]))
    overall = _best_f1(detections.scores[kept], is_right[kept], int(num_truths.sum()))
    lowest = float(detections.scores.min()) if len(detections.scores) else -1.0
    return {"overall": {**overall, "lowest_score": lowest}, "per_category": per_category}


def confuse(
    truths: Truths, detections: Detections, pairs: Pairs, chosen: NDArray[np.int64], num_categories: int
) -> NDArray[np.int64]:
    """Count which categories are taken for which: an image's detections find its truths whatever their categories.

    Args:
        truths, detections: the two sides.
        pairs: of the chosen detections and the truths of their images.
        chosen: detections, those above a score threshold.
        num_categories: K.

    Returns:
        (K + 1, K + 1) truths by category in rows, detections by category in columns, background last in both: the last
        row has detections of nothing, the last column truths that nothing has found.
    """
    order = chosen[np.lexsort((chosen, -detections.scores[chosen], detections.images[chosen]))]
    begins = np.flatnonzero(np.diff(detections.images[order], prepend=-1))
    ranks = np.zeros(len(detections.scores), np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(begins, np.diff(np.append(begins, len(order))))
    matcher = Matcher(pairs.where(pairs.ious >= _RIGHT_IOU), ranks, np.array([_RIGHT_IOU]))
    matches = matcher.match(truths.is_crowd, truths.is_crowd)[0]
    is_right, counts = _judge(truths, matches)
    matrix = np.zeros((num_categories + 1, num_categories + 1), np.int64)
    finders = chosen[is_right[chosen]]
    np.add.at(matrix, (truths.categories[matches[finders]], detections.categories[finders]), 1)
    np.add.at(matrix[-1], detections.categories[chosen[counts[chosen] & ~is_right[chosen]]], 1)
    is_lost = ~truths.is_crowd
    is_lost[matches[finders]] = False
    np.add.at(matrix[:, -1], truths.categories[is_lost], 1)
    return matrix


def count_errors(
    truths: Truths,
    detections: Detections,
    pairs: Pairs,
    chosen: NDArray[np.int64],
    matches: NDArray[np.int32],
) -> dict[str, int]:
    """Tell wrong detections apart by the first that holds, and count the truths that none of them was meant for.

    - localisation: the best overlap with a truth of its category is 0.1 to 0.5;
    - classification: it overlaps a truth of another category by 0.5 or more;
    - duplicate: it overlaps a truth of its category by 0.5 or more, which a better one has found;
    - background: all others;
    - missed: truths not found, that are the best overlap of no localisation and no classification error.

    Args:
        truths, detections, pairs, chosen: as in `confuse`.
        matches: (D,) the truth that each detection has found within its category, -1 where none.

    Source: Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors"; what it counts as both
    localisation and classification is background here.
    """
    is_right, counts = _judge(truths, matches)
    is_wrong = np.zeros(len(matches), np.bool_)
    is_wrong[chosen] = counts[chosen] & ~is_right[chosen]
    pairs = pairs.where(is_wrong[pairs.detections] & ~truths.is_crowd[pairs.truths])
    is_same = truths.categories[pairs.truths] == detections.categories[pairs.detections]
    own_iou, own_truth = _best_overlaps(pairs.where(is_same), len(matches))
    other_iou, other_truth = _best_overlaps(pairs.where(~is_same), len(matches))
    is_near = is_wrong & (own_iou >= _NEAR_IOU) & (own_iou < _RIGHT_IOU)
    is_confused = is_wrong & ~is_near & (other_iou >= _RIGHT_IOU)
    is_again = is_wrong & ~is_near & ~is_confused & (own_iou >= _RIGHT_IOU)
    is_missed = ~truths.is_crowd
    is_missed[matches[chosen[is_right[chosen]]]] = False
    is_missed[own_truth[is_near]] = False
    is_missed[other_truth[is_confused]] = False
    errors = {"classification": is_confused, "localisation": is_near, "duplicate": is_again}
    found = {kind: int(each.sum()) for kind, each in errors.items()}
    background = int(is_wrong.sum()) - sum(found.values())
    return {**found, "background": background, "missed": int(is_missed.sum())}


def _judge(truths: Truths, matches: NDArray[np.int32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say which detections are right, and which count at all: not those that have found a crowd."""
    is_matched = matches >= 0
    in_crowd = is_matched.copy()
    in_crowd[is_matched] = truths.is_crowd[matches[is_matched]]
    return is_matched & ~in_crowd, ~in_crowd


def _best_f1(scores: NDArray[np.float64], is_right: NDArray[np.bool_], num_truths: int) -> dict[str, float | int]:
    """Find one threshold; scores descend."""
    names = ("score_threshold", "precision", "recall", "f1")
    if not num_truths:
        return {**dict.fromkeys(names, -1.0), "num_truths": 0}
    if not is_right.any():
        return {**dict(zip(names, (-1.0, -1.0, 0.0, 0.0), strict=True)), "num_truths": num_truths}
    lasts = np.flatnonzero(np.diff(scores, append=-np.inf))  # a threshold cannot part equal scores
    num_right, num_kept = np.cumsum(is_right)[lasts], lasts + 1
    f1 = 2 * num_right / (num_kept + num_truths)
    best = int(f1.argmax())
    precision, recall = num_right[best] / num_kept[best], num_right[best] / num_truths
    values = (scores[lasts[best]], precision, recall, f1[best])
    return {**dict(zip(names, map(float, values), strict=True)), "num_truths": num_truths}


def _best_overlaps(pairs: Pairs, num_detections: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Give each detection's largest IoU, and the truth it is with; 0 and truth 0 where there is none."""
    order = np.argsort(pairs.ious, kind="stable")
    ious, best = np.zeros(num_detections), np.zeros(num_detections, np.int64)
    ious[pairs.detections[order]] = pairs.ious[order]
    best[pairs.detections[order]] = pairs.truths[order]
    return ious, best


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(value, 6) for value in values.tolist()]
