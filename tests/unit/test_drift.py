"""Which groups of a night are told of: few false alarms, and none that falls out of sight."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.counting.counts import Counts
from maskrcnn.counting.drift import Drift, find_drift
from maskrcnn.counting.page import CountsReport, count_nights, to_json
from maskrcnn.counting.trends import DriftRule
from maskrcnn.counting.words import describe_counts
from maskrcnn.labelling.plan import NO_DATE
from tests.counted import CAN, NIGHTS, Stock, image, write_nights
from tests.labelled_parts import write_part

STORE = r"/(?P<store>[^/]+)/[^/]+$"
LAST = NIGHTS[-1]
Night = Mapping[str, tuple[int, int]]
"""Labelled and failed images of a store."""


def judge(*nights: Night, rule: DriftRule | None = None) -> Drift:
    """Judge the last of some nights, in which every image holds three cans."""
    cells = [(night, (store,)) for night, stores in zip(NIGHTS, nights, strict=False) for store in stores]
    images = np.array([numbers for stores in nights for numbers in stores.values()], np.int64)
    sums = np.zeros((len(cells), 1, 3))
    sums[:, 0, 0] = 3 * images[:, 0]
    no_images = np.zeros(0, np.int32)
    counts = Counts(("store",), cells, images[:, 0], images[:, 1], {CAN: "can"}, sums, no_images, no_images)
    return find_drift(counts, rule or DriftRule())


def draw_night(random: np.random.Generator, num_stores: int, num_images: int) -> Counts:
    """Draw eight nights of things that come independently: forty categories, from rare ones to three an image."""
    rates = np.geomspace(1e-3, 3, 40)
    cells = [(night, (str(store),)) for night in NIGHTS for store in range(num_stores)]
    sums = np.zeros((len(cells), len(rates), 3))
    sums[..., 0] = random.poisson(rates * num_images, size=(len(cells), len(rates)))
    images, none, no_images = np.full(len(cells), num_images), np.zeros(len(cells), np.int64), np.zeros(0, np.int32)
    names = {number: str(number) for number in range(len(rates))}
    return Counts(("store",), cells, images, none, names, sums, no_images, no_images)


@pytest.mark.parametrize("num_images", [50, 200])
def test_nights_that_differ_by_chance_alone_alarm_nobody(num_images: int) -> None:
    random = np.random.default_rng(0)
    drifts = [find_drift(draw_night(random, 20, num_images), DriftRule()) for _ in range(20)]
    assert {drift.num_judged for drift in drifts} == {20 * 41}
    assert sum(bool(drift.drifting) for drift in drifts) <= 1


def test_a_category_that_is_sold_out_in_one_of_many_stores_is_found() -> None:
    counts = draw_night(np.random.default_rng(0), 20, 200)
    place = counts.cells.index((LAST, ("7",)))
    for category in (25, 39):
        counts.sums[place, category, 0] = 0
    found = find_drift(counts, DriftRule()).drifting
    assert {(one.group, one.category) for one in found} >= {(("7",), "25"), (("7",), "39")}
    assert {one.group for one in found} == {("7",)}


def test_the_more_are_judged_the_further_off_drift_begins() -> None:
    few = find_drift(draw_night(np.random.default_rng(0), 1, 50), DriftRule())
    many = find_drift(draw_night(np.random.default_rng(0), 20, 50), DriftRule())
    assert 3.5 < few.min_z < many.min_z < 5
    assert judge({"a": (9, 0)}, {"a": (9, 0)}).min_z == 3.5


def test_counts_that_always_vary_much_have_more_room() -> None:
    def drifting(*rates: int) -> bool:
        cells = [(night, ()) for night in NIGHTS]
        sums = np.array([[[rate, 0, 0]] for rate in rates], np.float64)
        images, none, no_images = np.full(8, 10), np.zeros(8, np.int64), np.zeros(0, np.int32)
        counts = Counts((), cells, images, none, {CAN: "can"}, sums, no_images, no_images)
        return bool(find_drift(counts, DriftRule()).drifting)

    assert drifting(100, 101, 99, 100, 102, 98, 100, 160)
    assert not drifting(100, 160, 60, 140, 70, 130, 100, 160)
    assert drifting(100, 101, 99, 0, 102, 98, 100, 160), "one bad night before changes nothing"
    assert drifting(100, 101, 99, 900, 102, 98, 100, 160)


@pytest.mark.parametrize("last", [(4, 96), (4, 0), (40, 60)])
def test_a_store_of_which_little_is_labelled_does_not_pass(last: tuple[int, int]) -> None:
    usual: Night = {"a": (20, 0), "b": (100, 0)}
    drift = judge(*[usual] * 7, {"a": (20, 0), "b": last})
    assert [(one.group, one.num_images, one.num_failed, one.usual_images) for one in drift.sparse_groups] == [
        (("b",), *last, 100)
    ]
    assert drift.unjudged_groups == ([("b",)] if last[0] < 5 else [])
    assert drift.dark_groups == []


def test_a_small_store_that_is_short_of_a_photo_is_only_not_judged() -> None:
    usual: Night = {"a": (20, 0), "b": (5, 0), "c": (2, 0)}
    drift = judge(*[usual] * 7, {"a": (20, 0), "b": (4, 1), "c": (1, 1), "d": (0, 9)})
    assert [one.group for one in drift.sparse_groups] == [("d",)]
    assert drift.unjudged_groups == [("b",), ("c",), ("d",)]


def test_a_store_that_closes_on_sundays_is_not_gone_on_sunday() -> None:
    open_, closed = {"a": (20, 0), "b": (20, 0)}, {"a": (20, 0)}
    sunday = judge(closed, *[open_] * 6, closed)
    assert (sunday.vanished_groups, sunday.dark_groups, sunday.unjudged_groups) == ([], [], [("b",)])
    assert judge(*[open_] * 7, closed).vanished_groups == [("b",)]
    assert judge(*[closed] * 4, *[open_] * 3, closed).vanished_groups == [], "it was there on few nights"
    assert judge(*[open_] * 4, *[closed] * 3, closed).vanished_groups == [("b",)]


def report(table: Path, **options: str) -> CountsReport:
    return count_nights(str(table), (STORE,), **options)


def test_what_was_not_judged_and_what_is_sparse_is_told(tmp_path: Path) -> None:
    def stock(night: str, store: str, number: int) -> Stock | None:
        return None if night == LAST and store == "south" and number > 0 else {CAN: 3}

    found = report(Path(write_nights(tmp_path / "out", stock)))
    assert found.has_drift
    said, told = to_json(found), describe_counts(found)
    assert (said["alert"]["num_sparse_groups"], said["alert"]["num_unjudged_groups"]) == (1, 1)
    assert said["sparse_groups"] == [
        {"group": {"store": "south"}, "num_images": 1, "num_failed": 5, "usual_images": 6.0}
    ]
    assert said["unjudged_groups"] == [{"store": "south"}]
    assert "sparse: south: 1 images labelled, 5 failed, usually 6 labelled" in told
    assert "not judged, too few images or nights before: 1 of 2 groups: south" in told


def test_a_date_in_the_future_is_not_the_night_for_ever(tmp_path: Path) -> None:
    write_nights(tmp_path / "out", lambda night, *_: {CAN: 0 if night == LAST else 3})
    write_part(tmp_path / "out", {"north/1.jpg": image({CAN: 3})}, plan=99, date="2999-01-01")
    found = report(tmp_path / "out")
    assert (found.drift.night, found.drift.future_nights, found.has_drift) == (LAST, ("2999-01-01",), True)
    assert "left out, in the future: 2999-01-01" in describe_counts(found)
    assert to_json(found)["future_nights"] == ["2999-01-01"]
    assert report(tmp_path / "out", night="2999-01-01").drift.night == "2999-01-01"


def test_tomorrow_has_begun_somewhere(tmp_path: Path) -> None:
    today: date = datetime.now(UTC).date()
    nights = [(today + timedelta(days=days)).isoformat() for days in (0, 1, 3)]
    write_nights(tmp_path / "out", lambda *_: {CAN: 3}, nights=nights)
    drift = report(tmp_path / "out").drift
    assert (drift.nights_before, drift.night, drift.future_nights) == (tuple(nights[:1]), nights[1], tuple(nights[2:]))


def test_images_without_a_date_are_told(tmp_path: Path) -> None:
    write_nights(tmp_path / "out", lambda *_: {CAN: 3}, nights=NIGHTS[:4])
    write_part(tmp_path / "out", {"north/1.jpg": image({CAN: 3}), "2.jpg": image(None)}, plan=9, date=NO_DATE)
    found = report(tmp_path / "out")
    assert to_json(found)["images"]["undated"] == found.num_undated == 2
    assert "2 images have no date, and are in no night" in describe_counts(found)
