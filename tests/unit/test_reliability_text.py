"""docs/RELIABILITY.md says what the fault tests last saw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults import figures


def test_the_text_has_the_recorded_figures_and_explains_each() -> None:
    text = figures.DOCUMENT.read_text()
    table = figures.build_table()
    assert figures.put_table(text, table) == text, "run python -m tests.faults.figures"
    explained = text.split(figures.BEGIN)[0]
    for path in figures.RESULTS.rglob("*.json"):
        assert f"`{path.stem}`" in explained, path.stem


def test_figures_become_a_row_with_both_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    monkeypatch.setattr(figures, "_machine", lambda: "2 cores")
    figures.record("kills", kills={"driver": 1200, "raylet": 2}, scans_per_s=41.5)
    seen = json.loads(next(tmp_path.rglob("kills.json")).read_text())
    assert seen["figures"]["kills"]["driver"] == 1200
    form = next(tmp_path.iterdir()).name
    (row,) = figures.build_table(tmp_path).splitlines()[2:]
    _, name, *cells, _ = row.split("|")
    assert name == " `kills` "
    expected = f" kills driver 1,200, raylet 2; scans per s 41.5 ({seen['date']}, 2 cores) "
    assert cells == [expected if form == one else " not run yet " for one in figures.FORMS]


def test_the_table_goes_between_its_marks() -> None:
    text = f"before {figures.BEGIN}\nold\n{figures.END} after"
    assert figures.put_table(text, "new") == f"before {figures.BEGIN}\nnew\n{figures.END} after"
