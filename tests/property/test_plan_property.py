"""Planning drops nothing and repeats nothing, for any manifest, history and part size."""

from __future__ import annotations

from collections import Counter
from unittest import mock

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn.labelling import spill
from maskrcnn.labelling.backlog import Backlog
from maskrcnn.labelling.digests import digest, digest_attempts
from maskrcnn.labelling.manifest import Manifest
from maskrcnn.labelling.plan import current_rows, cut_into_parts
from maskrcnn.labelling.plan_files import PlanHeader, num_rows_by_date
from tests.planning import plan_all
from tests.unit.test_plan import attempts, failed, manifest

URIS = st.text(min_size=1, max_size=4).filter(lambda text: "\0" not in text)
ETAGS = st.sampled_from(["1", "2", "", "ü"])
DATES = st.sampled_from(["2026-11-21", "2026-11-22", "2026-11-23"])


History = tuple[pa.Table, pa.Table, pa.Table, int]


@st.composite
def histories(draw: st.DrawFn) -> History:
    uris = draw(st.lists(URIS, unique=True, max_size=30))
    has_dates = draw(st.booleans())
    rows = [(uri, draw(ETAGS), draw(DATES) if has_dates else None) for uri in uris]
    past: list[tuple[str, str, int]] = []
    errors: list[tuple[str, str, int, str]] = []
    versions = st.tuples(st.sampled_from(uris), ETAGS) if uris else st.nothing()
    for uri, etag in draw(st.lists(versions, unique=True)):
        for attempt in range(1, draw(st.integers(1, 3)) + 1):
            past.append((uri, etag, attempt))
            if draw(st.booleans()):
                errors.append((uri, etag, attempt, draw(st.sampled_from(["timeout", "corrupt"]))))
    return manifest(*rows), attempts(*past), failed(*errors), draw(st.integers(1, 7))


@settings(deadline=None)
@given(histories(), st.integers(1, 12), st.integers(1, 9), st.integers(1, 20))
def test_what_is_due_is_planned_once_in_order_whatever_the_batches_and_plans(
    history: History, max_rows: int, rows_per_batch: int, records_at_once: int
) -> None:
    listed, past, errors, rows_per_part = history
    with mock.patch.multiple(spill, RECORDS_AT_ONCE=records_at_once, _BLOCK_RECORDS=records_at_once):
        plans = plan_all(
            listed, past, errors, ["timeout"], rows_per_part, max_rows=max_rows, rows_per_batch=rows_per_batch
        )
    listed_keys = [(row["image_uri"], row["etag"]) for row in listed.to_pylist()]
    done = {(row["image_uri"], row["etag"], row["attempt"]) for row in past.to_pylist()}
    transient = {(r["image_uri"], r["etag"], r["attempt"]) for r in errors.to_pylist() if r["error_kind"] == "timeout"}
    new = {(uri, etag, 1) for uri, etag in listed_keys} - done
    due = new | ({(uri, etag, attempt + 1) for uri, etag, attempt in transient if (uri, etag) in listed_keys} - done)
    in_order = sorted(due, key=lambda one: listed_keys.index(one[:2]))

    planned = [(row["image_uri"], row["etag"], row["attempt"]) for rows in plans for row in rows.to_pylist()]
    assert Counter(planned) == dict.fromkeys(due, 1)
    num_rows = max(max_rows // rows_per_part, 1) * rows_per_part
    assert [len(rows) for rows in plans[:-1]] == [num_rows] * (len(plans) - 1)
    if listed["date"].null_count:
        assert planned == in_order
    for place, rows in enumerate(plans):
        lot = in_order[place * num_rows : (place + 1) * num_rows]
        dates = dict(zip(listed_keys, listed["date"].to_pylist(), strict=True))
        lot.sort(key=lambda one: dates[one[:2]] or "")
        assert [(row["image_uri"], row["etag"], row["attempt"]) for row in rows.to_pylist()] == lot


@settings(deadline=None)
@given(histories(), st.data())
def test_with_rivals_at_every_step_each_key_is_planned_once(history: History, data: st.DataObject) -> None:
    listed, _, _, rows_per_part = history
    left = {(row["image_uri"], row["etag"], 1) for row in listed.to_pylist()}
    batches = listed.to_batches(data.draw(st.integers(1, 9)))
    backlog = Backlog(Manifest(batches), rows_per_part, max_rows=data.draw(st.integers(1, 12)))
    while (rows := backlog.next_plan()) is not None:
        own = [(row["image_uri"], row["etag"], row["attempt"]) for row in rows.to_pylist()]
        assert len(set(own) & left) == len(own)
        if data.draw(st.booleans()):
            rivals = data.draw(st.sets(st.sampled_from(sorted(left)), min_size=1))
            backlog.subtract([digest_attempts(attempts(*rivals))])
            left -= rivals
        else:
            backlog.advance()
            left -= set(own)
    assert not left


@settings(deadline=None)
@given(st.lists(st.tuples(URIS, ETAGS, DATES), max_size=40), st.integers(1, 9), st.integers(1, 20))
def test_a_manifest_keeps_the_first_of_every_image(
    rows: list[tuple[str, str, str]], rows_per_batch: int, records_at_once: int
) -> None:
    with mock.patch.multiple(spill, RECORDS_AT_ONCE=records_at_once, _BLOCK_RECORDS=records_at_once):
        listed = Manifest(manifest(*rows).to_batches(rows_per_batch))
    first: dict[str, tuple[str, str, str]] = {}
    for row in rows:
        first.setdefault(row[0], row)
    read = [row for batch in listed.batches() for row in batch.to_pylist()]
    assert [(row["image_uri"], row["etag"], row["date"]) for row in read] == list(first.values())
    assert (listed.num_images, listed.num_bytes) == (len(first), len(first))
    assert listed.dates == {date for _, _, date in first.values()}


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), min_size=1, max_size=30), st.integers(1, 7))
def test_digests_are_equal_where_the_texts_are_whatever_stands_beside_them(
    rows: list[tuple[str, str]], rows_at_once: int
) -> None:
    left, right = (pa.array([row[place] for row in rows], pa.string()) for place in range(2))
    whole = [one.tobytes() for one in digest(left, right)]
    assert len(set(whole)) == len(set(rows))
    places = range(0, len(rows), rows_at_once)
    sliced = [digest(left.slice(place, rows_at_once), right.slice(place, rows_at_once)) for place in places]
    assert [one.tobytes() for some in sliced for one in some] == whole
    long = digest(pa.array([*left.to_pylist(), "x" * 100_000]), pa.array([*right.to_pylist(), ""]))
    assert [one.tobytes() for one in long[:-1]] == whole


