"""The predictions table: one part as Parquet, and the current rows read back."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from maskrcnn.coco import rle
from maskrcnn.config import MasksKept
from maskrcnn.labelling.columns import INSTANCE_TYPE, RESERVED_COLUMNS, SCHEMA
from maskrcnn.labelling.current import CurrentRows
from maskrcnn.labelling.results import ImageResult
from maskrcnn.redaction import redact

MAX_MESSAGE_CHARS = 500


@dataclass(frozen=True)
class RunStamp:
    """What every row of a run has in common."""

    run_id: str
    bundle_sha256: str
    score_threshold: float
    category_names: dict[int, str]
    masks: MasksKept


def build_part(keys: pa.Table, results: Sequence[ImageResult], stamp: RunStamp) -> pa.Table:
    """Build the rows of one part, in the order of its plan.

    Args:
        keys: the part's rows of the plan: image_uri, etag, attempt, perhaps image_id, and the user's columns.
        results: one an image, in the same order.
        stamp: what the rows have in common.
    """
    num_rows = len(keys)
    columns: dict[str, Any] = {
        "image_uri": keys["image_uri"],
        "etag": keys["etag"],
        "attempt": keys["attempt"],
        "image_id": keys["image_id"] if "image_id" in keys.column_names else pa.nulls(num_rows),
        "width": [result.width for result in results],
        "height": [result.height for result in results],
        "status": ["ok" if result.error_kind is None else "error" for result in results],
        "error_kind": [result.error_kind for result in results],
        "error_message": [_cleaned(result.error_message) for result in results],
        "num_instances": [result.num_instances for result in results],
        "instances": _instances(results, stamp.category_names),
        "masks": _masks(results, stamp.masks),
        "run_id": [stamp.run_id] * num_rows,
        "bundle_sha256": [stamp.bundle_sha256] * num_rows,
        "score_threshold": [stamp.score_threshold] * num_rows,
        "labelled_at": [result.labelled_at for result in results],
    }
    arrays = [_as_type(columns[column.name], column.type) for column in SCHEMA]
    names = list(SCHEMA.names)
    for name in keys.column_names:
        if name not in RESERVED_COLUMNS:
            arrays.append(keys[name])
            names.append(name)
    return pa.table(arrays, names=names)


def part_to_parquet(rows: pa.Table) -> bytes:
    """Give a part as Parquet that every common engine reads: zstd, no engine's own types."""
    sink = io.BytesIO()
    pq.write_table(rows.replace_schema_metadata(None), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def read_predictions(
    uri: str, *, columns: Collection[str] | None = None, dates: Collection[str] | None = None
) -> pa.Table:
    """Read the current rows of a labelling job's output: one row an image, of its newest version and last attempt.

    Args:
        uri: the OUTPUT of the job.
        columns: the columns wanted, None for all; leaving out masks makes it several times faster.
        dates: only these ``date=`` partitions, None for all.

    Returns:
        A table of the columns that README.md lists.

    Raises:
        InputError: when there is no table, or no such column.
    """
    return CurrentRows(uri, dates=dates).read(columns)


def _instances(results: Sequence[ImageResult], category_names: dict[int, str]) -> pa.Array:
    """Give the instances of all images as one list column, built from flat arrays rather than row by row."""
    found = [result.detections for result in results if result.detections is not None]
    category_ids = np.concatenate([np.asarray(one.category_ids) for one in found] or [np.zeros(0, np.int64)])
    scores = np.concatenate([np.asarray(one.scores) for one in found] or [np.zeros(0, np.float32)])
    boxes = np.concatenate([np.asarray(one.boxes) for one in found] or [np.zeros((0, 4), np.float32)])
    areas = [rle.area(mask) for one in found for mask in one.rles]
    x, y, w, h = xyxy_to_xywh(boxes).T
    struct = pa.StructArray.from_arrays(
        [
            pa.array(category_ids, pa.int32()),
            pa.array([category_names[int(category_id)] for category_id in category_ids], pa.string()),
            pa.array(scores, pa.float32()),
            *(pa.array(np.ascontiguousarray(side), pa.float32()) for side in (x, y, w, h)),
            # Without masks there is no area of a mask.
            pa.array(areas, pa.int32()) if len(areas) == len(scores) else pa.nulls(len(scores), pa.int32()),
        ],
        fields=list(INSTANCE_TYPE),
    )
    return _lists(results, struct)


def xyxy_to_xywh(boxes: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Turn (N, 4) corners into corner and size; absolute px in both."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _masks(results: Sequence[ImageResult], kept: MasksKept) -> pa.Array:
    if kept == "none":
        return pa.nulls(len(results), pa.list_(pa.binary()))
    found = (result.detections for result in results if result.detections is not None)
    counts = [mask["counts"] for one in found for mask in one.rles]
    return _lists(results, pa.array(counts, pa.binary()))


def _lists(results: Sequence[ImageResult], values: pa.Array) -> pa.Array:
    """Cut flat values into one list an image; images that failed have null, not an empty list."""
    ends = np.cumsum([result.num_instances for result in results], dtype=np.int32)
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    is_null = pa.array([result.detections is None for result in results], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=is_null)


def _cleaned(message: str | None) -> str | None:
    return None if message is None else redact(message)[:MAX_MESSAGE_CHARS]


def _as_type(values: Any, wanted: pa.DataType) -> Any:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values if values.type == wanted else pc.cast(values, wanted)
    return pa.array(values, wanted)
