"""S3 Inventory as a manifest."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskrcnn import storage
from maskrcnn.errors import InputError
from maskrcnn.labelling.listing import list_manifest
from tests.planning import to_table

INVENTORY = {
    "sourceBucket": "photos",
    "destinationBucket": "arn:aws:s3:::INVENTORY",
    "version": "2016-11-30",
    "fileSchema": "Bucket, Key, Size, LastModifiedDate, ETag",
}


def test_an_inventory_in_csv_is_a_manifest(bucket: str) -> None:
    time = "2026-11-22T05:00:00.000Z"
    rows = f'"photos","a%20b/%C3%BC.jpg","5","{time}","abc"\n"photos","folder/","0","{time}","d"\n'
    storage.put(f"{bucket}/inv/data/1.csv.gz", gzip.compress(rows.encode()))
    document = {**INVENTORY, "destinationBucket": f"arn:aws:s3:::{bucket.removeprefix('s3://')}", "fileFormat": "CSV"}
    storage.put(
        f"{bucket}/inv/manifest.json", json.dumps({**document, "files": [{"key": "inv/data/1.csv.gz"}]}).encode()
    )
    listed = to_table(list_manifest(f"{bucket}/inv/manifest.json", date_from="last-modified"))
    expected = {"image_uri": "s3://photos/a b/ü.jpg", "etag": "abc", "size": 5, "date": "2026-11-22"}
    assert listed.to_pylist() == [expected]


def test_an_inventory_in_parquet_gives_the_latest_versions(bucket: str, tmp_path: Path) -> None:
    rows = pa.table(
        {
            "bucket": ["photos"] * 3,
            "key": ["a.jpg", "a.jpg", "gone.jpg"],
            "is_latest": [True, False, True],
            "is_delete_marker": [False, False, True],
            "size": [5, 4, None],
            "last_modified_date": [datetime(2026, 11, 22, tzinfo=UTC)] * 3,
            "e_tag": ["new", "old", None],
        }
    )
    pq.write_table(rows, tmp_path / "1.parquet")
    storage.put(f"{bucket}/data/1.parquet", (tmp_path / "1.parquet").read_bytes())
    document = {**INVENTORY, "destinationBucket": f"arn:aws:s3:::{bucket.removeprefix('s3://')}"}
    document = {**document, "fileFormat": "Parquet", "files": [{"key": "data/1.parquet"}]}
    storage.put(f"{bucket}/manifest.json", json.dumps(document).encode())
    listed = to_table(list_manifest(f"{bucket}/manifest.json"))
    assert listed.to_pylist() == [{"image_uri": "s3://photos/a.jpg", "etag": "new", "size": 5, "date": None}]


TIME = datetime(2026, 11, 22, tzinfo=UTC)


def write_csv(path: Path, keys: list[str]) -> None:
    lines = [f'"photos","{key}","{len(key)}","2026-11-22T00:00:00.000Z","{path.stem}"\n' for key in keys]
    path.write_bytes(gzip.compress("".join(lines).encode()))


def write_parquet(path: Path, keys: list[str]) -> None:
    columns = {"key": keys, "size": [len(key) for key in keys], "last_modified_date": [TIME] * len(keys)}
    rows = pa.table({**columns, "e_tag": [path.stem] * len(keys)})
    pq.write_table(rows, path, row_group_size=3)


def write_inventory(folder: Path, **changes: Any) -> str:
    document = {**INVENTORY, "destinationBucket": "", **changes}
    (folder / "manifest.json").write_text(json.dumps(document))
    return str(folder / "manifest.json")


@pytest.mark.parametrize(("file_format", "write"), [("CSV", write_csv), ("Parquet", write_parquet)])
def test_an_inventory_of_many_files_is_one_manifest(tmp_path: Path, file_format: str, write: Any) -> None:
    keys = {f"{number:02d}": [f"{number:02d}/{place}.jpg" for place in range(10)] for number in range(30)}
    keys["07"] = []
    keys["29"][5] = keys["03"][4]
    for name, some in keys.items():
        write(tmp_path / name, some)
    uri = write_inventory(tmp_path, fileFormat=file_format, files=[{"key": name} for name in keys])
    manifest = list_manifest(uri, date_from="last-modified")
    listed = to_table(manifest)
    expected = [(f"s3://photos/{key}", name) for name, some in keys.items() for key in some]
    expected.remove(("s3://photos/03/4.jpg", "29"))
    assert list(zip(listed["image_uri"].to_pylist(), listed["etag"].to_pylist(), strict=True)) == expected
    assert manifest.num_bytes == sum(len(uri) for uri, _ in expected) - len("s3://photos/") * len(expected)
    assert manifest.dates == {"2026-11-22"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fileFormat": "ORC", "files": [{"key": "a"}]}, "fileFormat must be Parquet or CSV, got ORC"),
        ({"fileFormat": "CSV", "files": []}, "the inventory names no files"),
        (
            {"fileFormat": "CSV", "fileSchema": "Bucket, Key, Size, LastModifiedDate, Other", "files": [{"key": "a"}]},
            "ETag is missing",
        ),
        (
            {"fileFormat": "CSV", "fileSchema": "Bucket, Name, Size, LastModifiedDate, ETag", "files": [{"key": "a"}]},
            "Key is missing",
        ),
    ],
)
def test_an_inventory_that_cannot_be_used_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_csv(tmp_path / "a", ["1.jpg"])
    with pytest.raises(InputError, match=message):
        list_manifest(write_inventory(tmp_path, **changes))
