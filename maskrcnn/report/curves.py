"""The page of a training: its losses, scores, learning rate and speed, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.errors import InputError
from maskrcnn.report.charts import Chart, Line, draw, paint_lines
from maskrcnn.training.metrics import METRICS_NAME, read_metrics

MOST_POINTS = 400
MOST_TIMES_USUAL = 10

Metrics = list[dict[str, Any]]


def load_training(output_uri: str) -> Metrics:
    """Read a training's metrics.

    Raises:
        InputError: there are none.
    """
    lines = [line for line in read_metrics(output_uri) if isinstance(line, dict) and "step" in line]
    if not lines:
        raise InputError("--training", f"holds no {METRICS_NAME}", output_uri, "name the --output of a training")
    return lines


def build_curves(lines: Metrics) -> list[Chart]:
    """Draw what was measured."""
    steps = [line for line in lines if "losses" in line]
    validations = [line for line in lines if "validation" in line]
    charts = []
    if steps:
        at = np.array([line["step"] for line in steps], np.float64)
        total = np.array([line["loss"] for line in steps], np.float64)
        note = f"The mean over {-(-len(steps) // MOST_POINTS)} steps a point." if len(steps) > MOST_POINTS else ""
        paint = partial(paint_lines, lines=[_line("loss", at, total)], x_label="step", y_label="loss", is_log=True)
        charts.append(draw("loss", "Loss", paint, note=note))
        names = list(dict.fromkeys(name for line in steps for name in line["losses"]))
        parts = [
            _line(name.removeprefix("loss_"), at, np.array([line["losses"].get(name, np.nan) for line in steps]))
            for name in names
        ]
        paint = partial(paint_lines, lines=parts, x_label="step", y_label="loss", is_log=True)
        charts.append(draw("losses", "Parts of the loss", paint, note=note))
    if validations:
        charts.append(_draw_scores(validations))
    others = {
        "learning_rate": ("Learning rate", False),
        "grad_norm": ("Gradient norm", True),
        "images_per_s": ("Images/s", True),
    }
    for name, (title, is_log) in others.items():
        found = [(line["step"], line[name]) for line in steps if line.get(name) is not None]
        if found:
            x, y = np.array(found, np.float64).T
            if name == "images_per_s":
                y[y > MOST_TIMES_USUAL * np.median(y)] = np.nan  # a step after a pause, whose images waited for it
            lines_of = [_line(title, x, y)]
            paint = partial(paint_lines, lines=lines_of, x_label="step", y_label=title.lower(), is_log=is_log)
            charts.append(draw(name.replace("_", "-"), title, paint))
    return charts


def _draw_scores(validations: Metrics) -> Chart:
    lines = []
    for kind in ("segm", "bbox"):
        for name in ("AP", "AP50"):
            found = [
                (line["step"], line["validation"][kind][name])
                for line in validations
                if line["validation"].get(kind, {}).get(name, -1) >= 0
            ]
            if found:
                x, y = np.array(found, np.float64).T
                lines.append(Line(f"{kind} {name}", x, y, is_marked=True))
    last = max(1, *(line["step"] for line in validations))
    paint = partial(
        paint_lines, lines=lines, x_label="step", y_label="AP", x_limits=(0, 1.03 * last), y_limits=(0, 1.02)
    )
    return draw("validation", "Scores in validation", paint)


def _line(label: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> Line:
    return Line(label, *thinned(x, y, MOST_POINTS))


def thinned(
    x: NDArray[np.float64], y: NDArray[np.float64], most: int
) -> tuple[Sequence[float] | NDArray[np.float64], Sequence[float] | NDArray[np.float64]]:
    """Take the means of neighbours, so that no more than `most` points are left; NaN counts as nothing."""
    width = -(-len(x) // most)
    if width <= 1:
        return x, y
    begins = np.arange(0, len(x), width)
    is_known = np.isfinite(y)
    sums, counts = np.add.reduceat(np.where(is_known, y, 0), begins), np.add.reduceat(is_known.astype(int), begins)
    lengths = np.diff(np.append(begins, len(x)))
    return np.add.reduceat(x, begins) / lengths, np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
