"""The exported detections as a stream, a few images at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskrcnn.exports.selection import Selection
from maskrcnn.exports.survey import Survey
from maskrcnn.labelling.current import CurrentRows, check_masks


@dataclass(frozen=True)
class DetectionBatch:
    """A few images and their N exported detections."""

    places: NDArray[np.int64]
    """(num_images,) the images' places among the table's current rows."""
    images: pa.Table
    """num_images rows."""
    of_image: NDArray[np.int64]
    """(N,) each detection's image, as a row of `images`; ascending."""
    index: NDArray[np.int64]
    """(N,) each detection's place in its image's `instances`."""
    instances: pa.StructArray
    """(N,) as in the table."""
    masks: pa.BinaryArray
    """(N,) compressed RLE, null where the job kept no masks."""

    def column(self, name: str) -> pa.Array:
        """Give a field of the instances."""
        return self.instances.field(name)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Give a field as 64-bit numbers whose shortest text is that of the table's 32 bits."""
        return self.column(name).cast(pa.string()).cast(pa.float64()).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Exported:
    """What of a table is exported."""

    rows: CurrentRows
    survey: Survey
    """Which images."""
    selection: Selection
    """Which detections."""
    on_progress: Callable[[int, int], None] = lambda num_done, num_images: None
    """Told the images written so far, and all that will be."""

    def detections(self, columns: Collection[str]) -> Iterator[DetectionBatch]:
        """Stream the images in the table's order, those without detections too.

        Args:
            columns: of the images.
        """
        num_done, num_images = 0, self.survey.num_images
        wanted = [*dict.fromkeys((*columns, "image_uri")), "instances", "masks"]
        for places, batch in self.rows.batches(wanted, is_wanted=self.survey.numbers >= 0):
            yield self._select(places, batch, columns)
            num_done += len(batch)
            self.on_progress(num_done, num_images)

    def _select(self, places: NDArray[np.int64], batch: pa.Table, columns: Collection[str]) -> DetectionBatch:
        check_masks(batch, self.rows.uri)
        counts = pc.list_value_length(batch["instances"]).to_numpy()
        instances = pc.list_flatten(batch["instances"]).combine_chunks()
        of_image = np.repeat(np.arange(len(batch)), counts)
        index = np.arange(len(of_image)) - np.repeat(np.cumsum(counts) - counts, counts)
        scores, category_ids = (instances.field(name).to_numpy() for name in ("score", "category_id"))
        is_selected = self.selection.marks(scores, category_ids, self.survey.categories)
        kept = pa.array(is_selected)
        return DetectionBatch(
            places,
            batch.select(list(columns)),
            of_image[is_selected],
            index[is_selected],
            instances.filter(kept),
            _flat_masks(batch, counts).filter(kept),
        )


def _flat_masks(batch: pa.Table, counts: NDArray[np.int64]) -> pa.BinaryArray:
    """Give one mask an instance, null for the images that were labelled without."""
    masks = batch["masks"].combine_chunks()
    flat = pc.list_flatten(masks)
    if not masks.null_count:
        return flat
    has_masks = np.repeat(masks.is_valid().to_numpy(zero_copy_only=False), counts)
    return flat.take(pa.array(np.cumsum(has_masks) - 1, mask=~has_masks))
