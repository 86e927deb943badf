"""The columns of the predictions table."""

from __future__ import annotations

import pyarrow as pa

INSTANCE_TYPE = pa.struct(
    [
        ("category_id", pa.int32()),
        ("category", pa.string()),
        ("score", pa.float32()),
        ("x", pa.float32()),
        ("y", pa.float32()),
        ("w", pa.float32()),
        ("h", pa.float32()),
        ("area", pa.int32()),
    ]
)

SCHEMA = pa.schema(
    [
        ("image_uri", pa.string()),
        ("etag", pa.string()),
        ("attempt", pa.int16()),
        ("image_id", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("status", pa.string()),
        ("error_kind", pa.string()),
        ("error_message", pa.string()),
        ("num_instances", pa.int32()),
        ("instances", pa.list_(INSTANCE_TYPE)),
        ("masks", pa.list_(pa.binary())),
        ("run_id", pa.string()),
        ("bundle_sha256", pa.string()),
        ("score_threshold", pa.float32()),
        ("labelled_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""The columns of every table; the manifest's own columns follow."""

PLAN_ONLY_COLUMNS = frozenset({"part", "size", "date"})
"""Columns of a plan that are not carried into the table (the date is in the path)."""

RESERVED_COLUMNS = frozenset(SCHEMA.names) | PLAN_ONLY_COLUMNS | {"plan"}


def is_text(type_: pa.DataType) -> bool:
    """Say whether a column of this type can hold texts; some writers give them as binary, or in a dictionary."""
    value_type = type_.value_type if pa.types.is_dictionary(type_) else type_
    of_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    of_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(is_one(value_type) for is_one in (*of_text, *of_bytes, pa.types.is_null))
