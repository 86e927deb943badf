"""The current rows of a table as a stream are those that are read whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskrcnn.errors import InputError
from maskrcnn.labelling.current import CurrentRows, check_masks
from maskrcnn.labelling.table import read_predictions
from tests.labelled_parts import FAILED, blob, labelled, write_part


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Leave 3 parts of 2 plans: 70 images, then 40, then 20 of the first again, with a column more."""
    images = {f"{place:03d}.jpg": labelled([(2, 0.5, blob(place))] * (place % 3)) for place in range(110)}
    names = list(images)
    write_part(tmp_path, {name: images[name] for name in names[:70]}, date="2026-11-21")
    write_part(tmp_path, {name: images[name] for name in names[70:]}, part=1, date="2026-11-22")
    again = dict.fromkeys(names[10:30], FAILED)
    return write_part(tmp_path, again, plan=2, date="2026-11-21", columns={"shelf": list(range(20))})


@pytest.mark.parametrize("batch_size", [1, 7, 32, 1000])
def test_the_stream_is_the_table(table: str, batch_size: int) -> None:
    rows = CurrentRows(table)
    columns = ["masks", "image_uri", "attempt", "shelf", "instances"]
    batches = list(rows.batches(columns, batch_size=batch_size))
    whole = read_predictions(table, columns=columns)
    assert len(rows) == len(whole) == 110
    assert pa.concat_tables([batch for _, batch in batches]).equals(whole)
    np.testing.assert_array_equal(np.concatenate([places for places, _ in batches]), np.arange(110))
    assert max(len(batch) for _, batch in batches) <= batch_size


def test_rows_that_are_not_wanted_are_skipped_and_their_parts_not_opened(table: str) -> None:
    rows = CurrentRows(table)
    everything = read_predictions(table, columns=["image_uri"])["image_uri"].to_pylist()
    is_wanted = np.zeros(110, np.bool_)
    is_wanted[[3, 69, 49]] = True
    for path in Path(table).glob("table/*/*.parquet"):
        if "2026-11-22" in str(path):
            path.unlink()
    streamed = [
        pair
        for places, batch in rows.batches(["image_uri"], is_wanted=is_wanted)
        for pair in zip(places.tolist(), batch["image_uri"].to_pylist(), strict=True)
    ]
    assert streamed == [(place, everything[place]) for place in (3, 49, 69)]


def test_the_date_is_the_folders(table: str) -> None:
    rows = CurrentRows(table)
    assert rows.has_dates
    dates = [date for _, batch in rows.batches(["date", "image_uri"]) for date in batch["date"].to_pylist()]
    assert (dates.count("2026-11-21"), dates.count("2026-11-22")) == (70, 40)


def test_an_overwritten_image_is_current_in_each_date_and_once_a_version(tmp_path: Path) -> None:
    def write(plan: int, date: str, **etags: str) -> None:
        names = {f"{name}.jpg": FAILED for name in etags}
        write_part(tmp_path, names, plan=plan, date=date, columns={"etag": list(etags.values())})

    write(1, "2026-11-21", overwritten="1", corrected="1", moved="1")
    write(2, "2026-11-21", corrected="2")
    write(3, "2026-11-22", overwritten="2", moved="1")
    found = pa.concat_tables(
        [batch for _, batch in CurrentRows(str(tmp_path), by_date=True).batches(["image_uri", "etag", "date"])]
    )
    rows = {(row["image_uri"].split("/")[-1], row["etag"], row["date"]) for row in found.to_pylist()}
    assert rows == {
        ("overwritten.jpg", "1", "2026-11-21"),
        ("overwritten.jpg", "2", "2026-11-22"),
        ("corrected.jpg", "2", "2026-11-21"),
        ("moved.jpg", "1", "2026-11-22"),
    }
    assert len(CurrentRows(str(tmp_path))) == 3