@settings(deadline=None)
@given(histories())
def test_parts_are_contiguous_bounded_of_one_date_and_as_the_header_says(history: History) -> None:
    listed, past, errors, rows_per_part = history
    for rows in plan_all(listed, past, errors, ["timeout"], rows_per_part, max_rows=20):
        parts = rows["part"].to_numpy()
        assert (np.diff(parts) >= 0).all()
        assert set(parts) == set(range(parts.max() + 1))
        header = PlanHeader("token", {}, rows_per_part, num_rows_by_date(rows))
        counts = Counter(zip(parts.tolist(), rows["date"].to_pylist(), strict=True))
        assert {(part.id.part, part.date): part.num_images for part in header.parts(1)} == counts
        assert max(counts.values()) <= rows_per_part


@settings(deadline=None)
@given(st.lists(DATES, max_size=60).map(sorted), st.integers(1, 9))
def test_cutting_fills_every_part_but_the_last_of_a_date(dates: list[str], rows_per_part: int) -> None:
    parts = cut_into_parts(pa.chunked_array([pa.array(dates, pa.string())]), rows_per_part)
    for date in set(dates):
        sizes = list(Counter(parts[np.array(dates) == date].tolist()).values())
        assert all(size == rows_per_part for size in sizes[:-1])


@settings(deadline=None)
@given(st.lists(st.tuples(URIS, ETAGS, st.integers(1, 3), st.integers(1, 5)), max_size=40))
def test_exactly_one_row_an_image_is_current(rows: list[tuple[str, str, int, int]]) -> None:
    table = attempts(*(row[:3] for row in rows)).append_column("plan", pa.array([row[3] for row in rows], pa.int64()))
    mask = current_rows(table)
    chosen = Counter(row[0] for row, is_current in zip(rows, mask, strict=True) if is_current)
    assert chosen == {row[0]: 1 for row in rows}
