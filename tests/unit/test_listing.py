from __future__ import annotations

import json
import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskrcnn import storage
from maskrcnn.errors import InputError
from maskrcnn.labelling.listing import list_manifest
from maskrcnn.labelling.plan import NO_DATE
from tests.planning import to_table


def list_table(images_uri: str, **options: str) -> pa.Table:
    return to_table(list_manifest(images_uri, **options))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("2026-11-22/a.jpg", "2026-11-22/b.png", "2026-11-23/a.jpg", "notes.txt", "x[1].jpg", ".hidden.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "photos"


def names(listed: pa.Table, folder: Path) -> list[str]:
    return [os.path.relpath(uri, folder) for uri in listed["image_uri"].to_pylist()]


def write_manifest(path: Path, columns: dict[str, Any]) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_a_folder_gives_every_file_whatever_its_name(photos: Path) -> None:
    listed = list_table(str(photos))
    expected = ["2026-11-22/a.jpg", "2026-11-22/b.png", "2026-11-23/a.jpg", "notes.txt", "x[1].jpg"]
    assert names(listed, photos) == expected
    assert listed.column_names == ["image_uri", "etag", "size", "date"]
    meta = storage.stat(str(photos / "notes.txt"))
    assert listed.to_pylist()[3] == {
        "image_uri": str(photos / "notes.txt"), "etag": meta.etag, "size": 9, "date": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*/a.jpg", ["2026-11-22/a.jpg", "2026-11-23/a.jpg"]),
        ("*.jpg", ["x[1].jpg"]),
        ("**/*.jpg", ["2026-11-22/a.jpg", "2026-11-23/a.jpg", "x[1].jpg"]),
        ("2026-11-2[3-9]/*", ["2026-11-23/a.jpg"]),
        ("2026-11-2[!3]/*", ["2026-11-22/a.jpg", "2026-11-22/b.png"]),
        ("2026-11-2?", ["2026-11-22/a.jpg", "2026-11-22/b.png", "2026-11-23/a.jpg"]),
        ("x[1].jpg", ["x[1].jpg"]),
    ],
)
def test_globs_match_files_and_folders(photos: Path, glob: str, expected: list[str]) -> None:
    assert names(list_table(f"{photos}/{glob}"), photos) == expected


def test_one_image_is_a_list_of_one(photos: Path) -> None:
    assert names(list_table(str(photos / "2026-11-22" / "a.jpg")), photos) == ["2026-11-22/a.jpg"]


def test_the_output_among_the_images_is_left_out(photos: Path) -> None:
    (photos / "out" / "table").mkdir(parents=True)
    (photos / "out" / "table" / "part-000001-00000.parquet").write_bytes(b"x")
    assert len(list_table(str(photos), leave_out_uri=str(photos / "out"))) == 5


@pytest.mark.parametrize("uri", ["nowhere", "empty", "nowhere.parquet", "nowhere.json", "no*match"])
def test_nothing_there_is_one_clear_line(tmp_path: Path, uri: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"--images (holds no images, or )?does not exist, in "):
        list_table(str(tmp_path / uri))


def test_a_bucket_that_does_not_exist_is_one_clear_line(s3_endpoint: str) -> None:
    with pytest.raises(InputError, match="--images cannot be listed: no such bucket, in s3://no-such-bucket"):
        list_table("s3://no-such-bucket/photos")


def test_a_manifest_keeps_the_users_columns(photos: Path, tmp_path: Path) -> None:
    uris = [str(photos / "2026-11-22" / "a.jpg"), str(photos / "gone.jpg")]
    uri = write_manifest(tmp_path / "m.parquet", {"image_uri": uris, "store": ["s1", "s2"], "image_id": [7, 8]})
    listed = list_table(uri)
    assert listed.column_names == ["image_uri", "etag", "size", "date", "image_id", "store"]
    assert listed["store"].to_pylist() == ["s1", "s2"]
    assert listed["etag"].to_pylist() == [storage.stat(uris[0]).etag, ""]
    assert listed["image_id"].type == pa.int64()


