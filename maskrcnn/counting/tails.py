"""How far a count lies from those before it by chance alone: tails of the binomial distribution, as normal ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def compare_rates(
    now: NDArray[np.float64], past: NDArray[np.float64], num_now: int, num_past: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Give how surprising counts are where the rate is that of counts before them, in spreads of a normal distribution.

    Things that come independently and at one rate fall into either time by its share of the images, whatever that rate
    is: so the error of the past, too, is in the answer. The tail of that binomial distribution is given as the normal
    deviate with an equal one, which holds for few things as well.

    Args:
        now: (N,) things counted.
        past: (N,) of the same kind, before.
        num_now: images that they were counted in, 1 or more.
        num_past: (N,) images before, 1 or more.

    Returns:
        (N,) below 0 where there are fewer than before; 0 where more than half of all outcomes are as far off.

    Source: Peizer and Pratt, "A Normal Approximation for Binomial, F, Beta, and Other Common, Related Tail
        Probabilities, I" (Journal of the American Statistical Association 63, 1968).
    """
    share = num_now / (num_now + num_past)
    total = now + past
    is_more = now > total * share
    at_most = np.where(is_more, now - 1, now)  # P(X >= k) is 1 - P(X <= k - 1)
    z = np.zeros(total.shape)
    is_open = at_most < total
    z[is_open] = _lower_tail(at_most[is_open], total[is_open], share[is_open])
    return np.where(is_more, np.maximum(z, 0), np.minimum(z, 0))


def _lower_tail(
    num: NDArray[np.float64], total: NDArray[np.float64], share: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give z with the normal probability of P(X <= num), num < total."""
    rest = 1 - share
    off = num + 2 / 3 - (total + 1 / 3) * share
    off += 0.02 * (rest / (num + 1) - share / (total - num) + (rest - 0.5) / (total + 1))
    skew = rest * _g((num + 0.5) / (total * share)) + share * _g((total - num - 0.5) / (total * rest))
    return off * np.sqrt((1 + skew) / ((total + 1 / 6) * share * rest))


def _g(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give (1 - x^2 + 2 x log x) / (1 - x)^2, which is 0 at 1."""
    is_near = np.abs(x - 1) < 1e-4  # there the two differences lose their digits
    far = np.where(is_near, 2.0, x)
    return np.where(is_near, (1 - x) / 3, (1 - far**2 + 2 * far * np.log(far)) / (1 - far) ** 2)
