"""Listing a bucket so that nothing is left out: page after page, through failures, and its end asked for twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore

from maskrcnn.errors import StorageError
from maskrcnn.storage.answers import named_errors
from maskrcnn.storage.outages import StoreWatch

if TYPE_CHECKING:
    import pyarrow

LISTING_BATCH_SIZE = 10_000
_WITHOUT_OFFSETS = ("az://", "abfs://", "abfss://")
"""To list what lies behind a key, the client lists everything there."""


def list_chunks(client: Any, watch: StoreWatch, key: str, uri: str) -> Iterator[pyarrow.RecordBatch]:
    """List what lies under a key, each key once.

    A listing that breaks off goes on behind the last key that came. An error page with a 200 reads as a listing's
    empty end, so that only two ends in a row are believed.

    Yields:
        The client's record batches: path, size, e_tag, last_modified and more.
    """
    pages = _Pages(client, key, uri)
    num_ends, num_ends_to_believe = 0, 1 if uri.startswith(_WITHOUT_OFFSETS) else 2
    while num_ends < num_ends_to_believe:
        chunk = watch.ask(uri, pages.next)
        if chunk is None:
            num_ends = num_ends + 1 if pages.is_sorted else num_ends_to_believe
        elif len(chunk):
            num_ends = 0
            yield chunk


class _Pages:
    """A listing that can be taken up again."""

    def __init__(self, client: Any, key: str, uri: str) -> None:
        self._client, self._key, self._uri = client, key, uri
        self._stream: Any = None
        self._offset: str | None = None
        self._last_path: str | None = None
        """The greatest so far."""
        self.is_sorted = True
        """All stores sort, but for S3's directory buckets: their listings cannot be taken up again."""

    def next(self) -> pyarrow.RecordBatch | None:
        """Give the next chunk; None at the end, after which asking again lists once more behind the last key.

        Raises:
            StorageError: as the store answers; and where a listing broke off that cannot be taken up again.
        """
        import pyarrow as pa

        if self._stream is None:
            self._begin()
        try:
            with named_errors(self._uri):
                chunk = next(self._stream, None)
        except BaseException:
            self._stream = None
            raise
        if chunk is None:
            self._stream = None
            return None
        return self._not_seen_yet(pa.record_batch(chunk))

    def _begin(self) -> None:
        if not self.is_sorted:
            raise StorageError(self._uri, "its listing broke off, and does not come in order; run the command again")
        self._offset = self._last_path
        self._stream = obstore.list(
            self._client,
            self._key or None,
            offset=self._offset,
            chunk_size=LISTING_BATCH_SIZE,
            return_arrow=True,
        )

    def _not_seen_yet(self, chunk: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
        """Leave out what came before the listing was taken up again.

        Some stores know no offset. And folders' markers come without their slash, so that their paths are not in the
        order of their keys: `shelf/` comes behind `shelf-1.jpg`, as `shelf`.
        """
        import pyarrow.compute as pc

        if self._offset is not None:
            chunk = chunk.filter(pc.greater(chunk["path"], self._offset))
        chunk = self._without_stray_markers(chunk)
        if len(chunk) == 0:
            return chunk
        paths = chunk.filter(pc.greater(chunk["size"], 0))["path"]  # markers are empty
        if len(paths):
            is_behind = self._last_path is None or pc.greater(paths[0], self._last_path).as_py()
            is_ascending = pc.all(pc.greater(paths[1:], paths[:-1]), min_count=0).as_py()
            self.is_sorted &= is_behind and is_ascending
        greatest = pc.max(chunk["path"]).as_py()
        self._last_path = max(self._last_path or greatest, greatest, key=str.encode)
        return chunk

    def _without_stray_markers(self, chunk: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
        """Leave out folders' markers that are no greater than what comes before them: they may be taken for it."""
        import pyarrow as pa

        strays = np.zeros(len(chunk), bool)
        for place in np.flatnonzero(np.asarray(chunk["size"]) == 0):
            before = chunk["path"][place - 1].as_py() if place else self._last_path
            strays[place] = before is not None and chunk["path"][place].as_py().encode() <= before.encode()
        return chunk.filter(pa.array(~strays)) if self.is_sorted and strays.any() else chunk
