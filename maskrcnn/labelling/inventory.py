"""S3 Inventory as a manifest: the daily list of a bucket, so that a job need not list it.

Source: Amazon S3 user guide, "Amazon S3 Inventory list" (manifest.json, fileSchema, CSV and Parquet columns).
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from maskrcnn import storage
from maskrcnn.errors import InputError
from maskrcnn.labelling.row_groups import open_parquet, read_batches
from maskrcnn.storage.outside import broken_rule_of_name, is_bucket_name

_NAMES = {
    "PARQUET": {"key": "key", "size": "size", "e_tag": "etag", "last_modified_date": "last_modified"},
    "CSV": {"Key": "key", "Size": "size", "ETag": "etag", "LastModifiedDate": "last_modified"},
}


def is_inventory(document: Any) -> bool:
    """Say whether a JSON document is an S3 Inventory manifest."""
    return isinstance(document, dict) and {"sourceBucket", "fileFormat", "files"} <= document.keys()


def read_inventory(document: dict[str, Any], uri: str) -> Iterator[pa.Table]:
    """Read the files that an inventory manifest names, one after the other.

    Args:
        document: the parsed manifest.json.
        uri: where it lies, for messages; its bucket holds the files.

    Yields:
        image_uri, etag (string), size (int64), last_modified (timestamp[us, UTC]) of the current versions.

    Raises:
        InputError: when the format or the columns cannot be used.
    """
    bucket = str(document.get("destinationBucket", "")).removeprefix("arn:aws:s3:::")
    if bucket and not is_bucket_name(bucket):
        raise InputError("the inventory's destinationBucket", f"must be a bucket's name, got {bucket!r:.100}", uri)
    base = f"s3://{bucket}" if bucket else uri.rsplit("/", 1)[0]
    if not document["files"]:
        raise InputError("the inventory", "names no files", uri)
    file_format = str(document["fileFormat"]).upper()
    if file_format not in _NAMES:
        raise InputError("the inventory's fileFormat", f"must be Parquet or CSV, got {file_format}", uri)
    source_bucket = str(document["sourceBucket"])
    if not is_bucket_name(source_bucket):
        raise InputError("the inventory's sourceBucket", f"must be a bucket's name, got {source_bucket!r:.100}", uri)
    for file in document["files"]:
        key = str(file["key"])
        if rule := broken_rule_of_name(key):
            raise InputError(f"the inventory's file {key!r:.200}", rule, uri)
        file_uri = storage.join(base, key)
        is_csv = file_format == "CSV"
        for rows in _read_csv(file_uri, str(document["fileSchema"])) if is_csv else _read_parquet(file_uri):
            named = _named_columns(rows, _NAMES[file_format], uri)
            yield _current_objects(named, source_bucket)


def _read_parquet(file_uri: str) -> Iterator[pa.Table]:
    with storage.open_input(file_uri) as file:
        for batch in read_batches(open_parquet(file)):
            yield pa.Table.from_batches([batch])


def _read_csv(file_uri: str, schema: str) -> Iterator[pa.Table]:
    body = storage.read_bytes(file_uri)
    fields = [name.strip() for name in schema.split(",")]
    types = dict.fromkeys(fields, pa.string()) | {"Size": pa.int64(), "LastModifiedDate": pa.timestamp("us", tz="UTC")}
    packed = io.BytesIO(body)
    lines = io.BufferedReader(gzip.GzipFile(fileobj=packed) if body[:2] == b"\x1f\x8b" else packed)
    if not lines.peek(1):
        return
    batches = pa_csv.open_csv(
        lines,
        read_options=pa_csv.ReadOptions(column_names=fields),
        convert_options=pa_csv.ConvertOptions(column_types=types),
    )
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        yield rows.set_column(fields.index("Key"), "Key", _url_decoded(rows["Key"])) if "Key" in fields else rows


def _url_decoded(keys: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decode keys, which are URL-encoded in CSV inventories, and only there."""
    is_encoded = pc.match_substring_regex(keys, "[%+]")
    decoded = [unquote_plus(key) for key in keys.filter(is_encoded).to_pylist()]
    return pc.replace_with_mask(keys, is_encoded.combine_chunks(), pa.array(decoded, pa.string()))


def _named_columns(rows: pa.Table, names: dict[str, str], uri: str) -> pa.Table:
    """Give key, size, etag and last_modified of the latest versions."""
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


def _current_objects(listed: pa.Table, bucket: str) -> pa.Table:
    """Leave out folders and hidden files, and spell the rest as a manifest does."""
    listed = listed.filter(pc.invert(pc.match_substring_regex(listed["key"], r"(^|/)\.[^/]*$|/$")))
    return pa.table(
        {
            "image_uri": pc.binary_join_element_wise(f"s3://{bucket}/", listed["key"], ""),
            "etag": pc.utf8_trim(pc.fill_null(listed["etag"], ""), characters='"'),
            "size": pc.fill_null(listed["size"], 0),
            "last_modified": listed["last_modified"],
        }
    )
