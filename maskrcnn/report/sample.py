"""Which images a gallery shows where a table has more of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FAILED_SHARE = 0.1


def choose_images(
    is_failed: NDArray[np.bool_], is_judged: NDArray[np.bool_], max_images: int, seed: int
) -> NDArray[np.bool_]:
    """Choose images: annotated ones first, then failed ones up to a share of the places, then any of the others.

    Args:
        is_failed: (N,) of all images.
        is_judged: (N,) those that have annotations.
        max_images: how many to choose at most.
        seed: of the random choice.

    Returns:
        (N,) whether each is chosen.
    """
    if len(is_failed) <= max_images:
        return np.ones(len(is_failed), np.bool_)
    order = np.random.default_rng(seed).permutation(len(is_failed))
    num_early = max(1, round(max_images * FAILED_SHARE))
    failed = order[is_failed[order] & ~is_judged[order]]
    groups = (
        order[is_judged[order]],
        failed[:num_early],
        order[~is_failed[order] & ~is_judged[order]],
        failed[num_early:],
    )
    is_chosen = np.zeros(len(is_failed), np.bool_)
    is_chosen[np.concatenate(groups)[:max_images]] = True
    return is_chosen
