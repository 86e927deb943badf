"""Rows of two tables as instances that can be matched: at one score threshold, with categories that both share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskrcnn.coco.packed import PackedBytes, PackedSegmentations, SizedSegmentations
from maskrcnn.coco.packing import check_rles
from maskrcnn.comparison.matching import Instances
from maskrcnn.labelling.current import check_masks, pack_masks


@dataclass
class Vocabulary:
    """Numbers for the names of categories: names are what two bundles share, whatever ids they were trained with."""

    names: list[str] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)

    def encode(self, names: pa.Array) -> NDArray[np.int64]:
        """Give each name its number."""
        encoded = names.dictionary_encode()
        for name in encoded.dictionary.to_pylist():
            if name not in self._numbers:
                self._numbers[name] = len(self.names)
                self.names.append(name)
        numbers = [self._numbers[name] for name in encoded.dictionary.to_pylist()]
        codes: NDArray[np.int64] = np.array(numbers, np.int64)[encoded.indices.to_numpy()]
        return codes


def are_comparable(a: pa.Table, b: pa.Table) -> NDArray[np.bool_]:
    """Say which images were labelled by both in one size: (num_images,)."""
    is_same_size = [pc.equal(a[side], b[side]) for side in ("width", "height")]
    marks: NDArray[np.bool_] = pc.fill_null(pc.and_(*is_same_size), False).to_numpy()
    return marks & were_labelled(a) & were_labelled(b)


def were_labelled(rows: pa.Table) -> NDArray[np.bool_]:
    """Say which images were labelled: (num_rows,)."""
    marks: NDArray[np.bool_] = pc.equal(rows["status"], "ok").to_numpy()
    return marks


def have_masks(rows: pa.Table) -> NDArray[np.bool_]:
    """Say which images were labelled with masks: (num_rows,)."""
    marks: NDArray[np.bool_] = pc.is_valid(rows["masks"]).to_numpy()
    return marks


def to_instances(rows: pa.Table, vocabulary: Vocabulary, score_threshold: float, place: str) -> Instances:
    """Give the instances of labelled images.

    Args:
        rows: image_uri, width, height, instances, masks.
        vocabulary: grows.
        score_threshold: instances below it are left out.
        place: the table, for messages.

    Raises:
        InputError: other numbers of masks than of instances.
        AnnotationError: a mask that is broken.
    """
    check_masks(rows, place)
    counts = pc.list_value_length(rows["instances"]).to_numpy()
    found = pc.list_flatten(rows["instances"]).combine_chunks()
    of_image = np.repeat(np.arange(len(rows)), counts)
    sizes = np.stack([rows[side].to_numpy() for side in ("height", "width")], axis=1).astype(np.int64)
    has_mask = have_masks(rows)[of_image]
    uris = rows["image_uri"]
    checked = check_rles(
        pack_masks(pc.list_flatten(rows["masks"])),
        sizes[of_image[has_mask]],
        lambda index: str(uris[int(of_image[has_mask][index])]),
        place,
    )
    # As the table holds it: a score written as 0.9 is a little less than 0.9 in 64 bits.
    is_kept = found.field("score").to_numpy() >= np.float32(score_threshold)
    instances = Instances(
        of_image,
        vocabulary.encode(found.field("category")),
        found.field("score").to_numpy().astype(np.float64),
        np.stack([found.field(side).to_numpy().astype(np.float64) for side in ("x", "y", "w", "h")], axis=1),
        SizedSegmentations(PackedSegmentations.of_rles(_scatter(checked.packed.counts, has_mask)), sizes[of_image]),
    )
    return instances if is_kept.all() else instances.where(is_kept)


def _scatter(packed: PackedBytes, has_mask: NDArray[np.bool_]) -> PackedBytes:
    """Give one mask an instance, an empty one where there is none."""
    lengths = np.zeros(len(has_mask), np.int64)
    lengths[has_mask] = np.diff(packed.offsets)
    return PackedBytes(packed.content, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))
