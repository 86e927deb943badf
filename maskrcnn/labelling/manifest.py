"""The manifest: what there is to label, of any size, read in batches as often as needed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskrcnn.labelling.digests import build_records, digest
from maskrcnn.labelling.plan import repeats
from maskrcnn.labelling.spill import BatchSpill, RecordSpill, in_groups


class Manifest:
    """Listed images, one row an image_uri, in the order of the listing.

    Args:
        batches: rows of one schema: image_uri, etag (string), size (int64, bytes), date (string, or null) and more.
        may_repeat: whether an image_uri can come twice; the first row is kept. An object store's listing cannot.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], *, may_repeat: bool = True) -> None:
        self._spill = BatchSpill()
        self._repeats = np.zeros(0, np.int64)
        uris = RecordSpill()
        survey = _Survey()
        for batch in batches:
            if may_repeat:
                numbers = np.arange(survey.num_images, survey.num_images + len(batch))
                uris.add(build_records(digest(batch["image_uri"]), numbers))
            self._spill.append(batch)
            survey.add(batch)
        if may_repeat:
            found = [repeats(records) for (records,) in in_groups(uris)]
            self._repeats = np.sort(np.concatenate([self._repeats, *found]))
        if len(self._repeats):
            survey = _Survey()
            for batch in self.batches():
                survey.add(batch)
        self.num_images: int = survey.num_images
        self.num_bytes: int = survey.num_bytes
        self.dates: frozenset[str | None] = frozenset(survey.dates)
        self.num_outside_sample = 0
        """Listed images that are none of these, since only a sample is wanted."""

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read the rows."""
        start = 0
        for batch in self._spill:
            first, end = np.searchsorted(self._repeats, (start, start + len(batch)))
            yield _without(batch, self._repeats[first:end] - start) if end > first else batch
            start += len(batch)

    def holds(self, uris: Collection[str]) -> bool:
        """Say whether all of some images are listed, in whatever version."""
        missing = set(uris)
        for batch in self.batches() if missing else ():
            listed = batch["image_uri"]
            found = listed.filter(pc.is_in(listed, value_set=pa.array(list(missing), pa.string())))
            missing.difference_update(found.to_pylist())
            if not missing:
                break
        return not missing


def total_bytes(sizes: pa.Array | pa.ChunkedArray) -> int:
    """Add up sizes; those that are not known, which are negative, count nothing."""
    return int(pc.sum(pc.max_element_wise(sizes, 0), min_count=0).as_py())


class _Survey:
    """Adds up what is to be known of all rows."""

    def __init__(self) -> None:
        self.num_images = 0
        self.num_bytes = 0
        self.dates: set[str | None] = set()

    def add(self, batch: pa.RecordBatch) -> None:
        self.num_images += len(batch)
        self.num_bytes += total_bytes(batch["size"])
        self.dates.update(batch["date"].unique().to_pylist())


def _without(batch: pa.RecordBatch, places: np.ndarray[Any, np.dtype[np.int64]]) -> pa.RecordBatch:
    is_kept = np.ones(len(batch), np.bool_)
    is_kept[places] = False
    return batch.filter(pa.array(is_kept))
