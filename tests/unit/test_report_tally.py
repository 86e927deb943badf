"""The numbers of the overview: the same however a table is cut, and right at the borders of bins."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.labelling.current import CurrentRows
from maskrcnn.progress import clock
from maskrcnn.report.job import write_report
from maskrcnn.report.overview import build_cards, build_charts
from maskrcnn.report.runs import load_runs, parse_run
from maskrcnn.report.sample import choose_images
from maskrcnn.report.settings import ReportConfig
from maskrcnn.report.tally import COLUMNS, Tally, even_bins
from tests.labelled_parts import FAILED, blob, labelled, write_part

IMAGES = {
    "1.jpg": labelled([(2, 0.9, blob(1)), (5, 0.4, blob(2))]),
    "2.jpg": labelled([]),
    "3.jpg": labelled([(2, 0.5, blob(3))]),
    "4.jpg": FAILED,
}


def tally_of(folder: str, batch_size: int = 1024) -> Tally:
    tally = Tally()
    for _, rows in CurrentRows(folder).batches(COLUMNS, batch_size=batch_size):
        tally.add(rows)
    return tally


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_a_table_is_counted_whatever_is_read_at_once(tmp_path: Path, batch_size: int) -> None:
    tally = tally_of(write_part(tmp_path, IMAGES), batch_size)
    assert (tally.num_images, tally.num_labelled, tally.num_failed, tally.num_detections) == (4, 3, 1, 3)
    assert tally.num_by_image == {2: 1, 0: 1, 1: 1}
    can = tally.categories[2]
    assert (can.name, can.num_detections) == ("can", 2)
    assert can.mean_score == pytest.approx(0.7)
    assert can.mean_side_px == pytest.approx(np.mean([blob(1).sum() ** 0.5, blob(3).sum() ** 0.5]))
    assert tally.failures["corrupt"].examples == [("s3://shop/photos/4.jpg", "cut off")]
    assert tally.lowest_threshold == pytest.approx(0.3)
    assert np.flatnonzero(tally.score_counts).tolist() == [20, 25, 45]
    assert sum(tally.side_counts.values()) == 3
    assert [card.number for card in build_cards(tally, [])] == ["4", "3", "1", "3", "1.0", "2", "0.3"]
    assert [chart.name for chart in build_charts(tally, [])] == ["categories", "scores", "sizes", "counts"]


def test_without_masks_sizes_are_those_of_boxes(tmp_path: Path) -> None:
    images = {"1.jpg": labelled([(2, 0.9, blob(1))], with_masks=False)}
    tally = tally_of(write_part(tmp_path, images, with_masks=False))
    box = CurrentRows(str(tmp_path)).read(["instances"])["instances"][0].as_py()[0]
    assert tally.categories[2].mean_side_px == pytest.approx((box["w"] * box["h"]) ** 0.5, rel=1e-6)


def test_a_table_of_failures_alone_has_numbers_and_no_charts(tmp_path: Path) -> None:
    tally = tally_of(write_part(tmp_path, {"1.jpg": FAILED}))
    assert (tally.num_labelled, tally.num_failed) == (0, 1)
    assert build_charts(tally, []) == []


@given(st.lists(st.integers(0, 3000), min_size=1), st.integers(1, 50))
def test_bins_hold_everything_and_are_no_more_than_wanted(numbers: list[int], most: int) -> None:
    firsts, counts = even_bins(Counter(numbers), most)
    assert len(firsts) == len(counts) <= most
    assert sum(counts) == len(numbers)
    edges = [*firsts, firsts[-1] + (firsts[1] if len(firsts) > 1 else max(numbers) + 1)]
    assert counts == np.histogram(numbers, edges)[0].tolist()


def test_runs_come_newest_first_with_what_they_cost(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    stages = {"read": 100.0, "decode": None, "predict": 2.0, "put": 900.0}
    record = {"run_id": "r", "started_at": "2026-11-26T09:47:44.1", "seconds": 1800, "images_per_s": 0.5, "cost": None}
    record |= {"images": {"labelled": 900, "failed": 3}, "stage_images_per_s": stages}
    for name, changes in {"1": {"cost": 0.25}, "2": {}, "3": {"images": {"labelled": 0, "failed": 0}}}.items():
        (tmp_path / "runs" / f"{name}.json").write_text(json.dumps(record | changes | {"run_id": name}))
    (tmp_path / "runs" / "4.json").write_text("[1")
    runs, num_records = load_runs(str(tmp_path), None)
    assert ([run.run_id for run in runs], num_records) == (["2", "1"], 4)
    assert [run.cost for run in runs] == [None, 0.25]
    assert runs[0].stages == {"read": 100.0, "predict": 2.0, "put": 900.0}
    assert runs[0].started_at == "2026-11-26 09:47"
    assert [run.cost for run in load_runs(str(tmp_path), 4.0)[0]] == [2.0, 2.0]
    assert parse_run(b'{"seconds": 1}', None) is None
    numbers = {card.text: card.number for card in build_cards(Tally(), load_runs(str(tmp_path), 4.0)[0])}
    assert (numbers["cost"], numbers["cost of a million images"]) == ("4.00", "2,222.22")
    assert [chart.name for chart in build_charts(Tally(), runs)] == ["stages"]


def test_time_and_cost_are_of_every_run_and_the_newest_hundred_are_listed(tmp_path: Path) -> None:
    table = write_part(tmp_path / "labels", {"1.jpg": FAILED})
    (tmp_path / "labels" / "runs").mkdir()
    record = {"started_at": "2026-11-26", "seconds": 3600, "images_per_s": 0.3, "cost": 2.0, "stage_images_per_s": {}}
    for number in range(103):
        images = {"labelled": 1000 if number else 0, "failed": 0}
        path = tmp_path / "labels" / "runs" / f"{number:03d}.json"
        path.write_text(json.dumps(record | {"run_id": f"run-{number:03d}", "images": images}))
    write_report(ReportConfig(table, str(tmp_path / "site")))
    page = (tmp_path / "site" / "index.html").read_text()
    assert (page.count("<tr><td>run-"), "run-103" in page, "run-002<" in page) == (100, False, False)
    for card in (
        f"<b>{clock(102 * 3600)}</b><span>in 102 runs",
        "<b>204.00</b><span>cost<",
        "<b>2,000.00</b><span>cost of a",
    ):
        assert card in page
    assert "The newest 100 of the 102 that labelled something, of 103 runs." in page


def test_a_gallery_takes_all_where_it_can() -> None:
    assert choose_images(np.array([True, False]), np.zeros(2, bool), 2, 0).all()


def test_annotated_images_come_first_then_a_share_of_failures() -> None:
    is_failed = np.arange(1000) % 2 == 0
    is_judged = np.arange(1000) >= 990
    chosen = choose_images(is_failed, is_judged, 100, seed=1)
    assert chosen.sum() == 100
    assert chosen[990:].all()
    assert (chosen & is_failed).sum() == 10 + 5  # a tenth, and those among the annotated
    assert (chosen == choose_images(is_failed, is_judged, 100, seed=1)).all()
    assert (chosen != choose_images(is_failed, is_judged, 100, seed=2)).any()


def test_failures_fill_what_is_left() -> None:
    is_failed = np.arange(50) < 45
    assert choose_images(is_failed, np.zeros(50, bool), 20, 0)[45:].all()