def test_a_manifest_with_versions_of_remote_images_is_believed(tmp_path: Path) -> None:
    columns = {"uri": ["s3://b/a.jpg"], "etag": ['"abc"'], "size": [5]}
    listed = list_table(write_manifest(tmp_path / "m.parquet", columns))
    assert listed.to_pylist() == [{"image_uri": "s3://b/a.jpg", "etag": "abc", "size": 5, "date": None}]


def test_a_repeated_image_is_listed_once(photos: Path, tmp_path: Path) -> None:
    one = str(photos / "notes.txt")
    listed = list_table(write_manifest(tmp_path / "m.parquet", {"image_uri": [one, one], "store": ["first", "second"]}))
    assert listed["store"].to_pylist() == ["first"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a"]}, "the manifest must have a column image_uri, has path"),
        (
            {"image_uri": ["s3://b/a"], "etag": ["1"], "size": [1], "status": ["x"]},
            "manifest column status is the name",
        ),
        ({"image_uri": ["s3://b/a"], "etag": ["1"], "size": [1], "date": ["x"]}, "manifest column date would collide"),
        ({"image_uri": ["s3://b/a", None]}, "must have no nulls"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        list_table(write_manifest(tmp_path / "m.parquet", columns))


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="is not a Parquet file"):
        list_table(str(tmp_path / "m.parquet"))


@pytest.mark.parametrize("has_versions", [True, False])
def test_a_manifest_of_many_row_groups_is_read_whole(photos: Path, tmp_path: Path, has_versions: bool) -> None:
    root = "s3://b" if has_versions else str(photos)
    uris = [f"{root}/{place % 40:02d}.jpg" for place in range(50)]
    columns: dict[str, Any] = {"image_uri": uris, "shop": pa.array([f"s{place}" for place in range(50)])}
    columns["shop"] = columns["shop"].dictionary_encode()
    if has_versions:
        columns |= {"etag": [str(place) for place in range(50)], "size": list(range(50))}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet", row_group_size=7)
    manifest = list_manifest(str(tmp_path / "m.parquet"))
    listed = to_table(manifest)
    assert listed["image_uri"].to_pylist() == uris[:40]
    assert listed["shop"].to_pylist() == [f"s{place}" for place in range(40)]
    assert listed["etag"].to_pylist() == [str(place) if has_versions else "" for place in range(40)]
    assert (manifest.num_images, manifest.num_bytes) == (40, sum(range(40)) if has_versions else 0)
    assert len(list(manifest.batches())) > 1


def test_one_image_without_a_version_has_all_versions_asked_for(photos: Path, tmp_path: Path) -> None:
    columns = {"image_uri": [f"file://{photos}/notes.txt"] * 3, "etag": ["1", "2", None], "size": [1, 2, 3]}
    pq.write_table(pa.table(columns), tmp_path / "m.parquet", row_group_size=1)
    assert list_table(str(tmp_path / "m.parquet"))["etag"].to_pylist() == [storage.stat(str(photos / "notes.txt")).etag]


def test_a_manifest_whose_size_is_no_number_is_refused(tmp_path: Path) -> None:
    uri = write_manifest(tmp_path / "m.parquet", {"image_uri": ["s3://b/a"], "etag": ["1"], "size": ["large"]})
    with pytest.raises(InputError, match="the manifest needs a text etag, an integer size"):
        list_manifest(uri)


def test_a_coco_file_takes_its_own_from_a_large_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for place in range(30):
        (tmp_path / "photos" / f"{place:02d}.jpg").write_bytes(b"x" * place)
    images = [{"id": place, "file_name": f"{place:02d}.jpg"} for place in (29, 3, 17, 3)]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maskrcnn.storage.local.LISTING_BATCH_SIZE", 3)
        listed = list_table(str(tmp_path / "coco.json"), image_root_uri=str(tmp_path / "photos"))
    assert listed["image_id"].to_pylist() == [29, 3, 17]
    assert listed["size"].to_pylist() == [29, 3, 17]


def test_a_coco_file_gives_image_ids_and_missing_files_are_kept(photos: Path, tmp_path: Path) -> None:
    images = [{"id": 5, "file_name": "2026-11-22/a.jpg"}, {"id": 9, "file_name": "gone.jpg"}]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images}))
    listed = list_table(str(tmp_path / "coco.json"), image_root_uri=str(photos))
    assert listed["image_id"].to_pylist() == [5, 9]
    assert listed["etag"].to_pylist() == [storage.stat(str(photos / "2026-11-22/a.jpg")).etag, ""]


