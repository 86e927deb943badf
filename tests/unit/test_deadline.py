"""--finish-by: how it is read, and what --dry-run answers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from maskrcnn.commands.deadline import describe_forecast, parse_finish_by
from maskrcnn.errors import InputError
from maskrcnn.labelling.record import DryRun
from tests.unit.test_forecast import COSTS

NOW = datetime(2026, 11, 22, 0, 48)
DRY_RUN = DryRun(
    num_listed=1_200_000,
    num_planned_before=0,
    num_to_plan=1_199_000,
    num_parts_to_plan=586,
    num_bytes=0,
    num_parts_left=1,
    num_images_left=1000,
    costs=replace(COSTS, source="run 20261121T010000-ab"),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("06:00", datetime(2026, 11, 22, 6, 0)),
        ("6:05", datetime(2026, 11, 22, 6, 5)),
        ("00:49", datetime(2026, 11, 22, 0, 49)),
        ("00:48", datetime(2026, 11, 23, 0, 48)),
        ("00:10", datetime(2026, 11, 23, 0, 10)),
        ("2026-11-23T07:30", datetime(2026, 11, 23, 7, 30)),
        ("2026-11-24", datetime(2026, 11, 24)),
    ],
)
def test_a_time_is_the_next_such_time_here(text: str, expected: datetime) -> None:
    assert parse_finish_by(text, NOW) == expected.astimezone()


def test_a_time_with_a_zone_is_taken_as_it_is() -> None:
    expected = datetime(2026, 11, 24, 6, 0, tzinfo=timezone(timedelta(hours=9)))
    assert parse_finish_by("2026-11-24T06:00+09:00", NOW) == expected
    assert parse_finish_by(None, NOW) is None


@pytest.mark.parametrize("text", ["25:00", "06:60", "six", "", "06", "2026-13-01T00:00", "2026-11-21T06:00", "-1:00"])
def test_what_is_no_time_ahead_is_refused(text: str) -> None:
    with pytest.raises(
        InputError, match=f"--finish-by must be HH:MM, or an ISO date and time that lies ahead, got {text}"
    ):
        parse_finish_by(text, NOW)


def describe(dry_run: DryRun, finish_by: datetime | None = None, price: float | None = None) -> list[str]:
    now = NOW.replace(tzinfo=UTC)
    return describe_forecast(dry_run, now=now, finish_by=finish_by, price_per_actor_hour=price).splitlines()


def test_the_answer_says_how_many_workers_are_done_in_time() -> None:
    alone, enough = describe(DRY_RUN, datetime(2026, 11, 22, 6, 0, tzinfo=UTC), 3.0)
    assert alone == (
        "1,200,000 images to label; 1 H200 labels 40.0 images/s (measured by run 20261121T010000-ab from 1,000 images, "
        "limited by predict): 8h21m, $20.88 per million images"
    )
    assert enough == (
        "to finish by Sun 06:00 (5h12m from now): 2 H200s, done by Sun 04:59, $20.95 per million images; "
        "they read 159.7 MB/s"
    )


def test_workers_without_a_gpu_are_named_by_their_cores() -> None:
    [alone] = describe(replace(DRY_RUN, costs=replace(COSTS, device="CPU")))
    assert "; 1 worker of 4 CPUs labels 40.0 images/s" in alone
    assert alone.endswith(": 8h21m")


def test_a_time_that_nothing_reaches_is_told() -> None:
    _, impossible = describe(DRY_RUN, datetime(2026, 11, 22, 0, 49, tzinfo=UTC))
    assert impossible == (
        "to finish by Sun 00:49 (1m00s from now): not even 587 H200s, one a part, would do, which take 1m51s; "
        "begin earlier, or take smaller --rows-per-part"
    )


def test_without_a_measurement_the_answer_names_what_to_do() -> None:
    [line] = describe(replace(DRY_RUN, costs=None), datetime(2026, 11, 22, 6, 0, tzinfo=UTC))
    assert line == (
        "no forecast: no run like this one was measured yet; label a sample of 100 images or more with the same "
        "options first, or name a record with --forecast-from"
    )


def test_nothing_to_label_needs_nobody() -> None:
    nothing = replace(DRY_RUN, num_to_plan=0, num_parts_to_plan=0, num_parts_left=0, num_images_left=0)
    assert describe(nothing) == describe(replace(nothing, costs=None)) == ["nothing is left to label"]
