"""The table with one row a detection, as Parquet, for SQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from maskrcnn.exports.rows import DetectionBatch, Exported
from maskrcnn.labelling.columns import INSTANCE_TYPE, SCHEMA
from maskrcnn.labelling.current import CurrentRows

IMAGE_COLUMNS = ("image_uri", "etag", "image_id", "width", "height")
RUN_COLUMNS = ("run_id", "bundle_sha256", "labelled_at")
DETECTION_FIELDS = [pa.field("detection", pa.int32()), *INSTANCE_TYPE, pa.field("mask", pa.binary())]
RANK = pa.field("sample_rank", pa.int64())

ROWS_PER_GROUP = 50_000
BYTES_PER_GROUP = 32 << 20


def write_flat(file: BinaryIO, exported: Exported, *, is_sample: bool) -> int:
    """Write every exported detection, in the table's order, and count them.

    Columns: those of the image, the detection's place in it from 0, its category, score, box, area and mask, where it
    comes from, the ``date`` of a table in folders by date, the user's own, and for a sample the image's rank from 1.
    """
    rows = exported.rows
    own = [name for name in rows.schema().names if name not in SCHEMA.names]
    from_image = [*IMAGE_COLUMNS, *RUN_COLUMNS, *(["date"] if rows.has_dates else []), *own]
    schema = _flat_schema(rows, from_image, own, is_sample)
    num_rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        flat = (
            _flat_rows(batch, schema, exported.survey.numbers if is_sample else None)
            for batch in exported.detections(from_image)
        )
        for group in _groups(flat):
            writer.write_table(group, row_group_size=len(group))
            num_rows += len(group)
    return num_rows


def _flat_schema(rows: CurrentRows, from_image: list[str], own: list[str], is_sample: bool) -> pa.Schema:
    stored = rows.schema([name for name in from_image if name != "date"])
    image_fields = [stored.field(name) if name != "date" else pa.field("date", pa.string()) for name in from_image]
    detection_names = {field.name for field in (*DETECTION_FIELDS, RANK)}
    taken = {*detection_names, *from_image}
    renamed = []
    for field in image_fields:
        name = field.name
        if name in own and name in detection_names:
            while name in taken:
                name = f"image_{name}"
            taken.add(name)
        renamed.append(field.with_name(name))
    split = len(IMAGE_COLUMNS)
    ranks = [RANK] if is_sample else []
    return pa.schema([*renamed[:split], *DETECTION_FIELDS, *renamed[split:], *ranks])


def _groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Gather rows into groups of a good size for readers, bounded in bytes."""
    held: list[pa.Table] = []
    num_rows = num_bytes = 0
    for table in tables:
        if not len(table):
            continue
        held.append(table)
        num_rows, num_bytes = num_rows + len(table), num_bytes + table.nbytes
        if num_rows >= ROWS_PER_GROUP or num_bytes >= BYTES_PER_GROUP:
            yield pa.concat_tables(held)
            held, num_rows, num_bytes = [], 0, 0
    if held:
        yield pa.concat_tables(held)


def _flat_rows(batch: DetectionBatch, schema: pa.Schema, numbers: NDArray[np.int64] | None) -> pa.Table:
    repeated = [column.combine_chunks() for column in batch.images.take(pa.array(batch.of_image)).columns]
    split = len(IMAGE_COLUMNS)
    detection = [pa.array(batch.index.astype(np.int32)), *batch.instances.flatten(), batch.masks]
    ranks = [] if numbers is None else [pa.array(numbers[batch.places][batch.of_image] + 1)]
    return pa.table([*repeated[:split], *detection, *repeated[split:], *ranks], schema=schema)
