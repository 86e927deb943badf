"""The page of an evaluation: COCO's numbers, curves, the best score thresholds, confusions and kinds of errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from maskrcnn import storage
from maskrcnn.errors import InputError, StorageError
from maskrcnn.report.charts import Chart, Line, draw, paint_bars, paint_lines, paint_matrix

IOU_TYPES = ("segm", "bbox", "boundary")
MOST_LINES = 8
MOST_MATRIX = 20

Metrics = dict[str, Any]


@dataclass(frozen=True)
class CategoryScore:
    """A line of the table by category; None where undefined."""

    name: str
    num_truths: int
    ap: float | None
    f1: float | None
    precision: float | None
    recall: float | None
    score_threshold: float | None


@dataclass(frozen=True)
class Scores:
    """What the page shows of one IoU type."""

    iou_type: str
    numbers: dict[str, float | None]
    """COCO's, by name."""
    best: CategoryScore | None
    """The best threshold for all categories together."""
    categories: list[CategoryScore]
    """The most frequent first."""
    charts: list[Chart]


def load_metrics(uri: str) -> Metrics:
    """Read the metrics.json of an evaluation.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        metrics = json.loads(storage.read_bytes(uri))
    except StorageError as error:
        raise InputError("--metrics", f"cannot be read: {error.reason}", error.uri) from error
    except ValueError as error:
        raise InputError("--metrics", f"must be JSON: {error}", uri) from error
    if not isinstance(metrics, dict) or not any(isinstance(metrics.get(kind), dict) for kind in IOU_TYPES):
        raise InputError("--metrics", "must be the --output of an evaluation", uri)
    return metrics


def build_scores(metrics: Metrics, names: Mapping[str, str], place: str) -> list[Scores]:
    """Build what the page shows.

    Args:
        metrics: as `load_metrics` gives them.
        names: of categories, by id as a text.
        place: the file, for messages.

    Raises:
        InputError: the file is not what an evaluation writes.
    """
    try:
        return [_build_one(kind, metrics[kind], names) for kind in IOU_TYPES if kind in metrics]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        rule = f"must be the --output of an evaluation, and lacks something: {type(error).__name__}: {error}"
        raise InputError("--metrics", rule, place) from error


def _build_one(kind: str, row: dict[str, Any], names: Mapping[str, str]) -> Scores:
    numbers = {name: _defined(value) for name, value in row.items() if isinstance(value, int | float)}
    if "best_f1" not in row:
        categories = [
            CategoryScore(names.get(category_id, category_id), 0, _defined(ap), None, None, None, None)
            for category_id, ap in row["per_category_AP"].items()
        ]
        return Scores(kind, numbers, None, categories, [])
    best = row["best_f1"]
    by_frequency = sorted(best["per_category"], key=lambda one: -best["per_category"][one]["num_truths"])
    categories = [
        _category(names.get(one, one), best["per_category"][one], row["per_category_AP"].get(one, -1))
        for one in by_frequency
    ]
    overall = _category("all together", best["overall"], row["AP"])
    return Scores(kind, numbers, overall, categories, _draw(kind, row, by_frequency, names))


def _category(name: str, best: dict[str, Any], ap: float) -> CategoryScore:
    values = (best[field] for field in ("f1", "precision", "recall", "score_threshold"))
    return CategoryScore(name, int(best["num_truths"]), _defined(ap), *map(_defined, values))


def _defined(value: float) -> float | None:
    return None if value < 0 else float(value)


def _draw(kind: str, row: dict[str, Any], by_frequency: list[str], names: Mapping[str, str]) -> list[Chart]:
    curves = row["curves"]
    shown = [one for one in by_frequency if one in curves["per_category"]][:MOST_LINES]
    charts = []
    if curves["overall"]:
        at = {"precision_50": "at IoU 0.5", "precision_75": "at IoU 0.75", "precision": "mean of IoU 0.5 to 0.95"}
        lines = [Line(label, curves["recall"], curves["overall"][name]) for name, label in at.items()]
        charts.append(_draw_recall(f"{kind}-precision-recall", "Precision by recall, mean over categories", lines))
    if len(shown) > 1:
        lines = [
            Line(names.get(one, one), curves["recall"], curves["per_category"][one]["precision_50"]) for one in shown
        ]
        charts.append(_draw_recall(f"{kind}-precision-recall-by-category", "Precision by recall at IoU 0.5", lines))
    if shown:
        lines = [_threshold_line(names.get(one, one), curves["per_category"][one], curves["recall"]) for one in shown]
        paint = partial(paint_lines, lines=lines, x_label="score threshold", y_label="F1", y_limits=(0, 1.02))
        note = "What F1 each score threshold gives, at IoU 0.5; the table below has the best ones."
        charts.append(draw(f"{kind}-thresholds", "F1 by score threshold", paint, note=note))
    errors = row["errors"]["counts"]
    paint = partial(paint_bars, labels=list(errors), values=list(errors.values()), x_label="errors")
    note = f"At the score threshold {row['errors']['score_threshold']:.2f}, the best one for all categories."
    charts.append(draw(f"{kind}-errors", "Kinds of errors", paint, note=note, height_in=2.2))
    charts.append(_draw_confusion(kind, row["confusion"], names))
    return charts


def _draw_recall(name: str, title: str, lines: list[Line]) -> Chart:
    paint = partial(paint_lines, lines=lines, x_label="recall", y_label="precision", y_limits=(0, 1.02))
    return draw(name, title, paint)


def _threshold_line(name: str, curve: dict[str, Any], recall: list[float]) -> Line:
    """Give F1 at each threshold that reaches another recall."""
    threshold, precision, reached = (
        np.array(values, np.float64) for values in (curve["score_threshold_50"], curve["precision_50"], recall)
    )
    is_reached = (precision > 0) & (reached > 0)
    threshold, precision, reached = threshold[is_reached], precision[is_reached], reached[is_reached]
    f1 = 2 * precision * reached / np.maximum(precision + reached, 1e-9)
    return Line(name, threshold, f1, is_marked=len(threshold) < 8)


def _draw_confusion(kind: str, confusion: dict[str, Any], names: Mapping[str, str]) -> Chart:
    labels = [names.get(str(one), str(one)) for one in confusion["categories"]]
    matrix = np.array(confusion["matrix"], np.int64)
    note = f"Truth in rows, detections in columns, at the score threshold {confusion['score_threshold']:.2f}."
    if len(labels) > MOST_MATRIX:
        num_others = len(labels) - 1 - (MOST_MATRIX - 2)
        labels, matrix = gather_rare(labels, matrix, MOST_MATRIX)
        note += f" The {num_others} rarest categories are one."
    side = min(7.5, 2.4 + 0.34 * len(labels))
    paint = partial(paint_matrix, labels=labels, matrix=matrix, x_label="taken for", y_label="truth")
    return draw(f"{kind}-confusion", "Confusion of categories", paint, note=note, height_in=side, width_in=side)


def gather_rare(
    labels: list[str], matrix: np.ndarray[Any, np.dtype[np.int64]], most: int
) -> tuple[list[str], np.ndarray[Any, np.dtype[np.int64]]]:
    """Make one category of the rarest, so that no more than `most` are left.

    Args:
        labels: of the categories, background last.
        matrix: (K, K) counts, truth in rows.
        most: more than 2.

    Returns:
        The labels and the matrix: the frequent ones, the others, background.
    """
    frequency = matrix[:-1].sum(axis=1)
    kept = np.sort(np.argsort(-frequency, kind="stable")[: most - 2])
    groups = np.full(len(labels), most - 2)
    groups[kept], groups[-1] = np.arange(most - 2), most - 1
    gathered = np.zeros((most, most), np.int64)
    np.add.at(gathered, (groups[:, None], groups[None, :]), matrix)
    return [*(labels[place] for place in kept), "others", labels[-1]], gathered
