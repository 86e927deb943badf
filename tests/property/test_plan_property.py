"""Planning drops nothing and repeats nothing, for any manifest, history and part size."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn.labelling.output import PlanHeader, num_rows_by_date
from maskrcnn.labelling.plan import current_rows, cut_into_parts, plan_rows
from tests.unit.test_plan import attempts, failed, manifest

URIS = st.text(min_size=1, max_size=4).filter(lambda text: "\0" not in text)
ETAGS = st.sampled_from(["1", "2", "", "ü"])
DATES = st.sampled_from(["2026-11-21", "2026-11-22", "2026-11-23"])


@st.composite
def histories(draw: st.DrawFn) -> tuple[pa.Table, pa.Table, pa.Table, int]:
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
@given(histories())
def test_every_new_key_is_planned_once_and_no_planned_one_twice(
    history: tuple[pa.Table, pa.Table, pa.Table, int],
) -> None:
    listed, past, errors, rows_per_part = history
    rows = plan_rows(listed, past, errors, ["timeout"], rows_per_part).to_pylist()
    done = {(row["image_uri"], row["etag"], row["attempt"]) for row in past.to_pylist()}
    new = Counter((row["image_uri"], row["etag"], row["attempt"]) for row in rows)
    assert set(new.values()) <= {1}
    assert not done & set(new)
    listed_keys = {(row["image_uri"], row["etag"]) for row in listed.to_pylist()}
    assert {key[:2] for key in new} <= listed_keys
    assert {(uri, etag) for uri, etag, _ in done | set(new)} >= listed_keys
    transient = {(r["image_uri"], r["etag"], r["attempt"]) for r in errors.to_pylist() if r["error_kind"] == "timeout"}
    due = {(u, e, a + 1) for u, e, a in transient if (u, e) in listed_keys} - done
    assert {key for key in new if key[2] > 1} == due


@settings(deadline=None)
@given(histories())
def test_parts_are_contiguous_bounded_of_one_date_and_as_the_header_says(
    history: tuple[pa.Table, pa.Table, pa.Table, int],
) -> None:
    listed, past, errors, rows_per_part = history
    rows = plan_rows(listed, past, errors, ["timeout"], rows_per_part)
    if len(rows) == 0:
        return
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
