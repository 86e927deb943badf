"""Masks of crops as masks of the whole image, on their runs: no bitmap is ever drawn. Knows no boxes or scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.edges import first_keys, from_edges
from maskrcnn.coco.packed import PackedBytes
from maskrcnn.coco.rle import Rle
from maskrcnn.coco.runs import decode_counts_batch

Ints = NDArray[np.int64]


def move_rles(rles: Sequence[Rle], origins: Ints, size: tuple[int, int]) -> list[Rle]:
    """Give masks of crops as masks of the image that the crops were cut from; beyond its crop a mask is background.

    Args:
        rles: N masks as this package encodes them, each of its crop's size.
        origins: (N, 2) int64, (x, y) of the corner of each mask's crop in the image, px.
        size: (H, W) of the image, px; the crops lie inside.

    Returns:
        N masks of size [H, W], to the byte as pycocotools would encode them.

    Raises:
        ValueError: a crop that leaves the image, or a mask that is not of the size that it says.
    """
    height, width = size
    sizes = np.array([rle["size"] for rle in rles], np.int64).reshape(-1, 2)
    is_inside = (origins >= 0) & (origins + sizes[:, ::-1] <= [width, height])
    if not is_inside.all():
        at = int((~is_inside.all(axis=1)).argmax())
        rule = f"a crop of {sizes[at, 1]} x {sizes[at, 0]} px at {origins[at].tolist()} leaves {width} x {height} px"
        raise ValueError(rule)

    mask, starts, ends = _foreground(rles, sizes)
    crop_height = sizes[mask, 0]
    # A run that goes on from one column to the next is broken where the image is higher than the crop.
    first_column = starts // crop_height
    num_columns = (ends - 1) // crop_height - first_column + 1
    run = np.repeat(np.arange(len(starts)), num_columns)
    column = first_column[run] + np.arange(len(run)) - np.repeat(np.cumsum(num_columns) - num_columns, num_columns)
    mask, crop_height = mask[run], crop_height[run]
    x, y = origins[mask].T
    moved_sizes = np.tile(np.array(size, np.int64), (len(rles), 1))
    first_key = first_keys(moved_sizes)[mask] + (column + x) * height + y - column * crop_height
    starts = np.maximum(starts[run], column * crop_height) + first_key
    ends = np.minimum(ends[run], (column + 1) * crop_height) + first_key
    return from_edges(np.sort(np.concatenate([starts, ends])), moved_sizes)


def _foreground(rles: Sequence[Rle], sizes: Ints) -> tuple[Ints, Ints, Ints]:
    """Give every run of foreground: its mask, and its first and one-past-last position, column by column."""
    packed = PackedBytes.from_list([rle["counts"] for rle in rles])
    counts, offsets, _ = decode_counts_batch(packed.content, packed.offsets)
    num_runs = np.diff(offsets)
    mask = np.repeat(np.arange(len(rles)), num_runs)
    first_pixel = np.cumsum(sizes.prod(axis=1)) - sizes.prod(axis=1)
    ends = np.cumsum(counts)
    if not (num_runs.all() and np.array_equal(ends[offsets[1:] - 1], first_pixel + sizes.prod(axis=1))):
        raise ValueError("the runs of a mask must sum to its size")
    is_foreground = ((np.arange(len(counts)) - offsets[mask]) % 2 == 1) & (counts > 0)
    mask, ends = mask[is_foreground], (ends - first_pixel[mask])[is_foreground]
    return mask, ends - counts[is_foreground], ends
