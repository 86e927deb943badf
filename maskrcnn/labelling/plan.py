"""The decisions of the exactly-once protocol: what to plan, who won, what is left, what is current.

Pure functions over Arrow tables and integers; they do no I/O and know no clock, so that the same code runs in the job
and in the simulation that explores its interleavings. ``protocol.py`` says in which order they are asked.

The key of an image is (image_uri, etag). A *manifest* has one row an image: image_uri, etag, size, date, and more.
*Planned* and *failed* attempts are known by the digests of their keys.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskrcnn.labelling.digests import Digests, Records, places_in
from maskrcnn.storage import PutAnswer

PLANNED_COLUMNS = ("image_uri", "etag", "attempt")

NO_DATE = "__HIVE_DEFAULT_PARTITION__"
"""The date of an image without one, where the others have one: readers of Hive-style paths give null for it."""

_PART_FILE = re.compile(r"part-(\d{6})-(\d{5,})\.parquet$")
_DATED_PART = re.compile(r"/table/date=([^/]+)/[^/]+$")
"""From the end: the way to the table may have date= folders of its own."""

# Never in a URI: `storage.normalise` refuses NUL.
_SEPARATOR = pa.scalar("\0", pa.large_string())


@dataclass(frozen=True, order=True, slots=True)
class PartId:
    """One part of one plan: both count as their files' names do, plans from 1, parts from 0."""

    plan: int
    part: int

    @property
    def file_name(self) -> str:
        """The part's file in the table."""
        return f"part-{self.plan:06d}-{self.part:05d}.parquet"


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """A part as its plan describes it."""

    id: PartId
    date: str | None
    num_images: int


class Settled(enum.Enum):
    """Whose plan stands under a number."""

    OURS = "ours"
    THEIRS = "theirs"
    NOBODYS = "nobody's"


def parse_part_id(uri: str) -> PartId | None:
    """Read a part's number off its file name; None for other files."""
    match = _PART_FILE.search(uri)
    return PartId(int(match[1]), int(match[2])) if match else None


def parse_part_date(uri: str) -> str | None:
    """Read the name of a part's ``date=`` folder off its URI; None for a part that lies in none."""
    match = _DATED_PART.search(uri)
    return match[1] if match else None


def keys(table: pa.Table) -> pa.ChunkedArray:
    """Give every row's (image_uri, etag) as one string."""
    return pc.binary_join_element_wise(_large(table["image_uri"]), _large(table["etag"]), _SEPARATOR)


def repeats(records: Records) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Give the numbers of the records whose digest an earlier record has."""
    is_repeat = places_in(records["digest"], records["digest"]) != np.arange(len(records))
    numbers: np.ndarray[Any, np.dtype[np.int64]] = records["number"][is_repeat]
    return numbers


def next_attempts(listed: Digests, planned: Records, failed: Records) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Decide which attempt at each listed image is to be planned: the first, one more where the last failed, or none.

    Args:
        listed: (num_listed,) digests of the listed keys.
        planned: digests and attempts that plans hold.
        failed: digests and attempts of the failed rows to try again.

    Returns:
        (num_listed,): 0 where nothing is to be planned.
    """
    last_planned = _last_attempts(listed, planned)
    last_failed = _last_attempts(listed, failed)
    # A key's attempts have no hole: a failed one that is not the last is planned again already.
    attempts: np.ndarray[Any, np.dtype[np.int16]] = np.where(last_failed == last_planned, last_planned + 1, 0)
    return attempts.astype(np.int16)


def _last_attempts(listed: Digests, attempted: Records) -> np.ndarray[Any, np.dtype[np.int64]]:
    if len(attempted) == 0:
        return np.zeros(len(listed), np.int64)
    if attempted["number"].max() > 1:
        attempted = attempted[np.argsort(-attempted["number"], kind="stable")]
    places = places_in(listed, attempted["digest"])
    last: np.ndarray[Any, np.dtype[np.int64]] = np.where(places >= 0, attempted["number"][places], 0)
    return last


def cut_plan(rows: pa.Table, rows_per_part: int) -> pa.Table:
    """Order the rows of a plan by date, else as they come, and add their part (int32)."""
    dates = _dates(rows)
    if pc.count_distinct(dates).as_py() > 1:
        rows = rows.take(pc.sort_indices(dates))
    return rows.append_column("part", pa.array(cut_into_parts(_dates(rows), rows_per_part)))


