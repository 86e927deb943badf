from __future__ import annotations

import pyarrow as pa
import pytest

from maskrcnn.labelling.manifest import Manifest
from maskrcnn.labelling.plan import (
    PartId,
    PlannedPart,
    Settled,
    complete_dates,
    current_rows,
    parse_part_id,
    parts_left,
    settle_plan_put,
)
from maskrcnn.storage import PutAnswer
from tests.planning import plan_all, plan_rows, to_table


def manifest(*rows: tuple[str, str, str | None]) -> pa.Table:
    return pa.table(
        {
            "image_uri": pa.array([uri for uri, _, _ in rows], pa.string()),
            "etag": pa.array([etag for _, etag, _ in rows], pa.string()),
            "size": pa.array([1] * len(rows), pa.int64()),
            "date": pa.array([date for _, _, date in rows], pa.string()),
            "store": pa.array([f"store of {uri}" for uri, _, _ in rows], pa.string()),
        }
    )


def attempts(*rows: tuple[str, str, int]) -> pa.Table:
    return pa.table(
        {
            "image_uri": pa.array([uri for uri, _, _ in rows], pa.string()),
            "etag": pa.array([etag for _, etag, _ in rows], pa.string()),
            "attempt": pa.array([attempt for _, _, attempt in rows], pa.int16()),
        }
    )


def failed(*rows: tuple[str, str, int, str]) -> pa.Table:
    table = attempts(*(row[:3] for row in rows))
    return table.append_column("error_kind", pa.array([row[3] for row in rows], pa.string()))


def planned(rows: pa.Table) -> list[tuple[str, str, int, int]]:
    return [(r["image_uri"], r["etag"], r["attempt"], r["part"]) for r in rows.to_pylist()]


def test_what_was_never_planned_is_planned() -> None:
    rows = plan_rows(manifest(("a", "1", None), ("b", "1", None)), attempts(("a", "1", 1)), failed(), ["timeout"], 10)
    assert planned(rows) == [("b", "1", 1, 0)]
    assert rows["store"].to_pylist() == ["store of b"]


def test_a_changed_etag_is_a_new_key() -> None:
    rows = plan_rows(manifest(("a", "2", None)), attempts(("a", "1", 1)), failed(), [], 10)
    assert planned(rows) == [("a", "2", 1, 0)]


def test_keys_do_not_run_into_each_other() -> None:
    rows = plan_rows(manifest(("a1", "2", None)), attempts(("a", "12", 1)), failed(), [], 10)
    assert planned(rows) == [("a1", "2", 1, 0)]


def test_transient_errors_are_planned_again_once() -> None:
    listed = manifest(("a", "1", None), ("b", "1", None), ("c", "1", None))
    done = attempts(("a", "1", 1), ("b", "1", 1), ("c", "1", 1))
    errors = failed(("a", "1", 1, "timeout"), ("b", "1", 1, "corrupt"))
    rows = plan_rows(listed, done, errors, ["timeout", "unavailable"], 10)
    assert planned(rows) == [("a", "1", 2, 0)]
    assert rows["store"].to_pylist() == ["store of a"]
    done = pa.concat_tables([done, attempts(("a", "1", 2))])
    assert len(plan_rows(listed, done, errors, ["timeout"], 10)) == 0
    errors = failed(("a", "1", 1, "timeout"), ("a", "1", 2, "timeout"))
    assert planned(plan_rows(listed, done, errors, ["timeout"], 10)) == [("a", "1", 3, 0)]


def test_what_is_no_longer_listed_is_not_tried_again() -> None:
    errors = failed(("gone", "1", 1, "timeout"), ("a", "old", 1, "timeout"))
    done = attempts(("gone", "1", 1), ("a", "old", 1), ("a", "new", 1))
    assert len(plan_rows(manifest(("a", "new", None)), done, errors, ["timeout"], 10)) == 0


def test_a_part_has_one_date_and_a_bounded_size() -> None:
    listed = manifest(
        ("a", "1", "2026-11-23"), ("b", "1", "2026-11-22"), ("c", "1", "2026-11-23"), ("d", "1", "2026-11-23")
    )
    rows = plan_rows(listed, attempts(), failed(), [], 2)
    assert planned(rows) == [("b", "1", 1, 0), ("a", "1", 1, 1), ("c", "1", 1, 1), ("d", "1", 1, 2)]


