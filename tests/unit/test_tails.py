"""The tails of counts against sums of the binomial distribution, one outcome after the other."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.counting.tails import compare_rates

IMAGES = st.integers(1, 200)
CERTAIN = 1e-18
"""Smaller chances are as good as none."""


def compare(now: int, past: int, num_now: int, num_past: int) -> float:
    [z] = compare_rates(np.array([float(now)]), np.array([float(past)]), num_now, np.array([num_past]))
    return float(z)


def exact(now: int, past: int, num_now: int, num_past: int) -> float:
    """Give the same by adding up the chances of all outcomes as far off or farther."""
    total, share = now + past, num_now / (num_now + num_past)
    outcomes = range(now, total + 1) if now > total * share else range(now + 1)
    chance = math.fsum(math.comb(total, one) * share**one * (1 - share) ** (total - one) for one in outcomes)
    if chance >= 0.5:
        return 0.0
    z = NormalDist().inv_cdf(max(chance, CERTAIN))
    return -z if now > total * share else z


@given(now=st.integers(0, 60), past=st.integers(0, 200), num_now=IMAGES, num_past=IMAGES)
def test_the_tail_is_that_of_the_binomial_distribution(now: int, past: int, num_now: int, num_past: int) -> None:
    z, expected = compare(now, past, num_now, num_past), exact(now, past, num_now, num_past)
    if abs(expected) > 8:
        assert z * expected > 0
        assert abs(z) > 7.5
    else:
        assert z == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize(("now", "past"), [(0, 0), (10, 50), (8, 0), (0, 100), (190, 700)])
def test_no_and_few_and_many_things_have_their_tails_too(now: int, past: int) -> None:
    assert compare(now, past, 200, 1000) == pytest.approx(exact(now, past, 200, 1000), abs=0.02)


def test_a_billion_things_at_one_rate_surprise_nobody() -> None:
    assert compare(10**9, 5 * 10**9, 200, 1000) == 0