def cut_into_parts(dates: pa.ChunkedArray, rows_per_part: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Number the parts of rows that are sorted by date: no part has two dates or more than ``rows_per_part`` rows."""
    num_rows = len(dates)
    if num_rows == 0:
        return np.zeros(0, np.int32)
    codes = pc.dictionary_encode(dates).combine_chunks().indices.to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    rows_of_date = np.diff(np.append(starts, num_rows))
    place_in_date = np.arange(num_rows) - np.repeat(starts, rows_of_date)
    first_part_of_date = np.cumsum(-(-rows_of_date // rows_per_part)) - (-(-rows_of_date // rows_per_part))
    parts: np.ndarray[Any, np.dtype[np.int32]] = (
        np.repeat(first_part_of_date, rows_of_date) + place_in_date // rows_per_part
    ).astype(np.int32)
    return parts


def settle_plan_put(answer: PutAnswer, own_token: str, found_token: str | None) -> Settled:
    """Say whose plan stands under a number after a put.

    Args:
        answer: what the store said.
        own_token: the token inside our plan.
        found_token: the token read back, None when nothing is there; it is not needed after CREATED.
    """
    if answer is PutAnswer.CREATED:
        return Settled.OURS
    if found_token is None:
        return Settled.NOBODYS
    return Settled.OURS if found_token == own_token else Settled.THEIRS


def parts_left(planned: Iterable[PlannedPart], made: Collection[PartId]) -> list[PlannedPart]:
    """Give the planned parts that the table does not hold, in order."""
    return sorted((part for part in planned if part.id not in made), key=lambda part: part.id)


def complete_dates(planned: Iterable[PlannedPart], made: Collection[PartId]) -> dict[str | None, list[PlannedPart]]:
    """Give the dates of which every planned part is made, each with its parts."""
    by_date: dict[str | None, list[PlannedPart]] = {}
    for part in planned:
        by_date.setdefault(part.date, []).append(part)
    return {date: parts for date, parts in by_date.items() if not parts_left(parts, made)}


def current_rows(rows: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mark the current row of every image_uri: of its newest etag, the highest attempt.

    The newest etag is the one whose first plan has the highest number: a retry does not make an old version new.

    Args:
        rows: image_uri, etag, attempt, and plan (the number in the part's file name).

    Returns:
        (num_rows,) bool; exactly one True an image_uri.
    """
    if len(rows) == 0:
        return np.zeros(0, np.bool_)
    image = _codes(rows["image_uri"])
    version = _codes(keys(rows))
    plan = rows["plan"].to_numpy()
    attempt = rows["attempt"].to_numpy()
    first_plan = np.full(version.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_plan, version, plan)
    newest_plan = np.zeros(image.max() + 1, np.int64)
    np.maximum.at(newest_plan, image, first_plan[version])
    rank = np.where(first_plan[version] == newest_plan[image], attempt.astype(np.int64), -1)
    # The last of each image in (image, rank) order; `lexsort` is stable, so a tie has one winner too.
    order = np.lexsort((rank, image))
    is_last = np.append(image[order][1:] != image[order][:-1], True)
    mask = np.zeros(len(rows), np.bool_)
    mask[order[is_last]] = True
    return mask


def current_rows_by_date(rows: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mark the current row of every image_uri and date; of one version (etag) in several dates, only its last one.

    Args:
        rows: as `current_rows` takes them, and date.

    Returns:
        (num_rows,) bool.
    """
    dated = pc.binary_join_element_wise(_large(_dates(rows)), _large(rows["image_uri"]), _SEPARATOR)
    mask = current_rows(_with_uris(rows, dated))
    kept = rows.filter(pa.array(mask))
    mask[mask] = current_rows(_with_uris(kept, keys(kept)))
    return mask


def _with_uris(rows: pa.Table, uris: pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.column_names.index("image_uri"), "image_uri", uris)


def _codes(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    codes: np.ndarray[Any, np.dtype[np.int64]] = (
        pc.dictionary_encode(_large(column)).combine_chunks().indices.to_numpy().astype(np.int64)
    )
    return codes


def _dates(rows: pa.Table) -> pa.ChunkedArray:
    return pc.fill_null(rows["date"], NO_DATE)


def _large(column: pa.ChunkedArray) -> pa.ChunkedArray:
    # 64-bit offsets: ten million URIs are more than 2 GiB of text.
    return column.cast(pa.large_string())
