"""The numbers as a table for people."""

from __future__ import annotations

from typing import Any


def format_metrics(metrics: dict[str, Any]) -> str:
    """Lay the numbers out, a line an IoU type; `-` where undefined."""
    scores = {name: row for name, row in metrics.items() if name != "dropped_predictions"}
    width = max((len(name) for name in scores), default=0)
    lines: list[str] = []
    for name, row in scores.items():
        columns = [column for column, value in row.items() if isinstance(value, float)]
        if not lines:
            lines.append(" " * width + "".join(f"{column:>7}" for column in columns))
        lines.append(f"{name:{width}}" + "".join(f"{_number(row[column]):>7}" for column in columns))
    if dropped := metrics.get("dropped_predictions"):
        reasons = [f"{number} of an {reason.replace('_', ' ')}" for reason, number in dropped.items() if number]
        lines.append(f"dropped predictions: {', '.join(reasons)}")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.3f}" if value >= 0 else "-"
