"""Many small things in a few arrays: texts, and the segmentations of a whole file.

Worker processes share one copy of an array; of a Python object each would soon have its own, since reading it writes
its reference count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco import rle
from maskrcnn.errors import AnnotationError

NONE, POLYGONS, RLE = 0, 1, 2


@dataclass(frozen=True)
class PackedBytes:
    """A list of byte strings; the n-th is `content[offsets[n] : offsets[n + 1]]`."""

    content: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def from_list(cls, items: Sequence[bytes]) -> PackedBytes:
        """Pack byte strings."""
        offsets = np.cumsum([0, *map(len, items)], dtype=np.int64)
        return cls(np.frombuffer(b"".join(items), np.uint8), offsets)

    @classmethod
    def concatenate(cls, parts: Sequence[PackedBytes]) -> PackedBytes:
        """Put several lists one after the other."""
        lengths = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.offsets) for part in parts)])
        content = np.concatenate([np.zeros(0, np.uint8), *(part.content for part in parts)])
        return cls(content, np.cumsum(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.content[self.offsets[index] : self.offsets[index + 1]].tobytes()


@dataclass(frozen=True)
class PackedText:
    """A list of texts, packed as UTF-8."""

    encoded: PackedBytes

    @classmethod
    def from_list(cls, items: Sequence[str]) -> PackedText:
        """Pack texts."""
        return cls(PackedBytes.from_list([item.encode("utf-8", "surrogatepass") for item in items]))

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> str:
        return self.encoded[index].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class PackedSegmentations:
    """The segmentations of N annotations, each none, polygons or compressed RLE, checked once by `packing`."""

    kinds: NDArray[np.int8]
    """(N,) NONE, POLYGONS or RLE."""
    xy: NDArray[np.float64]
    """All polygons' x1, y1, x2, y2, … one after the other, absolute px."""
    part_offsets: NDArray[np.int64]
    """(num_parts + 1,) where each polygon begins in `xy`."""
    first_parts: NDArray[np.int64]
    """(N + 1,) the first polygon of each annotation."""
    counts: PackedBytes
    """N compressed RLE strings, empty for other kinds."""

    @classmethod
    def of_rles(cls, counts: PackedBytes) -> PackedSegmentations:
        """Pack compressed RLEs alone; an empty string is none."""
        kinds = np.where(np.diff(counts.offsets) > 0, RLE, NONE).astype(np.int8)
        no_parts = np.zeros(len(counts) + 1, np.int64)
        return cls(kinds, np.zeros(0), np.zeros(1, np.int64), no_parts, counts)

    @classmethod
    def concatenate(cls, parts: Sequence[PackedSegmentations]) -> PackedSegmentations:
        """Put several lists one after the other."""
        part_lengths = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.part_offsets) for part in parts)])
        num_parts = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.first_parts) for part in parts)])
        return cls(
            kinds=np.concatenate([part.kinds for part in parts]),
            xy=np.concatenate([part.xy for part in parts]),
            part_offsets=np.cumsum(part_lengths),
            first_parts=np.cumsum(num_parts),
            counts=PackedBytes.concatenate([part.counts for part in parts]),
        )

    def coco(self, index: int, size: tuple[int, int]) -> list[list[float]] | dict[str, Any] | None:
        """Give one segmentation as a COCO file holds it; None where there is none."""
        if self.kinds[index] == RLE:
            return rle.to_json({"size": list(size), "counts": self.counts[index]})
        return self.polygons(index) if self.kinds[index] == POLYGONS else None

    def polygons(self, index: int) -> list[list[float]]:
        """Give one annotation's polygons, none for other kinds."""
        parts = range(self.first_parts[index], self.first_parts[index + 1])
        return [self.xy[self.part_offsets[part] : self.part_offsets[part + 1]].tolist() for part in parts]

    def rle(self, index: int, size: tuple[int, int], *, thing: str, place: str) -> rle.Rle:
        """Give one segmentation as compressed RLE.

        Raises:
            AnnotationError: there is none.
        """
        if self.kinds[index] == RLE:
            return {"size": list(size), "counts": self.counts[index]}
        if self.kinds[index] == NONE:
            raise AnnotationError(f"{thing} segmentation", "is missing or empty", place)
        return rle.from_polygons(self.polygons(index), *size, thing=f"{thing} segmentation", place=place)


@dataclass(frozen=True)
class SizedSegmentations:
    """The segmentations of N predictions, whose images are perhaps not known, or not of the size that an RLE says."""

    packed: PackedSegmentations
    """RLEs are checked for the sizes that they say, polygons not at all yet."""
    sizes: NDArray[np.int64]
    """(N, 2) height and width, px, that each RLE says it has; 0 for other kinds."""

    @classmethod
    def from_rles(cls, rles: Sequence[rle.Rle]) -> SizedSegmentations:
        """Pack compressed RLEs that this project has made, or checked."""
        sizes = np.array([mask["size"] for mask in rles], np.int64).reshape(-1, 2)
        return cls(PackedSegmentations.of_rles(PackedBytes.from_list([mask["counts"] for mask in rles])), sizes)

    @classmethod
    def concatenate(cls, parts: Sequence[SizedSegmentations]) -> SizedSegmentations:
        """Put several lists one after the other."""
        packed = PackedSegmentations.concatenate([part.packed for part in parts])
        return cls(packed, np.concatenate([part.sizes for part in parts]))
