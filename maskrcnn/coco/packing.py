"""Segmentations into a few arrays, batch by batch, before the sizes of their images are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco import rle
from maskrcnn.coco.packed import NONE, POLYGONS, RLE, PackedBytes, PackedSegmentations
from maskrcnn.errors import AnnotationError


class SegmentationPacker:
    """Collects the segmentations of a file's annotations; checks them as far as it can, and the rest at the end."""

    def __init__(self) -> None:
        self._num_rows = 0
        self._kinds: list[NDArray[np.int8]] = []
        self._sizes: list[NDArray[np.int64]] = []
        self._num_parts: list[NDArray[np.int64]] = []
        self._part_lengths: list[NDArray[np.int64]] = []
        self._farthest: list[NDArray[np.float64]] = []
        self._xy: list[NDArray[np.float64]] = []
        self._counts: list[NDArray[np.uint8]] = []
        self._counts_lengths: list[NDArray[np.int64]] = []
        self._doubtful: tuple[int, Any] | None = None

    def add(self, segmentations: Sequence[Any]) -> None:
        """Take the next segmentations, as parsed from JSON; None and [] are none."""
        kinds = np.full(len(segmentations), NONE, np.int8)
        sizes = np.zeros((len(segmentations), 2), np.int64)
        num_parts = np.zeros(len(segmentations), np.int64)
        counts = [b""] * len(segmentations)
        parts: list[Any] = []
        for index, segmentation in enumerate(segmentations):
            if segmentation is None or segmentation == []:
                continue
            if isinstance(segmentation, list | tuple):
                kinds[index] = POLYGONS
                num_parts[index] = len(segmentation)
                parts.extend(segmentation)
                continue
            kinds[index] = RLE
            try:
                size = rle.checked_size(segmentation, None, "", "")
                counts[index] = rle.from_segmentation(segmentation, *size)["counts"]
                sizes[index] = size
            except AnnotationError:
                self._doubt(index, segmentation)

        xy, lengths = _flatten(parts) or self._flatten_one_by_one(parts, segmentations, num_parts)
        self._kinds.append(kinds)
        self._sizes.append(sizes)
        self._num_parts.append(num_parts)
        self._part_lengths.append(lengths)
        self._farthest.append(_farthest(xy, lengths))
        self._xy.append(xy)
        self._counts.append(np.frombuffer(b"".join(counts), np.uint8))
        self._counts_lengths.append(np.fromiter(map(len, counts), np.int64, len(counts)))
        self._num_rows += len(segmentations)

    def finish(
        self, order: NDArray[np.int64], sizes: NDArray[np.int64], describe: Callable[[int], str], place: str
    ) -> PackedSegmentations:
        """Put the segmentations into another order, check what depends on their images, and forget them here.

        Args:
            order: (N,) of the annotations.
            sizes: (N, 2) height and width of each one's image, px, in that order.
            describe: names an annotation, by its place in that order, for the message: "annotation 17 (image 42)".
            place: the file they stand in, for the message.

        Raises:
            AnnotationError: the first one that cannot be drawn.
        """
        kinds = np.concatenate(self._kinds)[order]
        if self._doubtful is not None:
            index = int(np.flatnonzero(order == self._doubtful[0])[0])
            thing = f"{describe(index)} segmentation"
            rle.from_segmentation(self._doubtful[1], *sizes[index].tolist(), thing=thing, place=place)
        is_strange = (kinds == RLE) & (np.concatenate(self._sizes)[order] != sizes).any(axis=1)
        if is_strange.any():
            index = int(is_strange.argmax())
            written = {"size": np.concatenate(self._sizes)[order[index]].tolist()}
            expected = (int(sizes[index, 0]), int(sizes[index, 1]))
            rle.checked_size(written, expected, f"{describe(index)} segmentation", place)

        lengths = [
            _sums(part_lengths, num_parts)
            for part_lengths, num_parts in zip(self._part_lengths, self._num_parts, strict=True)
        ]
        num_parts = np.concatenate(self._num_parts)[order]
        farthest, _ = _reorder(self._farthest, self._num_parts, order)
        part_lengths, first_parts = _reorder(self._part_lengths, self._num_parts, order)
        xy, _ = _reorder(self._xy, lengths, order)
        packed = PackedSegmentations(
            kinds=kinds,
            xy=xy,
            part_offsets=_offsets(part_lengths),
            first_parts=first_parts,
            counts=PackedBytes(*_reorder(self._counts, self._counts_lengths, order)),
        )
        _check_polygons(packed, np.repeat(np.arange(len(order)), num_parts), farthest, sizes, describe, place)
        return packed

    def _flatten_one_by_one(
        self, parts: list[Any], segmentations: Sequence[Any], num_parts: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        arrays: list[NDArray[Any]] = []
        for owner, part in zip(np.repeat(np.arange(len(num_parts)), num_parts).tolist(), parts, strict=True):
            try:
                arrays.append(rle.flat_numbers(part, "", ""))
            except AnnotationError:
                arrays.append(np.zeros(0))
                self._doubt(owner, segmentations[owner])
        return np.concatenate([np.zeros(0), *arrays]), np.array([len(array) for array in arrays], np.int64)

    def _doubt(self, index: int, segmentation: Any) -> None:
        """Keep the first segmentation that is broken: only with its image's size is it known what is to be said."""
        if self._doubtful is None:
            self._doubtful = (self._num_rows + index, segmentation)


def _flatten(parts: list[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Put polygons one after the other; None unless all are flat lists of plain numbers."""
    if not set(map(type, parts)) <= {list} or not set(map(type, chain.from_iterable(parts))) <= {int, float}:
        return None
    lengths = np.fromiter(map(len, parts), np.int64, len(parts))
    try:
        return np.fromiter(chain.from_iterable(parts), np.float64, int(lengths.sum())), lengths
    except OverflowError:  # a whole number of hundreds of digits
        return None


def _farthest(xy: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give each polygon's largest coordinate, without its sign; NaN where one is, 0 where there is none."""
    farthest = np.zeros(len(lengths))
    is_filled = lengths > 0
    if len(xy):
        farthest[is_filled] = np.maximum.reduceat(np.abs(xy), _offsets(lengths)[:-1][is_filled])
    return farthest


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _sums(values: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum runs of values that follow each other."""
    return np.diff(_offsets(values)[_offsets(lengths)])


def _reorder(
    pieces: list[NDArray[Any]], lengths: list[NDArray[np.int64]], order: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Put items of different lengths into another order.

    Args:
        pieces: the items one after the other, in some arrays; emptied, so that each is freed once it is copied.
        lengths: of the items in each piece.
        order: of the items.

    Returns:
        The items one after the other, and where each begins.
    """
    offsets = _offsets(np.concatenate(lengths)[order])
    begins = np.empty(len(order), np.int64)
    begins[order] = offsets[:-1]
    items = np.empty(offsets[-1], pieces[0].dtype)
    done = 0
    pieces.reverse()
    for piece_lengths in lengths:
        shifts = begins[done : done + len(piece_lengths)] - _offsets(piece_lengths)[:-1]
        piece = pieces.pop()
        items[np.arange(len(piece)) + np.repeat(shifts, piece_lengths)] = piece
        done += len(piece_lengths)
    return items, offsets


def _check_polygons(
    packed: PackedSegmentations,
    owners: NDArray[np.int64],
    farthest: NDArray[np.float64],
    sizes: NDArray[np.int64],
    describe: Callable[[int], str],
    place: str,
) -> None:
    """Check all polygons at once for what is plainly sound, and only the others one by one."""
    lengths = np.diff(packed.part_offsets)
    reaches = sizes.max(axis=1).astype(np.float64)[owners]
    is_sound = (lengths >= 6) & (lengths % 2 == 0) & (lengths * 2 * reaches <= rle.MAX_OUTLINE_PX)
    is_sound &= farthest <= reaches  # which NaN and infinity are not
    for part in np.flatnonzero(~is_sound).tolist():
        owner = int(owners[part])
        polygon = packed.xy[packed.part_offsets[part] : packed.part_offsets[part + 1]]
        thing = f"{describe(owner)} segmentation polygon {part - packed.first_parts[owner]}"
        rle.check_polygon(polygon, *sizes[owner].tolist(), thing=thing, place=place)
