"""S3 Inventory as a manifest: the daily list of a bucket, so that a job need not list it.

Source: Amazon S3 user guide, "Amazon S3 Inventory list" (manifest.json, fileSchema, CSV and Parquet columns).
"""

from __future__ import annotations

import gzip
import io
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from maskrcnn import storage
from maskrcnn.errors import InputError

_PARQUET_NAMES = {"key": "key", "size": "size", "e_tag": "etag", "last_modified_date": "last_modified"}
_CSV_NAMES = {"Key": "key", "Size": "size", "ETag": "etag", "LastModifiedDate": "last_modified"}


def is_inventory(document: Any) -> bool:
    """Say whether a JSON document is an S3 Inventory manifest."""
    return isinstance(document, dict) and {"sourceBucket", "fileFormat", "files"} <= document.keys()


def read_inventory(document: dict[str, Any], uri: str) -> pa.Table:
    """Read every file that an inventory manifest names.

    Args:
        document: the parsed manifest.json.
        uri: where it lies, for messages; its bucket holds the files.

    Returns:
        image_uri, etag (string), size (int64), last_modified (timestamp[us, UTC]) of the current versions.

    Raises:
        InputError: when the format or the columns cannot be used.
    """
    bucket = str(document.get("destinationBucket", "")).removeprefix("arn:aws:s3:::")
    base = f"s3://{bucket}" if bucket else uri.rsplit("/", 1)[0]
    tables = [
        _read_file(document, storage.read_bytes(storage.join(base, str(file["key"]))), uri)
        for file in document["files"]
    ]
    if not tables:
        raise InputError("the inventory", "names no files", uri)
    listed = pa.concat_tables(tables)
    is_object = pc.invert(pc.match_substring_regex(listed["key"], r"(^|/)\.[^/]*$|/$"))
    listed = listed.filter(is_object)
    uris = pc.binary_join_element_wise(f"s3://{document['sourceBucket']}/", listed["key"], "")
    return pa.table(
        {
            "image_uri": uris,
            "etag": pc.utf8_trim(pc.fill_null(listed["etag"], ""), characters='"'),
            "size": pc.fill_null(listed["size"], 0),
            "last_modified": listed["last_modified"],
        }
    )


def _read_file(document: dict[str, Any], body: bytes, uri: str) -> pa.Table:
    match str(document["fileFormat"]).upper():
        case "PARQUET":
            rows, names = pq.read_table(io.BytesIO(body)), _PARQUET_NAMES
        case "CSV":
            rows, names = _read_csv(document, body), _CSV_NAMES
        case other:
            raise InputError("the inventory's fileFormat", f"must be Parquet or CSV, got {other}", uri)
    missing = [name for name in names if name not in rows.column_names]
    if missing:
        rule = f"must have the fields {', '.join(names)}; {', '.join(missing)} is missing"
        raise InputError("the inventory", rule, uri, "add them to the bucket's inventory configuration")
    for flag in ("is_latest", "IsLatest"):
        if flag in rows.column_names:
            rows = rows.filter(pc.equal(rows[flag].cast(pa.string()), "true"))
    for flag in ("is_delete_marker", "IsDeleteMarker"):
        if flag in rows.column_names:
            rows = rows.filter(pc.not_equal(pc.fill_null(rows[flag].cast(pa.string()), "false"), "true"))
    types = [pa.string(), pa.int64(), pa.string(), pa.timestamp("us", tz="UTC")]
    return pa.table(
        [rows[name].cast(type_) for name, type_ in zip(names, types, strict=True)], names=list(names.values())
    )


def _read_csv(document: dict[str, Any], body: bytes) -> pa.Table:
    if body[:2] == b"\x1f\x8b":
        body = gzip.decompress(body)
    fields = [name.strip() for name in str(document["fileSchema"]).split(",")]
    types = dict.fromkeys(fields, pa.string()) | {"Size": pa.int64(), "LastModifiedDate": pa.timestamp("us", tz="UTC")}
    rows = pa_csv.read_csv(
        io.BytesIO(body),
        read_options=pa_csv.ReadOptions(column_names=fields),
        convert_options=pa_csv.ConvertOptions(column_types=types),
    )
    # Keys are URL-encoded in CSV inventories, and only there.
    keys = pa.array([unquote_plus(key) for key in rows["Key"].to_pylist()], pa.string())
    return rows.set_column(fields.index("Key"), "Key", keys)
