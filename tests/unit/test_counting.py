"""Counts by night, group and category; what has drifted, what is gone, and which shelves are empty."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskrcnn.counting.counts import Counts, count_instances
from maskrcnn.counting.drift import Drift, find_drift
from maskrcnn.counting.page import CountsReport, count_nights, to_json, to_spark, write_counts
from maskrcnn.counting.shelves import find_empty_shelves
from maskrcnn.counting.trends import DriftRule
from maskrcnn.counting.words import describe_counts
from maskrcnn.errors import InputError
from maskrcnn.labelling.current import CurrentRows
from maskrcnn.labelling.groups import parse_grouping
from maskrcnn.report.site import Site
from tests.counted import BAG, BOX, CAN, NIGHTS, Stock, image, write_nights
from tests.labelled_parts import write_part

STORE = r"/(?P<store>[^/]+)/[^/]+$"


def count(table: str, *by: str) -> Counts:
    rows = CurrentRows(table)
    return count_instances(rows, parse_grouping(by, rows))


def drift_of(table: str, *by: str, **rule: Any) -> Drift:
    return find_drift(count(table, *by), DriftRule(**rule))


def report(tmp_path: Path, table: str, *by: str, **options: Any) -> CountsReport:
    found = count_nights(table, by, **options)
    write_counts(Site(str(tmp_path / "site"), "Counts", [("counts.html", "Counts")]), found)
    return found


def test_the_long_table_is_what_sql_counts(tmp_path: Path) -> None:
    def stock(night: str, store: str, number: int) -> Stock | None:
        return None if number == 5 else {CAN: number, BOX: 2 if store == "north" else 0}

    table = write_nights(tmp_path / "out", stock)
    written = count(table, STORE).to_table()
    sql = f"""
        WITH rows AS (SELECT *, regexp_extract(image_uri, '/([^/]+)/[^/]+$', 1) AS store
                      FROM '{table}/table/*/*.parquet'),
             found AS (SELECT date, store, unnest(instances) AS one FROM rows WHERE status = 'ok')
        SELECT strftime(date, '%Y-%m-%d') AS date, store, one.category_id AS category_id, count(*) AS num_instances
        FROM found GROUP BY ALL"""
    expected = {tuple(row[:3]): row[3] for row in duckdb.connect().execute(sql).fetchall()}
    rows = written.to_pylist()
    assert len(rows) == 8 * 2 * 2
    for row in rows:
        assert row["num_instances"] == expected.get((row["date"], row["store"], row["category_id"]), 0)
        assert (row["num_images"], row["num_failed"]) == (5, 1)
        assert row["mean_per_image"] == row["num_instances"] / 5
    boxes_of_south = [row for row in rows if row["store"] == "south" and row["category"] == "box"]
    assert [(row["num_instances"], row["num_images_with"], row["mean_score"]) for row in boxes_of_south] == [
        (0, 0, None)
    ] * 8
    cans = [row for row in rows if row["category"] == "can"]
    assert {(row["num_instances"], row["num_images_with"]) for row in cans} == {(10, 4)}
    assert cans[0]["mean_score"] == pytest.approx(0.9)
    assert rows == sorted(rows, key=lambda row: (row["date"], row["store"], row["category_id"]))


def test_nights_are_told_by_the_uri_where_there_are_no_folders(tmp_path: Path) -> None:
    table = write_nights(tmp_path / "out", lambda *_: {CAN: 1}, has_folders=False)
    assert count(table).dates == []
    found = count(table, r"/(?P<date>\d{4}-\d\d-\d\d)/", STORE)
    assert (found.dates, found.group_names) == (NIGHTS, ("store",))
    assert found.to_table()["date"].to_pylist()[::2] == NIGHTS


def test_dates_in_uris_have_one_form_and_other_texts_are_refused(tmp_path: Path) -> None:
    images = {f"{night}/1.jpg": image({CAN: 1}) for night in ("20261123", "2026-11-22", "other")}
    table = write_part(tmp_path / "out", images)
    assert count(table, r"/(?P<date>\d[\d-]+)/").dates == ["2026-11-22", "2026-11-23"]
    with pytest.raises(InputError, match="--by must find dates as 2026-11-22 or 20261122 in its group date, .* other"):
        count(table, r"/(?P<date>[^/]+)/[^/]+$")


def test_photos_that_are_overwritten_each_night_keep_their_counts(tmp_path: Path) -> None:
    for place, night in enumerate(NIGHTS[:4]):
        names = {f"north/{number}.jpg": image({CAN: 3}) for number in range(5)}
        etags = {"etag": [night] * 5}
        table = write_part(tmp_path / "out", names, plan=place + 1, date=night, columns=etags)
    found = report(tmp_path, table, STORE)
    assert (found.num_images, found.drift.nights_before) == (20, tuple(NIGHTS[:3]))
    assert found.drift.is_judged


def test_a_column_of_the_manifest_is_a_group(tmp_path: Path) -> None:
    images = {"1.jpg": image({CAN: 3}), "2.jpg": image({}), "3.jpg": image({CAN: 1})}
    table = write_part(tmp_path / "out", images, columns={"camera": pa.array([7, 7, None], pa.int32())})
    rows = count(table, "camera").to_table().to_pylist()
    assert [(row["date"], row["camera"], row["num_instances"], row["num_images"]) for row in rows] == [
        (None, None, 1, 1),
        (None, "7", 3, 2),
    ]


def test_images_without_any_instance_still_count(tmp_path: Path) -> None:
    table = write_part(tmp_path / "out", {"1.jpg": image({}), "2.jpg": image(None)})
    [row] = count(table).to_table().to_pylist()
    assert (row["category"], row["num_images"], row["num_failed"], row["mean_per_image"]) == (None, 1, 1, 0)


def test_a_store_that_halves_drifts_and_one_that_does_not_is_left_alone(tmp_path: Path) -> None:
    def stock(night: str, store: str, number: int) -> Stock:
        num = 6 if store == "south" and night == NIGHTS[-1] else 12
        return {CAN: num + (number + int(night[-2:])) % 3, BOX: 4}

    drift = drift_of(write_nights(tmp_path / "out", stock, num_images=12), STORE)
    assert (drift.night, drift.nights_before) == (NIGHTS[-1], tuple(NIGHTS[:-1]))
    assert [(one.group, one.category) for one in drift.drifting] == [(("south",), "can"), (("south",), None)]
    assert drift.num_judged == 2 * 3
    assert drift.drift_share == pytest.approx(1 / 3)
    can = drift.drifting[0]
    assert can.usual == pytest.approx(13)
    assert can.rate == pytest.approx(7)
    assert can.change == pytest.approx(-6 / 13)
    assert can.z == pytest.approx(-5.79, abs=0.01)
    assert [one.group for one in drift.totals] == [("south",), ("north",)]


def test_one_bad_night_before_moves_neither_the_usual_nor_the_spread(tmp_path: Path) -> None:
    table = write_nights(tmp_path / "out", lambda night, *_: {CAN: 0 if night == NIGHTS[3] else 20})
    [total] = drift_of(table).totals
    assert (total.usual, total.z, total.is_drift) == (20, 0, False)


def test_few_nights_or_few_images_tell_nothing(tmp_path: Path) -> None:
    def stock(night: str, store: str, number: int) -> Stock:
        return {CAN: 1 if night == NIGHTS[-1] else 30}

    few_nights = write_nights(tmp_path / "a", stock, nights=NIGHTS[-3:])
    few_images = write_nights(tmp_path / "b", stock, num_images=2, stores=("north",))
    for table in (few_nights, few_images):
        assert (drift_of(table).num_judged, drift_of(table).drifting) == (0, [])
    assert drift_of(few_nights, min_nights=2).drifting
    assert drift_of(few_images, min_images=2).drifting


def test_what_failed_makes_no_rate_smaller(tmp_path: Path) -> None:
    def stock(night: str, store: str, number: int) -> Stock | None:
        return None if night == NIGHTS[-1] and number > 2 else {CAN: 10}

    [total] = drift_of(write_nights(tmp_path / "out", stock)).totals
    assert (total.rate, total.num_images, total.num_failed, total.is_drift) == (10, 6, 6, False)


def test_groups_that_come_and_go_are_told(tmp_path: Path) -> None:
    table = write_nights(tmp_path / "out", lambda *_: {CAN: 1}, nights=NIGHTS[:-1], stores=("gone", "old"))
    last = {f"{NIGHTS[-1]}/{store}/1.jpg": image({CAN: 1}) for store in ("old", "new")}
    write_part(tmp_path / "out", last, part=99, date=NIGHTS[-1])
    drift = drift_of(table, STORE)
    assert (drift.new_groups, drift.vanished_groups) == ([("new",)], [("gone",)])
    assert drift.dark_groups == [("gone",)]


def test_a_store_of_which_every_image_failed_is_dark_and_drifts(tmp_path: Path) -> None:
    def stock(night: str, store: str, number: int) -> Stock | None:
        return None if night == NIGHTS[-1] and store == "south" else {CAN: 5}

    found = report(tmp_path, write_nights(tmp_path / "out", stock), STORE)
    assert (found.drift.dark_groups, found.drift.vanished_groups, found.drift.drifting) == ([("south",)], [], [])
    assert found.has_drift
    assert to_json(found)["alert"]["num_dark_groups"] == 1
    assert "dark, every image failed: south" in describe_counts(found)
    assert "<h2>Dark: every image failed</h2>" in (tmp_path / "site" / "counts.html").read_text()


def test_a_night_that_failed_as_a_whole_is_not_judged(tmp_path: Path) -> None:
    table = write_nights(tmp_path / "out", lambda night, *_: None if night == NIGHTS[-1] else {CAN: 5})
    found = report(tmp_path, table, STORE)
    assert (found.drift.is_judged, found.has_drift) == (False, True)
    assert "nothing could be judged" in describe_counts(found)
    assert "Nothing could be judged" in (tmp_path / "site" / "counts.html").read_text()
    assert not drift_of(write_nights(tmp_path / "new", lambda *_: {CAN: 5}, nights=NIGHTS[:3]), STORE).is_judged


def test_a_category_named_all_is_not_taken_for_the_total(tmp_path: Path) -> None:
    table = str(tmp_path / "out")
    for place, night in enumerate(NIGHTS):
        images = {f"{night}/{number}.jpg": image({CAN: 4}) for number in range(6)}
        write_part(tmp_path / "out", images, part=place, date=night, categories={CAN: "all"})
    assert [one.category for one in drift_of(table).totals] == [None]


def test_an_earlier_night_is_judged_by_those_before_it(tmp_path: Path) -> None:
    table = write_nights(tmp_path / "out", lambda night, *_: {CAN: 3 if night == NIGHTS[-1] else 20})
    assert find_drift(count(table), DriftRule(), NIGHTS[-2]).drifting == []
    assert len(find_drift(count(table), DriftRule()).drifting) == 2
    assert find_drift(count(table), DriftRule(num_nights=4)).nights_before == tuple(NIGHTS[-5:-1])


def test_an_empty_shelf_is_found_by_what_its_own_camera_usually_sees(tmp_path: Path) -> None:
    def stock(night: str, store: str, number: int) -> Stock:
        if store == "sparse":
            return {CAN: 1}
        if store == "changing":
            return {CAN: 0 if number % 3 == 0 else 8}
        return {CAN: {1: 0, 2: 3, 3: 5}.get(number, 8) if night == NIGHTS[-1] else 8 + number % 2}

    table = write_nights(tmp_path / "out", stock, stores=("full", "changing", "sparse"))
    found = count(table, STORE)
    shelves = find_empty_shelves(found, NIGHTS[-1], tuple(NIGHTS[:-1]))
    assert [(one.group, one.count, one.usual) for one in shelves] == [(("full",), 0, 8.5), (("full",), 3, 8.5)]
    assert find_empty_shelves(found, NIGHTS[0], ()) == []
    listed = report(tmp_path, table, STORE).empty_shelves
    names = [uri.split("/photos/")[1] for _, uri in listed]
    assert names == ["2026-11-22/full/1.jpg", "2026-11-22/full/2.jpg"]


def test_a_site_has_the_page_the_parquet_and_the_numbers_for_an_alert(tmp_path: Path) -> None:
    def stock(night: str, store: str, number: int) -> Stock:
        return {CAN: 2 if store == "south" and night == NIGHTS[-1] else 15, BAG: 1}

    found = report(tmp_path, write_nights(tmp_path / "out", stock, num_images=8), STORE)
    assert found.has_drift
    site = tmp_path / "site"
    assert pq.read_table(site / "counts.parquet").num_rows == 8 * 2 * 2
    said = json.loads((site / "counts.json").read_text())
    assert said == json.loads(json.dumps(to_json(found)))
    assert said["alert"]["num_drifting"] == 2
    assert said["drifting"][0]["group"] == {"store": "south"}
    page = (site / "counts.html").read_text()
    assert "perhaps empty shelves" in page
    assert page.count("<svg") == 4
    told = describe_counts(found)
    assert "2 of 6 groups and categories drift; 8 images are perhaps empty shelves" in told
    assert "drift: south, can: 2.0 an image, usually 15.0" in told


def test_a_table_without_nights_is_counted_and_not_judged(tmp_path: Path) -> None:
    found = report(tmp_path, write_nights(tmp_path / "out", lambda *_: {CAN: 1}, has_folders=False), STORE)
    assert not found.has_drift
    assert not found.drift.is_judged
    assert "no nights to compare" in describe_counts(found)
    assert "There are no nights to compare" in (tmp_path / "site" / "counts.html").read_text()


def test_a_spark_skips_nights_without_images(tmp_path: Path) -> None:
    table = write_nights(tmp_path / "out", lambda *_: {CAN: 4}, nights=[NIGHTS[0], NIGHTS[2], NIGHTS[3], NIGHTS[4]])
    write_part(tmp_path / "out", {"x/other/1.jpg": image({})}, part=50, date=NIGHTS[1])
    trends = {one.group: to_spark(one) for one in drift_of(table, STORE).totals}
    assert trends[("north",)] == {"points": "0.0,0.0 50.0,0.0 75.0,0.0 100.0,0.0", "usual": 0.0}
    assert trends[("other",)] == {"points": "25.0,24.0", "usual": None}


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("shop", r"--by must be a column \(image_uri, .*, date\) or a regular expression with named groups, got shop"),
        ("/photos/", "--by must be a column .* got /photos/; for example --by "),
        ("/([^/]+)/", "--by is no regular expression with named groups alone: .*unnamed groups, in "),
        ("(?P<store>", "--by is no regular expression with named groups alone: missing"),
        ("(?=x)(?P<store>x)", "--by is no regular expression with named groups alone: Invalid regular expression"),
        ("(?P<category>x)", "--by must not name a group category: the result has a column of that name"),
        ("(?P<store>no-such-thing)", "--by must find store in an image's URI or row, and finds it in none"),
    ],
)
def test_groups_that_cannot_be_are_refused_in_one_line(tmp_path: Path, by: str, said: str) -> None:
    table = write_nights(tmp_path / "out", lambda *_: {CAN: 1}, nights=NIGHTS[:1])
    with pytest.raises(InputError, match=said):
        report(tmp_path, table, by)


def test_a_night_that_is_not_there_is_told(tmp_path: Path) -> None:
    table = write_nights(tmp_path / "out", lambda *_: {CAN: 1}, nights=NIGHTS[:2])
    with pytest.raises(InputError, match="--night must be one of 2026-11-15, 2026-11-16, got 2026-11-30"):
        report(tmp_path, table, night="2026-11-30")
    with pytest.raises(InputError, match="--by must name each group once, got store twice"):
        report(tmp_path, table, STORE, STORE)
