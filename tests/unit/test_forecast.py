"""The forecast's arithmetic: the slowest stage sets the pace, more actors are never later, the fewest are fewest."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.labelling.forecast import ActorCosts, fewest_actors, forecast_run

COSTS = ActorCosts(
    source="run 1",
    device="H200",
    num_threads=4,
    num_images=1000,
    image_bytes=2e6,
    read_s=0.32,
    decode_s=0.08,
    predict_s=0.024,
    put_s=0.001,
    num_readers=32,
    startup_s=60.0,
)

seconds = st.floats(0, 10, allow_subnormal=False)
costs_of_any_kind = st.builds(
    ActorCosts,
    source=st.just("run"),
    device=st.just("CPU"),
    num_threads=st.integers(1, 8),
    num_images=st.integers(1, 1000),
    image_bytes=st.floats(0, 1e8),
    read_s=seconds,
    decode_s=seconds,
    predict_s=st.floats(1e-4, 10),
    put_s=seconds,
    num_readers=st.integers(1, 256),
    startup_s=st.floats(0, 1000),
)
work = st.tuples(st.integers(1, 10_000_000), st.integers(1, 5000)).map(
    lambda w: {"num_images": w[0], "num_parts": w[1]}
)


def test_the_slowest_stage_sets_the_pace_and_what_nothing_hides_is_added() -> None:
    assert COSTS.limiting_stage == "predict"
    assert COSTS.image_s == pytest.approx(0.024 + 0.001)
    assert replace(COSTS, decode_s=0.4).image_s == pytest.approx(0.1 + 0.001)
    assert replace(COSTS, decode_s=0.4).limiting_stage == "decode"
    assert replace(COSTS, read_s=32.0).limiting_stage == "read"
    assert replace(COSTS, put_s=1.0).limiting_stage == "put"


def test_a_million_images_take_what_a_pocket_calculator_says() -> None:
    forecast = forecast_run(COSTS, num_actors=4, num_images=1_000_000, num_parts=500)
    assert forecast.labelling_s == pytest.approx(1_000_000 * 0.025 / 4)
    assert forecast.seconds == pytest.approx(60 + 6250)
    assert forecast.images_per_s == pytest.approx(160)
    assert forecast.bytes_per_s == pytest.approx(320e6)
    assert forecast.dollars_per_million(2.0) == pytest.approx(4 * 2.0 * 6310 / 3600)
    assert forecast.end(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2026, 1, 1, 1, 45, 10, tzinfo=UTC)


def test_the_last_parts_leave_actors_idle() -> None:
    three = forecast_run(COSTS, num_actors=3, num_images=4000, num_parts=4)
    two = forecast_run(COSTS, num_actors=2, num_images=4000, num_parts=4)
    assert three.labelling_s == two.labelling_s == pytest.approx(2 * 1000 * 0.025)


@given(costs_of_any_kind, work, st.integers(1, 200))
def test_more_actors_are_never_later(costs: ActorCosts, work: dict[str, int], num_actors: int) -> None:
    fewer, more = (forecast_run(costs, num_actors=count, **work) for count in (num_actors, num_actors + 1))
    assert more.seconds <= fewer.seconds
    assert fewer.seconds >= costs.startup_s + work["num_images"] * costs.image_s / num_actors * (1 - 1e-9)


@given(costs_of_any_kind, work, st.floats(0, 1e7))
def test_the_fewest_actors_are_in_time_and_one_less_is_not(
    costs: ActorCosts, work: dict[str, int], within_s: float
) -> None:
    fewest = fewest_actors(costs, within_s=within_s, **work)
    if fewest is None:
        assert forecast_run(costs, num_actors=work["num_parts"], **work).seconds > within_s
        return
    assert forecast_run(costs, num_actors=fewest, **work).seconds <= within_s
    assert fewest == 1 or forecast_run(costs, num_actors=fewest - 1, **work).seconds > within_s


@pytest.mark.parametrize(
    "wrong",
    [
        {"read_s": -1.0},
        {"predict_s": float("nan")},
        {"startup_s": float("inf")},
        {"num_readers": 0},
        {"num_threads": 0},
        {"read_s": 0.0, "decode_s": 0.0, "predict_s": 0.0, "put_s": 0.0},
    ],
)
def test_costs_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        replace(COSTS, **wrong)