@pytest.mark.parametrize(
    ("document", "root", "message"),
    [
        ("not json", "r", "is not JSON"),
        ('{"images": [{"id": 1, "file_name": "a.jpg"}]}', None, "--image-root must say"),
        ('{"images": [{"id": 1, "file_name": "../../etc/passwd"}]}', "r", "etc/passwd"),
        ('{"images": [{"id": "x", "file_name": "a.jpg"}]}', "r", r"images\[0\] id must be a whole number"),
        ("[1, 2]", "r", "neither a COCO file nor an S3 Inventory"),
    ],
)
def test_json_that_cannot_be_used_is_refused(tmp_path: Path, document: str, root: str | None, message: str) -> None:
    (tmp_path / "x.json").write_text(document)
    with pytest.raises(InputError, match=message):
        list_table(str(tmp_path / "x.json"), image_root_uri=root)


def test_dates_come_from_the_uri(photos: Path) -> None:
    listed = list_table(str(photos), date_from=r"/(\d{4}-\d\d-\d\d)/")
    assert listed["date"].to_pylist() == ["2026-11-22", "2026-11-22", "2026-11-23", NO_DATE, NO_DATE]


def test_dates_come_from_the_files_time(photos: Path) -> None:
    moment = datetime(2026, 3, 1, 23, 30, tzinfo=UTC).timestamp()
    os.utime(photos / "notes.txt", (moment, moment))
    assert list_table(str(photos / "notes.txt"), date_from="last-modified")["date"].to_pylist() == ["2026-03-01"]


@pytest.mark.parametrize(
    "values",
    [["2026-11-22", None], ["20261122", "soon"], [date(2026, 11, 22), None], [datetime(2026, 11, 22, 5), None]],
)
def test_dates_come_from_a_column(tmp_path: Path, values: list[Any]) -> None:
    columns = {"image_uri": ["s3://b/a", "s3://b/b"], "etag": ["1", "2"], "size": [1, 2], "captured": values}
    listed = list_table(write_manifest(tmp_path / "m.parquet", columns), date_from="captured")
    assert listed["date"].to_pylist() == ["2026-11-22", NO_DATE]
    assert "captured" in listed.column_names


def test_a_column_named_date_can_be_the_date(tmp_path: Path) -> None:
    columns = {"image_uri": ["s3://b/a"], "etag": ["1"], "size": [1], "date": ["2026-11-22"]}
    assert list_table(write_manifest(tmp_path / "m.parquet", columns), date_from="date")["date"].to_pylist() == [
        "2026-11-22"
    ]


@pytest.mark.parametrize(
    ("date_from", "message"),
    [("captured", "must be last-modified, a column"), ("(", "not a regular expression"), (r"(\d)(\d)", "one group")],
)
def test_an_unclear_date_source_is_refused(photos: Path, date_from: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list_table(str(photos), date_from=date_from)


def test_a_sample_of_a_manifest_asks_for_the_versions_of_its_images_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{place}.png" for place in range(40)]
    for path in paths:
        path.write_bytes(b"x")
    pq.write_table(pa.table({"image_uri": [f"{tmp_path}/./{path.name}" for path in paths]}), tmp_path / "m.parquet")
    asked: list[str] = []
    real = storage.stat
    monkeypatch.setattr(storage, "stat", lambda uri: asked.append(uri) or real(uri))
    manifest = list_manifest(str(tmp_path / "m.parquet"), sample=0.3, seed=5)
    drawn = to_table(manifest)["image_uri"].to_pylist()
    assert 0 < len(drawn) < 40
    assert sorted(asked) == sorted(drawn)
    assert manifest.num_outside_sample == 40 - len(drawn)
    # The same images as of the folder: however a manifest spells them.
    assert sorted(drawn) == sorted(
        to_table(list_manifest(f"{tmp_path}/*.png", sample=0.3, seed=5))["image_uri"].to_pylist()
    )
