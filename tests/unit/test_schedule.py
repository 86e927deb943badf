"""The learning rate is what the schedule says, at every step, whatever was asked before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.errors import InputError
from maskrcnn.training.schedule import Decay, ScheduleConfig, learning_rate_at


def _rates(**fields: Any) -> list[float]:
    config = ScheduleConfig(**fields)
    return [learning_rate_at(step, config) for step in range(config.max_steps)]


def test_warm_up_rises_in_equal_steps_to_the_full_rate() -> None:
    rates = _rates(learning_rate=0.5, max_steps=6, warmup_steps=4, decay="constant")
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


def test_multistep_drops_at_its_shares() -> None:
    rates = _rates(learning_rate=1.0, max_steps=10, warmup_steps=0, decay_at=(0.5, 0.75), decay_factor=0.1)
    assert rates == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01] * 2)


def test_cosine_starts_full_passes_half_and_ends_near_zero() -> None:
    rates = _rates(learning_rate=0.02, max_steps=102, warmup_steps=2, decay="cosine")
    assert rates[2] == pytest.approx(0.02)
    assert rates[52] == pytest.approx(0.01)
    assert 0 < rates[-1] < 0.00001
    assert rates[2:] == sorted(rates[2:], reverse=True)


@pytest.mark.parametrize(("max_steps", "expected"), [(100, 5), (10, 0), (90_000, 1000)])
def test_default_warm_up_is_a_twentieth_and_at_most_1000(max_steps: int, expected: int) -> None:
    assert ScheduleConfig(max_steps=max_steps).num_warmup_steps == expected


@given(
    step=st.integers(0, 10_000),
    max_steps=st.integers(1, 5_000),
    warmup_share=st.floats(0, 0.99),
    decay=st.sampled_from(["constant", "multistep", "cosine"]),
)
def test_rate_is_always_above_zero_and_never_above_the_full_rate(
    step: int, max_steps: int, warmup_share: float, decay: Decay
) -> None:
    config = ScheduleConfig(0.003, max_steps, int(warmup_share * max_steps), decay)
    assert 0 < learning_rate_at(step, config) <= 0.003


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": 0.0}, "--learning-rate must be a finite number above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "--learning-rate must be a finite number above 0, got nan"),
        ({"max_steps": 0}, "--max-steps must be 1 or more, got 0"),
        ({"max_steps": 10, "warmup_steps": 10}, r"--warmup-steps must be in \[0, 10\), below --max-steps, got 10"),
        ({"warmup_steps": -1}, "--warmup-steps must be in .* got -1"),
        ({"decay": "linear"}, "--decay must be one of constant, multistep, cosine, got linear"),
        ({"decay_at": (0.9, 0.5)}, "--decay-at must be rising shares"),
        ({"decay_factor": 0.0}, r"--decay-factor must be in \(0, 1\], got 0.0"),
    ],
)
def test_impossible_values_are_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ScheduleConfig(**fields)
