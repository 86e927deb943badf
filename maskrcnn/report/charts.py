"""Charts: one figure as SVG that follows a page's light or dark, and as PNG for a README or a chat.

A figure is drawn in the colours of the light theme; in the SVG each becomes the style sheet's variable.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from maskrcnn.printable import printable

INK, FAINT, LINE, PAPER = "#1b1f24", "#5b6470", "#d7dce2", "#fefefe"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7a5195", "#8c564b")
"""Told apart by people of any colour vision. Source: after Okabe and Ito, "Color Universal Design" (2008)."""
_VARIABLES = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    LINE: "var(--line)",
    PAPER: "var(--panel)",
    **{color: f"var(--series-{place})" for place, color in enumerate(SERIES)},
}
_STYLES = ("-", "--", "-.", ":")
_LABEL_CHARS = 24
_PNG_DPI = 160
_SETTINGS: dict[Any, Any] = {
    "font.size": 9.5,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.fontsize": 8.5,
}


@dataclass(frozen=True)
class Chart:
    """A chart in both forms."""

    name: str
    """Of its file, without the ending."""
    title: str
    note: str
    """What to know when reading it; may be empty."""
    svg: Markup
    png: bytes


@dataclass(frozen=True)
class Line:
    """A line of a chart, or points."""

    label: str
    x: Sequence[float] | NDArray[np.float64]
    y: Sequence[float] | NDArray[np.float64]
    is_marked: bool = False
    """Each point gets a dot."""


def draw(
    name: str,
    title: str,
    paint: Callable[[Axes], None],
    *,
    note: str = "",
    height_in: float = 2.7,
    width_in: float = 4.6,
) -> Chart:
    """Draw a chart.

    Args:
        name: of its file, without the ending; lower case.
        title: what it shows; also its description for those who do not see it.
        paint: draws into the axes.
        note: what to know when reading it.
        height_in, width_in: of the figure, inches.
    """
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
        # Scripts that the font lacks: a browser has them, and in the PNG they are boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="none")
        paint(figure.add_subplot())
        svg, png = io.StringIO(), io.BytesIO()
        unsaid = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_figure(svg, format="svg", metadata=unsaid)
        figure.set_layout_engine("none")  # what was laid out stays so
        figure.set_facecolor("white")
        FigureCanvasAgg(figure).print_figure(png, format="png", dpi=_PNG_DPI, metadata={"Software": None})
    return Chart(name, title, note, _to_markup(svg.getvalue(), title), png.getvalue())


def paint_columns(
    axes: Axes, edges: Sequence[float], counts: Sequence[int], *, x_label: str, y_label: str, is_log: bool = False
) -> None:
    """Draw a histogram; `edges` has one more than `counts`."""
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=SERIES[0], edgecolor=PAPER, linewidth=0.6)
    if is_log:
        axes.set_xscale("log", base=2)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=edges[-1] > 1))
    axes.set_xlim(edges[0], edges[-1])
    _finish(axes, x_label, y_label, "y")


def paint_bars(
    axes: Axes, labels: Sequence[str], values: Sequence[float], *, x_label: str, is_log: bool = False
) -> None:
    """Draw a bar a label, the first on top, each with its value."""
    places = range(len(labels))
    axes.barh(places, values, 0.72, color=SERIES[0])
    axes.set_yticks(places, [printable(label, _LABEL_CHARS) for label in labels], color=INK)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    for place, value in zip(places, values, strict=True):
        text = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.3g}"
        axes.annotate(text, (value, place), (3, 0), textcoords="offset points", va="center", color=FAINT, fontsize=8.5)
    axes.margins(x=0.14)
    if is_log:
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _finish(axes, x_label, "", "x")


def paint_lines(
    axes: Axes,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    is_log: bool = False,
) -> None:
    """Draw lines, told apart by colour and, beyond the colours, by dashes."""
    for place, line in enumerate(lines):
        style = {"color": SERIES[place % len(SERIES)], "linestyle": _STYLES[place // len(SERIES) % len(_STYLES)]}
        axes.plot(
            line.x,
            line.y,
            linewidth=1.7,
            marker="o" if line.is_marked else "",
            markersize=3.5,
            label=printable(line.label, _LABEL_CHARS),
            **style,  # type: ignore[arg-type]
        )
    if x_limits is not None:
        axes.set_xlim(*x_limits)
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    if is_log:
        axes.set_yscale("log")
    _finish(axes, x_label, y_label, "both")
    if len(lines) > 1:
        # Above the plot, where no curve is: to look for the best place inside takes seconds with long curves.
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(lines), 4), frameon=False)


def paint_matrix(axes: Axes, labels: Sequence[str], matrix: NDArray[np.int64], *, x_label: str, y_label: str) -> None:
    """Draw a square table of counts, each row shaded by its shares."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    names = [printable(label, 14) for label in labels]
    places = np.arange(len(names))
    # Cells of one colour whose opacity is the share: on light paper as on dark.
    for row, column in np.argwhere(matrix > 0).tolist():
        opacity = 0.08 + 0.82 * float(shares[row, column])
        cell = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(cell, 1, 1, color=SERIES[0], alpha=opacity, linewidth=0))
        if len(names) <= 14:
            axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", fontsize=8, color=INK)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, names)
    axes.set_xticks(places[1:] - 0.5, minor=True)
    axes.set_yticks(places[1:] - 0.5, minor=True)
    axes.tick_params(which="both", length=0)
    axes.set_aspect("equal")
    axes.grid(which="minor", linewidth=0.6)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)


def _finish(axes: Axes, x_label: str, y_label: str, grid: str) -> None:
    axes.grid(axis=grid, linewidth=0.6)  # type: ignore[arg-type]
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    for axis in (axes.xaxis, axes.yaxis):
        if not isinstance(axis.get_major_locator(), FixedLocator):
            axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
            axis.set_minor_formatter(NullFormatter())


def _to_markup(document: str, title: str) -> Markup:
    """Take the SVG out of its file, for a page: themed, labelled, in the page's font."""
    svg = document[document.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {view_box[0]} role="img" aria-label="{escape(title)}">'
    svg = head + svg[svg.index(">") + 1 :]
    svg = re.sub(
        r' id="(?:figure|axes|patch|matplotlib\.axis|xtick|ytick|line2d|text|legend|PathCollection)_\d+"', "", svg
    )

    def themed(match: re.Match[str]) -> str:
        style = match[1]
        for color, variable in _VARIABLES.items():
            style = style.replace(color, variable)
        style = re.sub(r"font-family: [^;]*", "font-family: inherit", style)
        style = re.sub(r"font: ([\d.]+px)[^;]*", r"font-size: \1; font-family: inherit", style)
        return f'style="{style}"'

    return Markup(re.sub(r'style="([^"]*)"', themed, svg))
