"""The date of an image, for the table's ``date=`` folders: from its time, a column, or its URI."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from maskrcnn.errors import InputError
from maskrcnn.labelling.columns import is_text
from maskrcnn.labelling.plan import NO_DATE

_ISO = "%Y-%m-%d"


def with_date(manifest: pa.Table, date_from: str | None) -> pa.Table:
    """Add a column date (string, YYYY-MM-DD): null for all without ``date_from``, ``NO_DATE`` where none is found.

    Raises:
        InputError: when the manifest has a column date that is not the one asked for, or ``date_from`` is unclear.
    """
    if "date" in manifest.column_names and date_from != "date":
        rule = "would collide with the date= folders of the table"
        raise InputError("manifest column date", rule, remedy="rename it, or use it: --date-from date")
    if date_from is None:
        return manifest.append_column("date", pa.nulls(len(manifest), pa.string()))
    dates = pc.fill_null(_dates(manifest, date_from), NO_DATE)
    if "date" in manifest.column_names:
        manifest = manifest.drop_columns(["date"])
    return manifest.append_column("date", dates)


def _dates(manifest: pa.Table, date_from: str) -> pa.ChunkedArray:
    if date_from == "last-modified":
        if "last_modified" not in manifest.column_names:
            raise InputError("--date-from last-modified", "needs an input that tells the time, this manifest does not")
        return pc.strftime(manifest["last_modified"], format=_ISO)
    if date_from in manifest.column_names:
        return _of_column(manifest[date_from], date_from)
    return iso_dates(_matches(manifest["image_uri"], _parse_pattern(date_from, manifest.column_names)))


def _of_column(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    is_time = pa.types.is_date(column.type) or pa.types.is_timestamp(column.type)
    if not is_time and not pa.types.is_integer(column.type) and not is_text(column.type):
        raise InputError(f"--date-from {name}", f"must be a column of dates, times or text, and is {column.type}")
    try:
        if not is_time:
            return iso_dates(column.cast(pa.string()))
        times = pc.cast(column, options=pc.CastOptions(pa.timestamp("us"), allow_time_truncate=True))
    except pa.ArrowInvalid as error:
        raise InputError(f"--date-from {name}", f"must be a column of dates, times or text: {error}") from error
    return pc.strftime(times, format=_ISO)


def _parse_pattern(date_from: str, column_names: list[str]) -> re.Pattern[str]:
    try:
        pattern = re.compile(date_from)
    except re.error as error:
        raise InputError("--date-from", f"is not a regular expression: {error}", date_from) from error
    if pattern.groups != 1:
        own = ", ".join(name for name in column_names if name not in {"image_uri", "etag", "size", "last_modified"})
        rule = (
            f"must be last-modified, a column ({own or 'this input has none'}) or a regular expression with one group"
        )
        raise InputError("--date-from", f"{rule}, got {date_from}")
    return pattern


def _matches(uris: pa.ChunkedArray, pattern: re.Pattern[str]) -> pa.ChunkedArray:
    """Search every URI; a chunk at a time, so that only a chunk is ever Python objects."""
    chunks = [
        pa.array([found[1] if (found := pattern.search(uri)) else None for uri in chunk.to_pylist()], pa.string())
        for chunk in uris.chunks
    ]
    return pa.chunked_array(chunks, pa.string())


def iso_dates(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read 2026-11-22 and 20261122; anything else is null, as are days that no calendar has."""
    found = pc.extract_regex(texts, r"^(?P<year>\d{4})-?(?P<month>[01]\d)-?(?P<day>[0-3]\d)")
    dates = pc.binary_join_element_wise(*(pc.struct_field(found, [i]) for i in range(3)), "-")
    days = dates.unique()
    # A 30th of February is read as the 2nd of March.
    read = pc.strftime(pc.strptime(days, format=_ISO, unit="s", error_is_null=True), format=_ISO)
    return pc.if_else(pc.is_in(dates, value_set=days.filter(pc.equal(read, days))), dates, None)
