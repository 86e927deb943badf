"""Masks of a crop as masks of the whole image, on their runs: no bitmap is ever drawn. Knows no boxes or scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.edges import from_edges
from maskrcnn.coco.rle import Rle, check_rle


def move_rles(rles: Sequence[Rle], origin: tuple[int, int], size: tuple[int, int]) -> list[Rle]:
    """Give masks of a crop as masks of the image that the crop was cut from; beyond the crop all is background.

    Args:
        rles: N masks of one size, the crop's.
        origin: (x, y) of the crop's corner in the image, px.
        size: (H, W) of the image, px; the crop lies inside.

    Returns:
        N masks of size [H, W], to the byte as pycocotools would encode them.

    Raises:
        AnnotationError: a mask that is none.
        ValueError: masks of different sizes, or a crop that leaves the image.
    """
    if not rles:
        return []
    crop_height, crop_width = rles[0]["size"]
    (x, y), (height, width) = origin, size
    if any(list(rle["size"]) != [crop_height, crop_width] for rle in rles):
        raise ValueError("masks of one crop must be of one size")
    if not (0 <= x <= width - crop_width and 0 <= y <= height - crop_height):
        raise ValueError(f"a crop of {crop_width} x {crop_height} px at {origin} leaves {width} x {height} px")

    mask, starts, ends = _foreground(rles)
    # A run that goes on from one column to the next is broken where the image is higher than the crop.
    column, last_column = starts // crop_height, (ends - 1) // crop_height
    num_columns = last_column - column + 1
    run = np.repeat(np.arange(len(starts)), num_columns)
    column = column[run] + np.arange(len(run)) - np.repeat(np.cumsum(num_columns) - num_columns, num_columns)
    moved = (column + x) * height + y - column * crop_height
    starts = np.maximum(starts[run], column * crop_height) + moved
    ends = np.minimum(ends[run], (column + 1) * crop_height) + moved
    first_key = mask[run] * (height * width + 1)
    return from_edges(np.sort(np.concatenate([first_key + starts, first_key + ends])), len(rles), size)


def _foreground(rles: Sequence[Rle]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Give every run of foreground: its mask, and its first and one-past-last position, column by column."""
    all_counts = [check_rle(rle) for rle in rles]
    ends = [np.cumsum(counts)[1::2] for counts in all_counts]
    lengths = np.concatenate([counts[1::2] for counts in all_counts])
    mask = np.repeat(np.arange(len(rles)), [len(each) for each in ends])
    is_run = lengths > 0
    run_ends = np.concatenate(ends)[is_run]
    return mask[is_run], run_ends - lengths[is_run], run_ends
