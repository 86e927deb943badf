"""Plans as files: a row group a part, a header that says whose it is, and checksums by which all that is read is right.

Driver and workers read them here alone. Plans of earlier versions have no checksums but those of their pages.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from maskrcnn import storage
from maskrcnn.errors import IntegrityError, OutputError
from maskrcnn.labelling.checksums import open_sealed, seal
from maskrcnn.labelling.plan import PartId, PlannedPart

FORMAT_VERSION = 1
MOST_WRONG_PLANS = 2
"""Bytes that were wrong on the wire are right the next time."""

_HEADER_KEY = b"maskrcnn"
_OF_DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError)
"""What readers of Parquet and JSON raise over wrong bytes."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class PlanHeader:
    """What a plan says of itself, apart from its rows."""

    token: str
    """Tells one driver's plan from another's."""
    settings: dict[str, Any]
    """What every run on this OUTPUT must have in common."""
    rows_per_part: int
    num_rows_by_date: tuple[tuple[str | None, int], ...]
    """In the order of the parts."""

    def parts(self, number: int) -> list[PlannedPart]:
        """List the plan's parts."""
        parts: list[PlannedPart] = []
        for date, num_rows in self.num_rows_by_date:
            for start in range(0, num_rows, self.rows_per_part):
                num_images = min(self.rows_per_part, num_rows - start)
                parts.append(PlannedPart(PartId(number, len(parts)), date, num_images))
        return parts


class PlanFile:
    """A plan, opened for reading.

    Args:
        uri: where it lies.

    Raises:
        IntegrityError: when its checksums are wrong, or its numbers disagree.
        OutputError: when it is no plan, or a later version's.
        pa.ArrowException, OSError, ValueError, KeyError: when a plan without checksums is damaged; so do reads.
        StorageError: as the store answers; so do reads.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._file = storage.open_input(uri)
        try:
            checked = open_sealed(self._file, uri)
            self._plan = pq.ParquetFile(checked or self._file, page_checksum_verification=True)
            self.header = _parse_header(self._plan, uri, is_checked=checked is not None)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> PlanFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, parts: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows of some parts.

        Args:
            parts: their numbers.
            columns: None: all.
        """
        return self._plan.read_row_groups(list(parts), None if columns is None else list(columns))


def read_plan(uri: str, read: Callable[[PlanFile], _Answer]) -> _Answer:
    """Open a plan, read of it, and close it; once more where what came is damaged.

    Raises:
        IntegrityError: when it was damaged twice.
        OutputError: when it is no plan, or a later version's.
        StorageError: as the store answers.
    """

    def open_and_read() -> _Answer:
        with PlanFile(uri) as plan:
            return read(plan)

    return read_again_if_damaged(uri, open_and_read)


def read_again_if_damaged(uri: str, read: Callable[[], _Answer]) -> _Answer:
    """Read of a plan, at most `MOST_WRONG_PLANS` times, each time from the file's opening on.

    Raises:
        IntegrityError: when it was damaged each time.
        OutputError, StorageError: as ``read`` does.
    """
    for num_tries in range(1, MOST_WRONG_PLANS + 1):
        try:
            return read()
        except (IntegrityError, OutputError, *_OF_DAMAGE) as error:
            if num_tries < MOST_WRONG_PLANS:
                continue
            if isinstance(error, OutputError):
                raise
            reason = error.reason if isinstance(error, IntegrityError) else str(error)
            raise IntegrityError(uri, f"the plan cannot be read: {reason}") from error
    raise AssertionError


def plan_to_parquet(rows: pa.Table, header: PlanHeader) -> bytes:
    """Give a plan as Parquet: a row group a part, so that a worker reads its part's keys and nothing else."""
    text = {
        "format_version": FORMAT_VERSION,
        "has_checksums": True,
        "token": header.token,
        "settings": header.settings,
        "rows_per_part": header.rows_per_part,
        "num_rows_by_date": header.num_rows_by_date,
    }
    metadata = {**(rows.schema.metadata or {}), _HEADER_KEY: json.dumps(text).encode()}
    rows = rows.replace_schema_metadata(metadata)
    sink = io.BytesIO()
    # Statistics would only swell the footer, which every planner reads. The pages' checksums are for other readers.
    options = {"compression": "zstd", "write_statistics": False, "write_page_checksum": True}
    with pq.ParquetWriter(sink, rows.schema, **options) as writer:
        start = 0
        for part in header.parts(0):
            writer.write_table(rows.slice(start, part.num_images), row_group_size=part.num_images)
            start += part.num_images
    seal(sink)
    return sink.getvalue()


def num_rows_by_date(rows: pa.Table) -> tuple[tuple[str | None, int], ...]:
    """Count the rows of each date, in the order of the rows; a date's rows stand together."""
    encoded = rows["date"].combine_chunks().dictionary_encode(null_encoding="encode")
    counts: dict[str | None, int] = {}
    dictionary = encoded.dictionary.to_pylist()
    runs = encoded.indices.value_counts().to_pylist()
    for run in runs:
        counts[dictionary[run["values"]]] = run["counts"]
    return tuple(counts.items())


def _parse_header(plan: pq.ParquetFile, uri: str, *, is_checked: bool) -> PlanHeader:
    metadata = plan.schema_arrow.metadata or {}
    if _HEADER_KEY not in metadata:
        raise OutputError("the plan", "has no header of this program", uri, "is this another program's folder?")
    said = json.loads(metadata[_HEADER_KEY])
    if said["format_version"] > FORMAT_VERSION:
        rule = f"has format {said['format_version']}, this version reads up to {FORMAT_VERSION}"
        raise OutputError("the plan", rule, uri, "upgrade maskrcnn")
    if said.get("has_checksums") and not is_checked:
        raise IntegrityError(uri, "its checksums are gone")
    by_date = tuple((date, num_rows) for date, num_rows in said["num_rows_by_date"])
    header = PlanHeader(said["token"], said["settings"], said["rows_per_part"], by_date)
    num_rows = [plan.metadata.row_group(place).num_rows for place in range(plan.num_row_groups)]
    # Summed first: a wrong count could make more parts than fit into memory.
    is_whole = sum(num_rows) == sum(of_date for _, of_date in by_date)
    if not is_whole or num_rows != [part.num_images for part in header.parts(0)]:
        raise IntegrityError(uri, "its row groups are not the parts of its header")
    return header
