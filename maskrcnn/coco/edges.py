"""Masks from the edges of their runs: what finds edges, in whatever way, needs no bitmap.

An edge is a pixel that differs from the one above it in its column, or the place below the column's last pixel. Its key
is a single integer, by mask and then by column-major position; masks may be of different sizes. Knows nothing of boxes
or images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.rle import Rle, encode_counts_batch

Ints = NDArray[np.int64]


def first_keys(sizes: Ints) -> Ints:
    """Give the key of every mask's first pixel, and one past the last mask's last key, (N + 1,) int64.

    Args:
        sizes: (N, 2) int64, (H, W) of each mask, px.
    """
    keys: Ints = np.concatenate([[0], np.cumsum(sizes.prod(axis=1) + 1)])
    return keys


def from_edges(keys: Ints, sizes: Ints) -> list[Rle]:
    """Turn sorted edge keys into RLEs.

    Args:
        keys: (num_edges,) int64, sorted: the mask's first key and the column-major position. Two edges in one place
            cancel.
        sizes: (N, 2) int64, (H, W) of each mask, px; a mask without edges is empty.

    Returns:
        N RLEs, to the byte as pycocotools would encode the masks.
    """
    num_pixels = sizes.prod(axis=1)
    # A run that leaves a column at the bottom and goes on at the next one's top has an end and a start in one place.
    is_repeated = keys[1:] == keys[:-1]
    is_edge = np.ones(len(keys), np.bool_)
    is_edge[1:] &= ~is_repeated
    is_edge[:-1] &= ~is_repeated
    keys, firsts = keys[is_edge], first_keys(sizes)

    num_runs = np.diff(np.searchsorted(keys, firsts)) + 1
    offsets = np.concatenate([[0], np.cumsum(num_runs)])
    run_ends = np.repeat(num_pixels, num_runs)
    is_last = np.zeros(offsets[-1], np.bool_)
    is_last[offsets[1:] - 1] = True
    run_ends[~is_last] = keys - np.repeat(firsts[:-1], num_runs - 1)
    counts = np.diff(run_ends, prepend=0)
    counts[offsets[:-1]] = run_ends[offsets[:-1]]

    # A mask that is foreground to its last pixel has no background run after it.
    is_needed = ~is_last | (counts > 0)
    num_needed = np.add.reduceat(is_needed, offsets[:-1], dtype=np.int64) if len(sizes) else num_runs
    texts = encode_counts_batch(counts[is_needed], np.concatenate([[0], np.cumsum(num_needed)]))
    return [{"size": size, "counts": text} for size, text in zip(sizes.tolist(), texts, strict=True)]
