"""Charts: well-formed, themed, reproducible, and safe whatever a category is called."""

from __future__ import annotations

import re
from functools import partial
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from maskrcnn.report.charts import Chart, Line, draw, paint_bars, paint_columns, paint_lines, paint_matrix

HOSTILE = ["<script>alert(1)</script>", "\"'&amp;</svg>", "$\\frac{1}", "a\u2028b\x07", "крышка", "漢字", ""]

CHARTS = {
    "bars": partial(paint_bars, labels=HOSTILE, values=[3, 1200, 0, 7, 5, 4, 1], x_label="detections"),
    "logarithmic": partial(
        paint_bars, labels=["read", "put"], values=[0.25, 48_000.0], x_label="images/s", is_log=True
    ),
    "columns": partial(paint_columns, edges=[0, 1, 2, 3], counts=[5, 0, 2], x_label="x", y_label="y"),
    "octaves": partial(paint_columns, edges=[8, 16, 32], counts=[5, 2], x_label="px", y_label="y", is_log=True),
    "lines": partial(
        paint_lines,
        lines=[Line(name, [0, 1, 2], [0.5, np.nan, 1]) for name in HOSTILE],
        x_label="step",
        y_label="loss",
        is_log=True,
    ),
    "matrix": partial(
        paint_matrix, labels=HOSTILE[:3], matrix=np.array([[3, 1, 0], [0, 9, 1], [0, 0, 0]]), x_label="x", y_label="y"
    ),
}


@pytest.fixture(params=CHARTS)
def chart(request: pytest.FixtureRequest) -> Chart:
    return draw(request.param, "Title <b>", CHARTS[request.param])


def test_a_chart_is_well_formed_named_and_of_the_themes_colours(chart: Chart) -> None:
    root = ElementTree.fromstring(str(chart.svg).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert root.attrib["aria-label"] == "Title <b>"
    tags = {each.tag.rsplit("}", 1)[-1] for each in root.iter()}
    assert tags <= {"svg", "defs", "g", "path", "use", "text", "tspan", "clipPath", "rect"}
    assert "var(--" in chart.svg
    styles = re.findall(r'style="([^"]*)"', chart.svg)
    assert not [style for style in styles if re.search(r"#(?!0{6})[0-9a-f]{6}", style)]
    assert not re.search("mathdefault|DejaVu", chart.svg)


def test_a_chart_has_the_same_bytes_every_time(chart: Chart) -> None:
    again = draw(chart.name, chart.title, CHARTS[chart.name])
    assert (again.svg, again.png) == (chart.svg, chart.png)
    assert chart.png.startswith(b"\x89PNG")


def test_labels_are_text_and_nothing_else() -> None:
    svg = draw("bars", "", CHARTS["bars"]).svg
    assert "<script" not in svg
    assert "&lt;script&gt;alert(1)" in svg
    assert "$\\frac{1}" in svg
    assert "a?b?" in svg


def test_parts_that_are_pointed_at_have_names_of_their_own() -> None:
    charts = [draw(name, "", CHARTS["columns"]) for name in ("one", "two")]
    ids = [re.findall(r' id="([^"]+)"', chart.svg) for chart in charts]
    assert ids[0]
    assert not set(ids[0]) & set(ids[1])
    for chart, own in zip(charts, ids, strict=True):
        pointed = set(re.findall(r'href="#([^"]+)"', chart.svg)) | set(re.findall(r"url\(#([^)]+)\)", chart.svg))
        assert pointed == set(own)


@pytest.mark.parametrize("values", [[48_000.0, 4.0], [4.0], [0.02, 0.02]])
def test_the_lowest_bar_is_seen_beside_one_that_is_thousands_of_times_as_high(values: list[float]) -> None:
    axes = Figure().add_subplot()
    paint_bars(axes, [str(value) for value in values], values, x_label="images/s", is_log=True)
    left, right = np.log(axes.get_xlim())
    assert (np.log(min(values)) - left) / (right - left) > 0.05