def test_the_first_of_repeated_images_is_kept_in_order() -> None:
    rows = manifest(("b", "1", None), ("a", "1", None), ("b", "2", "2026-11-22"))
    listed = Manifest(rows.to_batches(1))
    assert to_table(listed)["image_uri"].to_pylist() == ["b", "a"]
    assert to_table(listed)["etag"].to_pylist() == ["1", "1"]
    assert (listed.num_images, listed.num_bytes, listed.dates) == (2, 2, {None})


def test_plans_hold_whole_parts_in_the_order_of_the_listing() -> None:
    listed = manifest(*((f"{place:02d}", "1", None) for place in range(11)))
    plans = plan_all(listed, attempts(("03", "1", 1)), failed(), [], 2, max_rows=5, rows_per_batch=3)
    assert [[row[0] for row in planned(rows)] for rows in plans] == [
        ["00", "01", "02", "04"],
        ["05", "06", "07", "08"],
        ["09", "10"],
    ]
    assert [rows["part"].to_pylist() for rows in plans] == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0]]


def test_columns_of_categories_survive_batches_with_other_dictionaries() -> None:
    rows = manifest(("a", "1", "2026-11-23"), ("b", "1", "2026-11-22"))
    tables = [
        rows.slice(place, 1).append_column("shop", pa.chunked_array([[f"shop {place}"]]).dictionary_encode())
        for place in range(2)
    ]
    [one] = plan_all(pa.concat_tables(tables), attempts(), failed(), [], 2)
    assert one["shop"].to_pylist() == ["shop 1", "shop 0"]


@pytest.mark.parametrize(
    ("answer", "found", "settled"),
    [
        (PutAnswer.CREATED, None, Settled.OURS),
        (PutAnswer.EXISTS, "mine", Settled.OURS),
        (PutAnswer.EXISTS, "theirs", Settled.THEIRS),
        (PutAnswer.UNKNOWN, "mine", Settled.OURS),
        (PutAnswer.UNKNOWN, "theirs", Settled.THEIRS),
        (PutAnswer.UNKNOWN, None, Settled.NOBODYS),
        (PutAnswer.EXISTS, None, Settled.NOBODYS),
    ],
)
def test_who_won_is_read_back(answer: PutAnswer, found: str | None, settled: Settled) -> None:
    assert settle_plan_put(answer, "mine", found) is settled


def test_part_names_carry_plan_and_part() -> None:
    part_id = PartId(12, 345)
    assert part_id.file_name == "part-000012-00345.parquet"
    assert parse_part_id(f"s3://b/table/date=2026-11-22/{part_id.file_name}") == part_id
    assert parse_part_id(PartId(3, 1_234_567).file_name) == PartId(3, 1_234_567)
    assert parse_part_id("s3://b/table/README.txt") is None


def test_what_is_left_and_what_is_complete() -> None:
    parts = [PlannedPart(PartId(1, 0), "d1", 5), PlannedPart(PartId(1, 1), "d2", 5), PlannedPart(PartId(2, 0), "d1", 5)]
    assert parts_left(parts, {PartId(1, 0)}) == [parts[1], parts[2]]
    assert complete_dates(parts, {PartId(1, 0), PartId(1, 1)}) == {"d2": [parts[1]]}
    assert set(complete_dates(parts, {part.id for part in parts})) == {"d1", "d2"}
    assert complete_dates([], set()) == {}


def current(*rows: tuple[str, str, int, int]) -> list[bool]:
    table = attempts(*(row[:3] for row in rows)).append_column("plan", pa.array([row[3] for row in rows], pa.int64()))
    return [bool(one) for one in current_rows(table)]


def test_the_newest_version_is_current_and_of_it_the_last_attempt() -> None:
    assert current(("a", "1", 1, 1), ("a", "2", 1, 2), ("b", "1", 1, 1)) == [False, True, True]
    assert current(("a", "1", 1, 1), ("a", "1", 2, 2)) == [False, True]


def test_a_late_retry_of_an_old_version_does_not_become_current() -> None:
    assert current(("a", "1", 1, 1), ("a", "2", 1, 2), ("a", "1", 2, 3)) == [False, True, False]
