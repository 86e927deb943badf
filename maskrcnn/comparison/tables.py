"""Two tables joined by image: which images both have, and their rows side by side, a few at a time.

An image is the same in both where its URI and its etag are. Only digests of these are held in memory; the rows of one
table wait in a temporary file (`TMPDIR`), since nothing says that both tables have the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskrcnn.labelling.current import CurrentRows
from maskrcnn.labelling.digests import DIGEST, Digests, digest, places_in
from maskrcnn.labelling.spill import BatchSpill

COLUMNS = ("image_uri", "status", "error_kind", "width", "height", "instances", "masks")
_KEY_COLUMNS = ("image_uri", "etag", "status", "score_threshold")
_KEYS_AT_ONCE = 8192
_ROWS_AT_ONCE = 32


@dataclass(frozen=True)
class _Keys:
    """What is known of each of a table's N current rows."""

    uris: Digests
    versions: Digests
    """Of URI and etag together."""
    score_threshold: float
    """The highest that any row was labelled with."""


class TablePair:
    """Two tables, joined when they are opened.

    Args:
        a, b: the tables.
    """

    def __init__(self, a: CurrentRows, b: CurrentRows) -> None:
        self._a, self._b = a, b
        a_keys, b_keys = _read_keys(a), _read_keys(b)
        places = places_in(a_keys.uris, b_keys.uris)
        is_common = places >= 0
        is_same = is_common.copy()
        is_same[is_common] = _are_equal(a_keys.versions[is_common], b_keys.versions[places[is_common]])
        self._places = np.where(is_same, places, -1)
        """(num_rows of A,) the same image's row in B, or -1."""
        self.num_common = int(is_same.sum())
        self.num_only_a = int((~is_common).sum())
        self.num_only_b = len(b) - int(is_common.sum())
        self.num_other_etag = int((is_common & ~is_same).sum())
        self.lowest_fair_threshold = max(a_keys.score_threshold, b_keys.score_threshold)
        """Below it one of the tables may lack what the other has."""

    def batches(self, columns: Sequence[str] = ()) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Stream the rows of the images that both have, in A's order.

        Args:
            columns: of A, besides `COLUMNS`.

        Yields:
            Equally many rows of A and of B, of the same images.
        """
        is_in_a = self._places >= 0
        is_in_b = np.zeros(len(self._b), np.bool_)
        is_in_b[self._places[is_in_a]] = True
        waiting = _Waiting(self._b, is_in_b)
        wanted = tuple(dict.fromkeys((*COLUMNS, *columns)))
        for places, rows in self._a.batches(wanted, is_wanted=is_in_a, batch_size=_ROWS_AT_ONCE):
            yield rows, waiting.take(self._places[places])


class _Waiting:
    """Rows of one table that are asked for in another order."""

    def __init__(self, rows: CurrentRows, is_wanted: NDArray[np.bool_]) -> None:
        self._ranks = np.cumsum(is_wanted) - 1
        self._spill = BatchSpill()
        ends = []
        for _, batch in rows.batches(COLUMNS, is_wanted=is_wanted, batch_size=_ROWS_AT_ONCE):
            self._spill.append(batch.combine_chunks().to_batches()[0])
            ends.append(len(batch))
        self._ends = np.cumsum(ends, dtype=np.int64)

    def take(self, places: NDArray[np.int64]) -> pa.Table:
        """Give the rows at these places of the table, which must be wanted ones, in this order."""
        ranks = self._ranks[places]
        numbers = np.searchsorted(self._ends, ranks, side="right")
        read, which = np.unique(numbers, return_inverse=True)
        batches = [self._spill.read(number) for number in read.tolist()]
        begins = np.cumsum([0, *(len(batch) for batch in batches)])[:-1]
        starts = np.concatenate([np.zeros(1, np.int64), self._ends])[numbers]
        return pa.Table.from_batches(batches).take(pa.array(begins[which] + ranks - starts))


def _read_keys(rows: CurrentRows) -> _Keys:
    uris, versions = [np.zeros(0, DIGEST)], [np.zeros(0, DIGEST)]
    threshold = 0.0
    for _, batch in rows.batches(_KEY_COLUMNS, batch_size=_KEYS_AT_ONCE):
        [one] = batch.combine_chunks().to_batches()
        uris.append(digest(one["image_uri"]))
        versions.append(digest(one["image_uri"], one["etag"]))
        threshold = max(threshold, pc.max(one["score_threshold"]).as_py() or 0.0)
    return _Keys(np.concatenate(uris), np.concatenate(versions), threshold)


def _are_equal(some: Digests, others: Digests) -> NDArray[np.bool_]:
    words = [np.ascontiguousarray(digests).view(np.uint64).reshape(-1, 2) for digests in (some, others)]
    are_equal: NDArray[np.bool_] = (words[0] == words[1]).all(axis=1)
    return are_equal
