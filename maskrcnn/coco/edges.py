"""Masks from the edges of their runs: what finds edges, in whatever way, needs no bitmap.

An edge is a pixel that differs from the one above it in its column, or the place below the column's last pixel. Its key
is a single integer, by mask and then by column-major position. Knows nothing of boxes or images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.rle import Rle, encode_counts_batch

Ints = NDArray[np.int64]


def from_edges(keys: Ints, num_masks: int, size: tuple[int, int]) -> list[Rle]:
    """Turn sorted edge keys into RLEs.

    Args:
        keys: (num_edges,) int64, sorted: mask x (height x width + 1) + column-major position. Two edges in one place
            cancel.
        num_masks: N; a mask without edges is empty.
        size: (H, W) of the masks, px.

    Returns:
        N RLEs, to the byte as pycocotools would encode the masks.
    """
    num_pixels = size[0] * size[1]
    # A run that leaves a column at the bottom and goes on at the next one's top has an end and a start in one place.
    is_repeated = keys[1:] == keys[:-1]
    is_edge = np.ones(len(keys), np.bool_)
    is_edge[1:] &= ~is_repeated
    is_edge[:-1] &= ~is_repeated
    mask, position = np.divmod(keys[is_edge], num_pixels + 1)

    num_runs = np.bincount(mask, minlength=num_masks) + 1
    offsets = np.concatenate([[0], np.cumsum(num_runs)])
    run_ends = np.full(offsets[-1], num_pixels)
    is_last = np.zeros(offsets[-1], np.bool_)
    is_last[offsets[1:] - 1] = True
    run_ends[~is_last] = position
    counts = np.diff(run_ends, prepend=0)
    counts[offsets[:-1]] = run_ends[offsets[:-1]]

    # A mask that is foreground to its last pixel has no background run after it.
    is_needed = ~is_last | (counts > 0)
    num_needed = np.add.reduceat(is_needed, offsets[:-1], dtype=np.int64) if num_masks else num_runs
    texts = encode_counts_batch(counts[is_needed], np.concatenate([[0], np.cumsum(num_needed)]))
    return [{"size": [int(size[0]), int(size[1])], "counts": text} for text in texts]
