"""Many compressed masks at once: which are sound, how large they are, and where they lie."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.packed import PackedBytes
from maskrcnn.coco.runs import Counts, decode_counts_batch

_BLOCK_BYTES = 1 << 18


def survey(
    counts: PackedBytes, sizes: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float64]]:
    """Find plain masks, and measure them.

    Args:
        counts: N compressed strings, from anywhere.
        sizes: (N, 2) height and width of each, px.

    Returns:
        (N,) bool as of `find_plain`; and the areas and boxes as of `measure`, which mean nothing where it is false.
    """
    is_plain = np.ones(len(counts), np.bool_)
    areas, boxes = np.zeros(len(counts), np.int64), np.zeros((len(counts), 4))
    for masks, runs, offsets, is_readable in _blocks(counts):
        is_plain[masks] = _are_plain(runs, offsets, is_readable, sizes[masks])
        areas[masks], boxes[masks] = _measure(runs, offsets, sizes[masks, 0])
    return is_plain, areas, boxes


def find_plain(counts: PackedBytes, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Find the masks that pycocotools may have as they are.

    Args:
        counts: N compressed strings, from anywhere.
        sizes: (N, 2) height and width of each, px.

    Returns:
        (N,) whether a mask is sound and has no empty run but perhaps the first; of others `rle.from_segmentation` says
        what is wrong, or makes them plain.
    """
    is_plain = np.ones(len(counts), np.bool_)
    for masks, runs, offsets, is_readable in _blocks(counts):
        is_plain[masks] = _are_plain(runs, offsets, is_readable, sizes[masks])
    return is_plain


def measure(counts: PackedBytes, heights: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Count the foreground pixels of plain masks, and find the tight boxes round them.

    Args:
        counts: N compressed strings, plain.
        heights: (N,) of their images, px.

    Returns:
        (N,) areas, px, and (N, 4) boxes, XYWH, absolute px; all 0 for an empty mask.
    """
    areas, boxes = np.zeros(len(counts), np.int64), np.zeros((len(counts), 4))
    for masks, runs, offsets, _ in _blocks(counts):
        areas[masks], boxes[masks] = _measure(runs, offsets, heights[masks])
    return areas, boxes


def _are_plain(
    runs: Counts, offsets: NDArray[np.int64], is_readable: NDArray[np.bool_], sizes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(runs)])
    is_plain: NDArray[np.bool_] = np.asarray(is_readable & (np.diff(ends[offsets]) == sizes.prod(axis=1)))
    empty = np.setdiff1d(np.flatnonzero(runs == 0), offsets[:-1])
    is_plain[np.searchsorted(offsets, empty, side="right") - 1] = False
    return is_plain


def _measure(
    runs: Counts, offsets: NDArray[np.int64], heights: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    of_run = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    ends = np.cumsum(runs)
    ends -= np.concatenate([np.zeros(1, np.int64), ends])[offsets[:-1]][of_run]
    is_foreground = (np.arange(len(runs)) - offsets[of_run]) % 2 == 1
    owners = of_run[is_foreground]
    lengths, lasts = runs[is_foreground], ends[is_foreground] - 1
    areas = np.bincount(owners, lengths, minlength=len(offsets) - 1)
    return areas.astype(np.int64), _boxes(owners, lasts - lengths + 1, lasts, heights)


def _boxes(
    owners: NDArray[np.int64], firsts: NDArray[np.int64], lasts: NDArray[np.int64], heights: NDArray[np.int64]
) -> NDArray[np.float64]:
    boxes = np.zeros((len(heights), 4))
    if not len(owners):
        return boxes
    begins = np.flatnonzero(np.diff(owners, prepend=-1))
    found, tall = owners[begins], heights[owners]
    spans_columns = firsts // tall != lasts // tall
    tops = np.minimum.reduceat(np.where(spans_columns, 0, firsts % tall), begins)
    bottoms = np.maximum.reduceat(np.where(spans_columns, tall - 1, lasts % tall), begins)
    lefts = firsts[begins] // heights[found]
    rights = lasts[np.append(begins[1:], len(owners)) - 1] // heights[found]
    boxes[found] = np.stack([lefts, tops, rights - lefts + 1, bottoms - tops + 1], axis=1)
    return boxes


def _blocks(counts: PackedBytes) -> Iterator[tuple[slice, Counts, NDArray[np.int64], NDArray[np.bool_]]]:
    """Decode some masks at a time, so that their runs stay small: which masks, and what `decode_counts_batch` gives."""
    begin = 0
    while begin < len(counts):
        reach = np.searchsorted(counts.offsets, counts.offsets[begin] + _BLOCK_BYTES, side="right") - 1
        end = max(int(reach), begin + 1)
        offsets = counts.offsets[begin : end + 1]
        yield slice(begin, end), *decode_counts_batch(counts.content[offsets[0] : offsets[-1]], offsets - offsets[0])
        begin = end
