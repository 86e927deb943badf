"""The current rows of the predictions table: found by their keys, then read whole or as a stream."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from maskrcnn import storage
from maskrcnn.coco.packed import PackedBytes
from maskrcnn.errors import InputError
from maskrcnn.labelling.columns import SCHEMA
from maskrcnn.labelling.plan import NO_DATE, current_rows, current_rows_by_date, parse_part_date, parse_part_id

FILES_AT_ONCE = 16
READ_BUFFER_BYTES = 1 << 20


class CurrentRows:
    """The current rows of a labelling job's output: found by their keys once, then read as often as wanted.

    Args:
        uri: the OUTPUT of the job.
        dates: only these ``date=`` partitions, None for all.
        by_date: an image that was overwritten has a current row in each of its ``date=`` partitions.

    Raises:
        InputError: when there is no table.
    """

    def __init__(self, uri: str, *, dates: Collection[str] | None = None, by_date: bool = False) -> None:
        self.uri = uri
        output_uri = storage.normalise(uri)
        listed = sorted(storage.list_uris(storage.join(output_uri, "table")))
        self._part_uris = [part_uri for part_uri in listed if _is_wanted(part_uri, dates)]
        if not self._part_uris and not storage.list_uris(storage.join(output_uri, "plans")):
            raise InputError("--predictions", "holds no labelled images", uri, "name the --output of a labelling job")
        self._schemas: list[pa.Schema] = []
        self._is_current: list[NDArray[np.bool_]] = []
        if self._part_uris:
            self._find_current(current_rows_by_date if by_date else current_rows)

    def _find_current(self, find: Callable[[pa.Table], NDArray[np.bool_]]) -> None:
        keys_by_part: list[pa.Table] = []
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            for keys, schema in pool.map(_read_keys, self._part_uris):
                keys_by_part.append(keys)
                if schema not in self._schemas:
                    self._schemas.append(schema)
        ends = np.cumsum([len(keys) for keys in keys_by_part])
        self._is_current = np.split(find(pa.concat_tables(keys_by_part)), ends[:-1])

    def __len__(self) -> int:
        return sum(int(mask.sum()) for mask in self._is_current)

    @property
    def has_dates(self) -> bool:
        """Whether the table lies in ``date=`` folders."""
        return any(parse_part_date(part_uri) is not None for part_uri in self._part_uris)

    def schema(self, columns: Collection[str] | None = None) -> pa.Schema:
        """Give some columns with their types, None for all; a column may be of some parts only.

        Raises:
            InputError: no such column, or one that has different types in different parts.
        """
        names = list(dict.fromkeys(name for each in self._schemas or [SCHEMA] for name in each.names))
        wanted = names if columns is None else list(columns)
        if unknown := [name for name in wanted if name not in names]:
            raise InputError(f"column {unknown[0]}", f"is not in the table, which has {', '.join(names)}", self.uri)
        fields = []
        for name in wanted:
            found = [each.field(name) for each in self._schemas or [SCHEMA] if name in each.names]
            try:
                fields.append(pa.unify_schemas([pa.schema([one]) for one in found], promote_options="permissive")[0])
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                types = " and ".join(dict.fromkeys(str(one.type) for one in found))
                raise InputError(f"column {name}", f"must have one type, and has {types}", self.uri) from None
        return pa.schema(fields)

    def read(self, columns: Collection[str] | None = None) -> pa.Table:
        """Read some columns of every row, None for all."""
        schema = self.schema(columns)
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            parts = list(pool.map(lambda place: self._read_part(place, schema), range(len(self._part_uris))))
        return pa.concat_tables([schema.empty_table(), *parts])

    def _read_part(self, place: int, schema: pa.Schema) -> pa.Table:
        part_uri = self._part_uris[place]
        with _readable(part_uri), storage.open_input(part_uri) as file:
            part = pq.ParquetFile(file)
            names = [name for name in schema.names if name in part.schema_arrow.names]
            rows = _as_schema(part.read(columns=names), schema)
        return rows.filter(pa.array(self._is_current[place]))

    def batches(
        self, columns: Collection[str], *, is_wanted: NDArray[np.bool_] | None = None, batch_size: int = 32
    ) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        """Stream some columns, never holding more than a few rows.

        Args:
            columns: their names; ``date`` is the one of the row's ``date=`` folder, null without.
            is_wanted: (num_rows,) which of the current rows; None for all. Parts without any are not opened.
            batch_size: rows read at once, of which some may not be current or wanted.

        Yields:
            (n,) places among the current rows, ascending, and these rows.
        """
        stored = self.schema([name for name in columns if name != "date"] or ["image_uri"])
        begin = 0
        for part_uri, is_current in zip(self._part_uris, self._is_current, strict=True):
            places = begin + np.cumsum(is_current) - 1
            begin += int(is_current.sum())
            is_read = is_current if is_wanted is None else is_current & is_wanted[np.maximum(places, 0)]
            if is_read.any():
                for start, rows in _part_batches(part_uri, stored, batch_size):
                    kept = is_read[start : start + len(rows)]
                    rows = rows.filter(pa.array(kept))
                    if len(rows):
                        dated = _with_date(rows, part_uri) if "date" in columns else rows
                        yield places[start : start + len(kept)][kept], dated.select(list(columns))


def check_masks(rows: pa.Table, place: str) -> None:
    """Refuse rows of which one has other numbers of masks and of instances.

    Args:
        rows: image_uri, instances and masks.
        place: the table, for messages.

    Raises:
        InputError: naming the first one.
    """
    counts, masks = pc.list_value_length(rows["instances"]), pc.list_value_length(rows["masks"])
    differs = pc.fill_null(pc.not_equal(counts, masks), False)
    if pc.any(differs).as_py():
        uri = rows.filter(differs)["image_uri"][0].as_py()
        raise InputError(f"masks of {uri}", "must be as many as its instances, and are not", place)


def pack_masks(masks: pa.ChunkedArray) -> PackedBytes:
    """Take over a column of compressed masks as it lies in memory; null is empty."""
    chunks = masks.cast(pa.binary()).chunks  # other tools write other types of the same
    return PackedBytes.concatenate([_pack_binary(chunk) for chunk in chunks])


def _pack_binary(masks: pa.Array) -> PackedBytes:
    if not len(masks):
        return PackedBytes.from_list([])
    _, offsets, content = masks.buffers()
    bounds = np.frombuffer(offsets, np.int32)[masks.offset : masks.offset + len(masks) + 1].astype(np.int64)
    body = np.frombuffer(content, np.uint8)[bounds[0] : bounds[-1]] if content else np.zeros(0, np.uint8)
    return PackedBytes(body, bounds - bounds[0])


@contextmanager
def _readable(part_uri: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        rule = f"must be whole Parquet: {' '.join(str(error).split())[:200]}"
        raise InputError("a part of the table", rule, part_uri) from error


def _is_wanted(uri: str, dates: Collection[str] | None) -> bool:
    if parse_part_id(uri) is None:
        return False
    return dates is None or parse_part_date(uri) in dates


def _read_keys(part_uri: str) -> tuple[pa.Table, pa.Schema]:
    part_id = parse_part_id(part_uri)
    assert part_id is not None
    with _readable(part_uri), storage.open_input(part_uri) as file:
        part = pq.ParquetFile(file, page_checksum_verification=True)
        keys = part.read(columns=["image_uri", "etag", "attempt"])
        schema = part.schema_arrow.remove_metadata()
    keys = keys.append_column("plan", pa.array(np.full(len(keys), part_id.plan)))
    return _with_date(keys, part_uri), schema


def _part_batches(part_uri: str, schema: pa.Schema, batch_size: int) -> Iterator[tuple[int, pa.Table]]:
    """Read a part piece by piece; a part's masks alone can be hundreds of MB."""
    with _readable(part_uri), storage.open_input(part_uri) as file:
        part = pq.ParquetFile(file, buffer_size=READ_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True)
        names = [name for name in schema.names if name in part.schema_arrow.names]
        start = 0
        for batch in part.iter_batches(batch_size=batch_size, columns=names):
            yield start, _as_schema(pa.table(batch), schema)
            start += len(batch)


def _as_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give the rows these columns; nulls where the part does not have one."""
    arrays = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def _with_date(rows: pa.Table, part_uri: str) -> pa.Table:
    date = parse_part_date(part_uri)
    return rows.append_column("date", pa.repeat(pa.scalar(None if date == NO_DATE else date, pa.string()), len(rows)))
