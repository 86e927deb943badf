"""Segmentations into a few arrays, batch by batch, before the sizes of their images are known."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco import rle
from maskrcnn.coco.packed import NONE, POLYGONS, RLE, PackedBytes, PackedSegmentations, SizedSegmentations
from maskrcnn.coco.records import flatten_lists
from maskrcnn.coco.survey import find_plain
from maskrcnn.errors import AnnotationError

_BLOCK_ITEMS = 8192


class SegmentationPacker:
    """Collects the segmentations of a file's annotations; checks them as far as it can, and the rest at the end."""

    def __init__(self) -> None:
        self._num_rows = 0
        self._kinds: list[NDArray[np.int8]] = []
        self._sizes: list[NDArray[np.int64]] = []
        self._num_parts: list[NDArray[np.int64]] = []
        self._part_lengths: list[NDArray[np.int64]] = []
        self._farthest: list[NDArray[np.float64]] = []
        self._xy = array("d")  # one, that grows in place: freed pieces of it would stay with the process
        self._counts: list[NDArray[np.uint8]] = []
        self._counts_lengths: list[NDArray[np.int64]] = []
        self._doubtful: tuple[int, Any] | None = None

    def add(self, segmentations: Sequence[Any]) -> None:
        """Take the next segmentations, as parsed from JSON; None and [] are none."""
        kinds = np.full(len(segmentations), NONE, np.int8)
        sizes = np.zeros((len(segmentations), 2), np.int64)
        num_parts = np.zeros(len(segmentations), np.int64)
        counts: list[bytes] = [b""] * len(segmentations)
        parts: list[Any] = []
        compressed: list[int] = []
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
                sizes[index] = rle.checked_size(segmentation, None, "", "")
            except AnnotationError:
                self._doubt(index, segmentation)
                continue
            written = segmentation.get("counts")
            if isinstance(written, str) and written.isascii():
                counts[index] = written.encode()
                compressed.append(index)
            else:
                counts[index] = self._pack_one(index, segmentation)
        is_plain = find_plain(PackedBytes.from_list([counts[index] for index in compressed]), sizes[compressed])
        for index in np.array(compressed, np.int64)[~is_plain].tolist():
            counts[index] = self._pack_one(index, segmentations[index])

        xy, lengths = flatten_lists(parts) or self._flatten_one_by_one(parts, segmentations, num_parts)
        self._kinds.append(kinds)
        self._sizes.append(sizes)
        self._num_parts.append(num_parts)
        self._part_lengths.append(lengths)
        self._farthest.append(_farthest(xy, lengths))
        self._xy.frombytes(xy.data.cast("B"))
        self._counts.append(np.frombuffer(b"".join(counts), np.uint8))
        self._counts_lengths.append(np.fromiter(map(len, counts), np.int64, len(counts)))
        self._num_rows += len(segmentations)

    def finish(
        self, order: NDArray[np.int64], sizes: NDArray[np.int64], describe: Callable[[int], str], place: str
    ) -> PackedSegmentations:
        """Put the segmentations into another order, check what depends on their images; once only.

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

        num_parts, part_lengths = np.concatenate(self._num_parts), np.concatenate(self._part_lengths)
        xy, _ = _reorder(np.frombuffer(self._xy), _sums(part_lengths, num_parts), order)
        self._xy = array("d")
        farthest, _ = _reorder(np.concatenate(self._farthest), num_parts, order)
        part_lengths, first_parts = _reorder(part_lengths, num_parts, order)
        counts = _reorder(np.concatenate(self._counts), np.concatenate(self._counts_lengths), order)
        packed = PackedSegmentations(
            kinds=kinds,
            xy=xy,
            part_offsets=_offsets(part_lengths),
            first_parts=first_parts,
            counts=PackedBytes(*counts),
        )
        _check_polygons(packed, np.repeat(np.arange(len(order)), num_parts[order]), farthest, sizes, describe, place)
        return packed

    def finish_as_written(self, describe: Callable[[int], str], place: str) -> SizedSegmentations:
        """Put the segmentations together where their images are not known: RLEs are of the sizes they say; once only.

        Raises:
            AnnotationError: the first one that no image could have. Polygons are checked when they are drawn.
        """
        if self._doubtful is not None:
            index, segmentation = self._doubtful
            thing = f"{describe(index)} segmentation"
            if not isinstance(segmentation, list | tuple):
                size = rle.checked_size(segmentation, None, thing, place)
                rle.from_segmentation(segmentation, *size, thing=thing, place=place)
            for part, polygon in enumerate(segmentation):
                rle.flat_numbers(polygon, f"{thing} polygon {part}", place)
        packed = PackedSegmentations(
            kinds=np.concatenate(self._kinds),
            xy=np.array(self._xy),
            part_offsets=_offsets(np.concatenate(self._part_lengths)),
            first_parts=_offsets(np.concatenate(self._num_parts)),
            counts=PackedBytes(np.concatenate(self._counts), _offsets(np.concatenate(self._counts_lengths))),
        )
        return SizedSegmentations(packed, np.concatenate(self._sizes))

    def _pack_one(self, index: int, segmentation: Any) -> bytes:
        """Give an RLE's counts, from whatever form; none where it is broken."""
        try:
            return rle.from_segmentation(segmentation, *segmentation["size"])["counts"]
        except AnnotationError:
            self._doubt(index, segmentation)
            return b""

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
        if self._doubtful is None or self._num_rows + index < self._doubtful[0]:
            self._doubtful = (self._num_rows + index, segmentation)


def check_rles(
    counts: PackedBytes, sizes: NDArray[np.int64], describe: Callable[[int], str], place: str
) -> SizedSegmentations:
    """Check compressed RLEs from outside.

    Args:
        counts: N compressed strings.
        sizes: (N, 2) height and width of each, px.
        describe: names the one that a mask belongs to, for the message.
        place: the file or table they stand in, for the message.

    Raises:
        AnnotationError: the first one that is broken.
    """
    is_plain = find_plain(counts, sizes)
    if not is_plain.all():
        masks = [counts[index] for index in range(len(counts))]
        for index in np.flatnonzero(~is_plain).tolist():
            size = tuple(sizes[index].tolist())
            mask = {"size": size, "counts": masks[index]}
            thing = f"{describe(index)} segmentation"
            masks[index] = rle.from_segmentation(mask, *size, thing=thing, place=place)["counts"]
        counts = PackedBytes.from_list(masks)
    return SizedSegmentations(PackedSegmentations.of_rles(counts), sizes)


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
    values: NDArray[Any], lengths: NDArray[np.int64], order: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Put items of different lengths, one after the other, into another order.

    Returns:
        The items one after the other, and where each begins.
    """
    offsets = _offsets(lengths[order])
    sources, targets = _offsets(lengths), np.empty(len(order), np.int64)
    targets[order] = offsets[:-1]
    items = np.empty(len(values), values.dtype)
    for begin in range(0, len(order), _BLOCK_ITEMS):  # so that the indices stay small
        end = min(begin + _BLOCK_ITEMS, len(order))
        indices = np.arange(sources[begin], sources[end])
        indices += np.repeat(targets[begin:end] - sources[begin:end], lengths[begin:end])
        items[indices] = values[sources[begin] : sources[end]]
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
