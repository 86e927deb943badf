"""Input of a labelling job that is odd or wrong: it is read, or refused in one line that names it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn import storage
from maskrcnn.errors import InputError
from maskrcnn.labelling.dates import iso_dates
from maskrcnn.labelling.globs import list_glob
from maskrcnn.labelling.listing import list_manifest
from maskrcnn.labelling.plan import NO_DATE
from maskrcnn.storage.base import listing_batch
from tests.planning import to_table

ONE = {"image_uri": ["s3://b/a.jpg"], "etag": ["1"], "size": [1]}
NO_UTF8 = pa.Array.from_buffers(pa.string(), 1, pa.array([b"s3://b/\xff"]).buffers())
NANOSECONDS = pa.array([1795704838809549751], pa.timestamp("ns"))


def list_columns(folder: Path, columns: dict[str, Any] | pa.Table, **options: Any) -> dict[str, Any]:
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), folder / "m.parquet")
    row: dict[str, Any] = to_table(list_manifest(str(folder / "m.parquet"), **options)).to_pylist()[0]
    return row


def list_coco(folder: Path, image: dict[str, Any]) -> dict[str, Any]:
    (folder / "coco.json").write_text(json.dumps({"images": [image]}))
    row: dict[str, Any] = to_table(list_manifest(str(folder / "coco.json"), image_root_uri=str(folder))).to_pylist()[0]
    return row


@pytest.mark.parametrize("image_id", [2**63, -(2**63) - 1, 2**64, True, 1.5, None])
def test_an_id_that_is_no_integer_of_64_bits_is_refused(tmp_path: Path, image_id: Any) -> None:
    with pytest.raises(InputError, match=r"images\[0\] id must be a whole number, got "):
        list_coco(tmp_path, {"id": image_id, "file_name": "a.jpg"})


@pytest.mark.parametrize("image_id", [2**63 - 1, -(2**63), 0])
def test_an_id_of_64_bits_is_kept(tmp_path: Path, image_id: int) -> None:
    assert list_coco(tmp_path, {"id": image_id, "file_name": "a.jpg"})["image_id"] == image_id


@pytest.mark.parametrize(
    ("name", "rule"), [("\ud800.jpg", "Unicode text, got '\\\\ud800.jpg'"), (5, "a text"), ("", "a text")]
)
def test_a_file_name_that_is_no_text_is_refused(tmp_path: Path, name: Any, rule: str) -> None:
    with pytest.raises(InputError, match=f"image 7 file_name must be {rule}") as caught:
        list_coco(tmp_path, {"id": 7, "file_name": name})
    str(caught.value).encode()


def test_json_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "coco.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="--images is not JSON"):
        list_manifest(str(tmp_path / "coco.json"), image_root_uri=str(tmp_path))


@pytest.mark.parametrize("glob", ["[z-a]*.jpg", "[!z-a]*.jpg"])
def test_a_glob_that_is_none_is_refused(tmp_path: Path, glob: str) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="--images is neither a place nor a glob: .*, in /"):
        list_manifest(f"{tmp_path}/{glob}")


@pytest.mark.parametrize(
    ("glob", "name"),
    [
        (r"[\]*.jpg", r"\d.jpg"),
        ("[[]*.jpg", "[1].jpg"),
        ("[]]*.jpg", "].jpg"),
        ("[!a[]*", "b.jpg"),
        ("x[]*.jpg", "x[]1.jpg"),
        ("x[!]*.jpg", "x[!]1.jpg"),
    ],
)
def test_characters_in_brackets_stand_for_themselves(tmp_path: Path, glob: str, name: str) -> None:
    for each in ("a.jpg", name):
        (tmp_path / each).write_bytes(b"x")
    listed = to_table(list_manifest(f"{tmp_path}/{glob}"))
    assert listed["image_uri"].to_pylist() == [f"{tmp_path}/{name}"]


@given(st.text(alphabet="ab[]!^-\\*?/.", max_size=12))
def test_every_glob_is_used_or_refused(pattern: str) -> None:
    listing = listing_batch([storage.ObjectMeta("/photos/a.jpg", "etag", 5, None)])
    with pytest.MonkeyPatch.context() as patch, suppress(InputError):
        patch.setattr(storage, "list_batches", lambda uri: iter([listing]))
        assert [len(batch) for batch in list_glob(f"/photos/{pattern}")] in ([0], [1])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([time(1)]),
        pa.array([timedelta(1)]),
        pa.array([["2026-11-22"]]),
        pa.array([{"day": "2026-11-22"}]),
        pa.array([True]),
        pa.array([b"\xff"]),
        pa.array([2**62], pa.timestamp("ms")),
    ],
)
def test_a_column_that_holds_no_dates_is_refused(tmp_path: Path, column: pa.Array) -> None:
    with pytest.raises(InputError, match="--date-from taken must be a column of dates, times or text"):
        list_columns(tmp_path, {**ONE, "taken": column}, date_from="taken")


@pytest.mark.parametrize(
    "column",
    [
        NANOSECONDS,
        pa.array([datetime(2026, 11, 26)]).dictionary_encode(),
        pa.array([date(2026, 11, 26)], pa.date64()),
        pa.array([b"2026-11-26"]),
        pa.array(["2026-11-26"]).dictionary_encode(),
        pa.array(["2026-11-26"], pa.large_string()),
        pa.array([20261126]),
    ],
)
def test_every_type_that_can_hold_dates_gives_them(tmp_path: Path, column: pa.Array) -> None:
    assert list_columns(tmp_path, {**ONE, "taken": column}, date_from="taken")["date"] == "2026-11-26"


def test_a_manifests_times_may_be_of_nanoseconds(tmp_path: Path) -> None:
    row = list_columns(tmp_path, {**ONE, "last_modified": NANOSECONDS}, date_from="last-modified")
    assert row["date"] == "2026-11-26"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (pa.table([["s3://b/a"], [1], [2]], ["image_uri", "a", "a"]), "manifest column a must be there once"),
        ({**ONE, "image_uri": [["s3://b/a"]]}, "manifest column image_uri must be text, is list"),
        ({**ONE, "image_uri": [b"s3://b/\xff"]}, "manifest column image_uri must be UTF-8"),
        ({**ONE, "image_uri": NO_UTF8}, "manifest column image_uri must be UTF-8"),
        ({"image_uri": NO_UTF8}, "manifest column image_uri must be UTF-8"),
        ({**ONE, "etag": [["1"]]}, "the manifest needs a text etag"),
        ({**ONE, "etag": [b"\xff"]}, "the manifest needs a text etag"),
        ({**ONE, "size": [{"bytes": 1}]}, "the manifest needs a text etag, an integer size"),
        ({**ONE, "last_modified": [["today"]]}, "the manifest needs .* a time last_modified"),
    ],
)
def test_columns_that_cannot_be_used_are_refused(tmp_path: Path, columns: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list_columns(tmp_path, columns)


@pytest.mark.parametrize("taken", ["2026-19-39", "2026-02-30", "2025-02-29", "20261131", "2026-00-10", "0000-00-00"])
def test_a_day_that_no_calendar_has_is_no_date(tmp_path: Path, taken: str) -> None:
    columns = {**ONE, "image_uri": [f"s3://b/{taken}/a.jpg"], "taken": [taken]}
    assert list_columns(tmp_path, columns, date_from="taken")["date"] == NO_DATE
    assert list_columns(tmp_path, columns, date_from=r"/([\d-]+)/")["date"] == NO_DATE


@given(st.dates())
def test_every_day_of_the_calendar_is_a_date(day: date) -> None:
    texts = pa.chunked_array([[day.isoformat(), day.strftime("%Y%m%d").zfill(8), f"{day.isoformat()}T05:00:00Z"]])
    assert iso_dates(texts).to_pylist() == [day.isoformat()] * 3


@pytest.mark.parametrize("name", [b"\xff.jpg", b"50%25 \xfe#?.jpg", b"\xc3\xa9%FF.jpg", b"50%25#.jpg"])
@pytest.mark.parametrize("has_versions", [True, False])
def test_a_listing_is_a_manifest_whatever_bytes_name_its_files(tmp_path: Path, name: bytes, has_versions: bool) -> None:
    (tmp_path / "photos").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/" + name)).write_bytes(b"image")
    listed = to_table(list_manifest(str(tmp_path / "photos")))
    columns = listed.select(["image_uri", "etag", "size"] if has_versions else ["image_uri"])
    pq.write_table(columns, tmp_path / "m.parquet")
    again = to_table(list_manifest(str(tmp_path / "m.parquet")))
    assert again.equals(listed)
    row = again.to_pylist()[0]
    assert storage.normalise(row["image_uri"]) == row["image_uri"]
    assert storage.read_object(row["image_uri"], row["etag"], row["size"]) == b"image"


def test_versions_that_a_manifest_gives_of_files_are_asked_for_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    row = list_columns(tmp_path, {"image_uri": [f"file://{tmp_path}/a.jpg"], "etag": ["old"], "size": [1]})
    assert row["image_uri"] == str(tmp_path / "a.jpg")
    assert row["etag"] == storage.stat(str(tmp_path / "a.jpg")).etag


def test_a_folder_whose_name_is_no_utf8_holds_the_images_of_a_coco_file(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    root.mkdir()
    (root / "50%25.jpg").write_bytes(b"image")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (root / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    root_uri = f"file://{tmp_path}/%FF"
    images = [{"id": 1, "file_name": "50%25.jpg"}]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images}))
    (row,) = to_table(list_manifest(str(tmp_path / "coco.json"), image_root_uri=root_uri)).to_pylist()
    assert storage.read_object(row["image_uri"], row["etag"], row["size"]) == b"image"
    (tmp_path / "coco.json").write_text(json.dumps({"images": [{"id": 1, "file_name": "out.jpg"}]}))
    with pytest.raises(InputError, match="must not lead out of the folder"):
        list_manifest(str(tmp_path / "coco.json"), image_root_uri=root_uri)