def test_rows_without_a_date_have_null(tmp_path: Path) -> None:
    undated = write_part(tmp_path / "undated", {"a.jpg": FAILED})
    assert not CurrentRows(undated).has_dates
    write_part(tmp_path / "some", {"a.jpg": FAILED}, date="2026-11-21")
    some = write_part(tmp_path / "some", {"b.jpg": FAILED}, part=1, date="__HIVE_DEFAULT_PARTITION__")
    dates = [date for _, batch in CurrentRows(some).batches(["date"]) for date in batch["date"].to_pylist()]
    assert dates == ["2026-11-21", None]


def test_a_column_of_some_parts_is_null_in_the_others(table: str) -> None:
    rows = read_predictions(table)
    assert rows.schema.names[-1] == "shelf"
    assert rows["shelf"].null_count == 90


def test_columns_of_two_types_are_told(tmp_path: Path) -> None:
    write_part(tmp_path, {"a.jpg": FAILED}, columns={"store": ["north"], "shelf": pa.array([1], pa.int32())})
    table = write_part(tmp_path, {"b.jpg": FAILED}, part=1, columns={"store": [7], "shelf": pa.array([1], pa.int64())})
    rows = CurrentRows(table)
    with pytest.raises(InputError, match="column store must have one type, and has string and int64, in"):
        rows.schema()
    assert rows.schema(["shelf"]).field("shelf").type == pa.int64()
    assert rows.read(["shelf"])["shelf"].to_pylist() == [1, 1]


def test_a_part_is_read_in_pieces_of_its_row_group(table: str) -> None:
    """Or a part of thousands of masks would be held at once: there is one row group a part."""
    parts = list(Path(table).glob("table/*/*.parquet"))
    assert {pq.ParquetFile(path).num_row_groups for path in parts} == {1}
    [first, *_] = CurrentRows(table).batches(["image_uri"], batch_size=7)
    assert len(first[1]) == 7


@pytest.mark.parametrize("body", [b"PAR1", b"", b"PAR1 and then noise of some length PAR1"])
def test_a_damaged_part_is_named(table: str, body: bytes) -> None:
    part = sorted(Path(table).rglob("*.parquet"))[-1]
    part.write_bytes(body)
    with pytest.raises(InputError, match=f"a part of the table must be whole Parquet: .*, in {part}"):
        CurrentRows(table).read()


def test_masks_that_do_not_go_with_their_instances_are_refused() -> None:
    masks = [[b"1", b"2"], None, None]
    rows = pa.table({"image_uri": ["a", "b", "c"], "instances": [[1, 2], [1], None], "masks": masks})
    check_masks(rows, "out")
    rows = rows.set_column(2, "masks", pa.array([[b"1", b"2"], [b"1", b"2"], None]))
    with pytest.raises(InputError, match="masks of b must be as many as its instances, and are not, in out"):
        check_masks(rows, "out")


@pytest.mark.parametrize("folder", ["date=2026-01-01/out", "table/date=2026-01-01", "date=2026-01-01/table/x"])
def test_a_date_folder_above_the_table_is_no_partition(tmp_path: Path, folder: str) -> None:
    def dates(uri: str) -> list[str | None]:
        rows = CurrentRows(uri)
        found = [date for _, batch in rows.batches(["date", "image_uri"]) for date in batch["date"].to_pylist()]
        assert rows.has_dates == (found != [None])
        return found

    undated = write_part(tmp_path / "undated" / folder, {"a.jpg": FAILED})
    assert dates(undated) == [None]
    dated = write_part(tmp_path / "dated" / folder, {"a.jpg": FAILED}, date="2026-11-22")
    assert dates(dated) == ["2026-11-22"]
    assert len(CurrentRows(dated, dates=["2026-11-22"])) == 1
    for uri in (undated, dated):
        write_part(Path(uri), {"b.jpg": FAILED}, plan=2, date="2026-11-23")
        assert len(CurrentRows(uri, dates=["2026-11-23"])) == 1
        with pytest.raises(InputError, match="holds no labelled images"):
            CurrentRows(uri, dates=["2026-01-01"])
