"""The decisions of the exactly-once protocol: what to plan, who won, what is left, what is current.

Pure functions over Arrow tables and integers; they do no I/O and know no clock, so that the same code runs in the job
and in the simulation that explores its interleavings. ``protocol.py`` says in which order they are asked.

The key of an image is (image_uri, etag). A *manifest* has one row an image: image_uri, etag, size, date, and more.
The *planned* rows are those of every plan so far: image_uri, etag, attempt. *Failed* rows are table rows with an
error: image_uri, etag, attempt, error_kind.
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

from maskrcnn.storage import PutAnswer

PLANNED_COLUMNS = ("image_uri", "etag", "attempt")

NO_DATE = "__HIVE_DEFAULT_PARTITION__"
"""The date of an image without one, where the others have one: readers of Hive-style paths give null for it."""

_PART_FILE = re.compile(r"part-(\d{6})-(\d{5,})\.parquet$")

# Never in a URI: `storage.normalise` refuses NUL.
_SEPARATOR = pa.scalar("\0", pa.large_string())


@dataclass(frozen=True, order=True)
class PartId:
    """One part of one plan: both count as their files' names do, plans from 1, parts from 0."""

    plan: int
    part: int

    @property
    def file_name(self) -> str:
        """The part's file in the table."""
        return f"part-{self.plan:06d}-{self.part:05d}.parquet"


@dataclass(frozen=True)
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


def keys(table: pa.Table) -> pa.ChunkedArray:
    """Give every row's (image_uri, etag) as one string."""
    return pc.binary_join_element_wise(_large(table["image_uri"]), _large(table["etag"]), _SEPARATOR)


def drop_repeats(manifest: pa.Table) -> pa.Table:
    """Keep the first row of every image_uri, in order."""
    codes = pc.dictionary_encode(_large(manifest["image_uri"])).combine_chunks().indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    if len(first) == len(codes):
        return manifest
    return manifest.take(pa.array(np.sort(first)))


def plan_rows(
    manifest: pa.Table, planned: pa.Table, failed: pa.Table, retry_kinds: Collection[str], rows_per_part: int
) -> pa.Table:
    """Decide what the next plan holds: images never planned, and failed ones to be tried again.

    Args:
        manifest: what there is; image_uri unique.
        planned: what every plan so far holds, at least for the manifest's dates.
        failed: rows of the table with an error.
        retry_kinds: the error kinds to try again.
        rows_per_part: images in a part, at most; a part has one date.

    Returns:
        The manifest's columns, with attempt (int16) and part (int32), in part order; no rows: nothing to plan.
    """
    new = manifest.filter(pa.array(~_is_planned(manifest, planned)))
    rows = new.append_column("attempt", pa.array(np.ones(len(new), np.int16)))
    if len(failed):
        rows = pa.concat_tables([rows, _to_retry(manifest, planned, failed, retry_kinds)])
    order = pc.sort_indices(_dates(rows)) if rows["date"].null_count < len(rows) else None
    rows = rows if order is None else rows.take(order)
    return rows.append_column("part", pa.array(cut_into_parts(_dates(rows), rows_per_part)))


def _is_planned(manifest: pa.Table, planned: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mark the rows of the manifest whose key is planned, without building every key: they are most of the memory."""
    uris, planned_uris = _large(manifest["image_uri"]), _large(planned["image_uri"])
    places = pc.index_in(uris, value_set=planned_uris)
    has_etag = pc.equal(_large(manifest["etag"]), _large(planned["etag"]).take(places))
    is_planned: np.ndarray[Any, np.dtype[np.bool_]] = pc.fill_null(has_etag, False).to_numpy().copy()
    # That was the first plan of each URI; a changed image may stand in a later one, under its new etag.
    is_open = places.is_valid().to_numpy() & ~is_planned
    if is_open.any():
        changed = manifest.filter(pa.array(is_open))
        versions = planned.filter(pc.is_in(planned_uris, value_set=_large(changed["image_uri"])))
        is_planned[is_open] = pc.is_in(keys(changed), value_set=keys(versions)).to_numpy()
    return is_planned


def _to_retry(manifest: pa.Table, planned: pa.Table, failed: pa.Table, retry_kinds: Collection[str]) -> pa.Table:
    """Find the failed rows to plan once more: still listed, of a kind to retry, and not planned again already."""
    is_kind = pc.is_in(failed["error_kind"], value_set=pa.array(list(retry_kinds), pa.string()))
    candidates = failed.filter(is_kind)
    attempts = pc.add(candidates["attempt"], pa.scalar(1, pa.int16()))
    is_planned = pc.is_in(_attempt_keys(keys(candidates), attempts), value_set=_attempt_keys_of(planned))
    is_listed = pc.is_in(keys(candidates), value_set=keys(manifest))
    is_due = pc.and_(is_listed, pc.invert(is_planned))
    due_keys, due_attempts = keys(candidates).filter(is_due), attempts.filter(is_due)
    # The manifest's row has the columns; the failed row has the attempt.
    places = pc.index_in(due_keys, value_set=keys(manifest))
    return manifest.take(places).append_column("attempt", due_attempts)


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


def _codes(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    codes: np.ndarray[Any, np.dtype[np.int64]] = (
        pc.dictionary_encode(_large(column)).combine_chunks().indices.to_numpy().astype(np.int64)
    )
    return codes


def _dates(rows: pa.Table) -> pa.ChunkedArray:
    return pc.fill_null(rows["date"], NO_DATE)


def _attempt_keys_of(planned: pa.Table) -> pa.ChunkedArray:
    return _attempt_keys(keys(planned), planned["attempt"])


def _attempt_keys(row_keys: pa.ChunkedArray, attempts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(row_keys, attempts.cast(pa.large_string()), _SEPARATOR)


def _large(column: pa.ChunkedArray) -> pa.ChunkedArray:
    # 64-bit offsets: ten million URIs are more than 2 GiB of text.
    return column.cast(pa.large_string())
