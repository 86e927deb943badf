"""Looking ids up among others, and how large a category's may be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MIN_CATEGORY_ID, MAX_CATEGORY_ID = -(2**31), 2**31 - 1
"""What the predictions table has room for."""


def find_ids(wanted: NDArray[np.int64], ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Give each one's place in `ids`, any of them where an id is there twice; and whether it is there at all."""
    if not len(ids):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    order = np.argsort(ids, kind="stable")
    indices = order[np.searchsorted(ids, wanted, sorter=order).clip(max=len(ids) - 1)]
    return indices, ids[indices] == wanted


def repeats(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say of each id whether it has been there before."""
    is_repeat = np.ones(len(ids), np.bool_)
    is_repeat[np.unique(ids, return_index=True)[1]] = False
    return is_repeat
