"""Parquet files of any size, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_AT_ONCE = 1 << 16
_READ_AHEAD_BYTES = 4 << 20
"""Of a column: a file may be one row group."""


def open_parquet(file: BinaryIO) -> pq.ParquetFile:
    """Open a Parquet file to be read in batches."""
    return pq.ParquetFile(file, buffer_size=_READ_AHEAD_BYTES)


def read_batches(file: pq.ParquetFile, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Read a file's rows, or some columns of them.

    One row group after the other: asked for all of them, pyarrow keeps what it has read until the last is done.
    """
    for group in range(file.num_row_groups):
        yield from file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=columns)
