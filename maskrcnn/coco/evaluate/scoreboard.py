"""The numbers as a table for people, and as JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from maskrcnn.printable import printable

_MOST_CATEGORIES = 20
_NAME_CHARS = 32


def format_metrics(metrics: dict[str, Any], category_names: Mapping[str, str] | None = None) -> str:
    """Lay the numbers out, a line an IoU type; `-` where undefined. What an analysis found comes below.

    Args:
        metrics: as `maskrcnn.coco.evaluate` gives them.
        category_names: by id as a text.
    """
    scores = {name: row for name, row in metrics.items() if name != "dropped_predictions"}
    width = max((len(name) for name in scores), default=0)
    lines: list[str] = []
    for name, row in scores.items():
        columns = [column for column, value in row.items() if isinstance(value, float)]
        if not lines:
            lines.append(" " * width + "".join(f"{column:>7}" for column in columns))
        lines.append(f"{name:{width}}" + "".join(f"{_number(row[column]):>7}" for column in columns))
    analysed = {name: row for name, row in scores.items() if "best_f1" in row}
    if analysed:
        name = "segm" if "segm" in analysed else next(iter(analysed))
        lines += ["", *_category_lines(name, analysed[name], category_names or {}), ""]
    for name, row in analysed.items():
        lines += [_tell_threshold(name, row["best_f1"]["overall"]), _tell_errors(row["errors"])]
    if dropped := metrics.get("dropped_predictions"):
        reasons = [f"{number:,} of an {reason.replace('_', ' ')}" for reason, number in dropped.items() if number]
        lines.append(f"dropped predictions: {', '.join(reasons)}")
    return "\n".join(lines)


def to_json(metrics: dict[str, Any]) -> bytes:
    """Give the numbers as JSON: indented, with each list of numbers on one line."""
    text = json.dumps(metrics, indent=2)
    return re.sub(r"\[[^\[\]{}]*\]", lambda found: "[" + " ".join(found[0][1:-1].split()) + "]", text).encode()


def _category_lines(iou_type: str, row: dict[str, Any], names: Mapping[str, str]) -> list[str]:
    best = row["best_f1"]["per_category"]
    by_frequency = sorted(best, key=lambda category_id: -best[category_id]["num_truths"])
    shown = by_frequency[:_MOST_CATEGORIES]
    labels = {category_id: printable(names.get(category_id, category_id), _NAME_CHARS) for category_id in shown}
    title = f"{iou_type} by category"
    width = max([len(title), *map(len, labels.values())])
    lines = [f"{title:{width}}{'truths':>9}{'AP':>8}{'best F1':>10}{'precision':>11}{'recall':>8}{'at score':>10}"]
    for category_id in shown:
        one = best[category_id]
        lines.append(
            f"{labels[category_id]:{width}}{one['num_truths']:>9,}{_number(row['per_category_AP'][category_id]):>8}"
            f"{_number(one['f1']):>10}{_number(one['precision']):>11}{_number(one['recall']):>8}"
            f"{_threshold(one):>10}"
        )
    if num_more := len(by_frequency) - len(shown):
        lines.append(f"and {num_more:,} less frequent ones in --output")
    return lines


def _tell_threshold(iou_type: str, best: dict[str, Any]) -> str:
    if best["f1"] <= 0:
        return f"no score threshold gives an F1 above 0, at IoU 0.5 of {iou_type}"
    sentence = (
        f"score threshold {_threshold(best)} gives the best F1, {best['f1']:.3f} (precision "
        f"{best['precision']:.3f}, recall {best['recall']:.3f}), at IoU 0.5 of {iou_type}"
    )
    if best["score_threshold"] > best["lowest_score"]:
        return sentence
    return f"{sentence};\n  no prediction has a lower score: predict with a lower threshold to see whether F1 rises"


def _tell_errors(errors: dict[str, Any]) -> str:
    total = sum(errors["counts"].values())
    shares = ", ".join(f"{kind} {share:.0%}" for kind, share in errors["shares"].items())
    return f"  {total:,} errors there: {shares}" if total else "  no errors there"


def _threshold(best: dict[str, Any]) -> str:
    """Round down, so that what is kept at the true threshold is kept at this one too."""
    return f"{math.floor(best['score_threshold'] * 1000) / 1000:.3f}" if best["f1"] > 0 else "-"


def _number(value: float) -> str:
    return f"{value:.3f}" if value >= 0 else "-"
