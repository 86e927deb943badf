"""Listing a bucket so that nothing is left out: page after page, through failures, and its end asked for twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import obstore

from maskrcnn.storage.answers import named_errors
from maskrcnn.storage.outages import StoreWatch

if TYPE_CHECKING:
    import pyarrow

LISTING_BATCH_SIZE = 10_000


def list_chunks(client: Any, watch: StoreWatch, key: str, uri: str) -> Iterator[pyarrow.RecordBatch]:
    """List what lies under a key.

    A listing that breaks off goes on behind the last key that came. An error page with a 200 reads as a listing's
    empty end, so that only two ends in a row are believed.

    Yields:
        The client's record batches: path, size, e_tag, last_modified and more.
    """
    pages = _Pages(client, key, uri)
    num_ends = 0
    while num_ends < 2:
        chunk = watch.ask(uri, pages.next)
        if chunk is None:
            num_ends += 1
            continue
        num_ends = 0
        yield chunk


class _Pages:
    """A listing that can be taken up again."""

    def __init__(self, client: Any, key: str, uri: str) -> None:
        self._client, self._key, self._uri = client, key, uri
        self._stream: Any = None
        self._last_path: str | None = None

    def next(self) -> pyarrow.RecordBatch | None:
        """Give the next chunk; None at the end, after which asking again lists once more behind the last key."""
        import pyarrow as pa

        if self._stream is None:
            self._stream = obstore.list(
                self._client,
                self._key or None,
                offset=self._last_path,
                chunk_size=LISTING_BATCH_SIZE,
                return_arrow=True,
            )
        try:
            with named_errors(self._uri):
                chunk = next(self._stream, None)
        except BaseException:
            self._stream = None
            raise
        batch = None if chunk is None else pa.record_batch(chunk)
        if not batch:
            self._stream = None
            return None
        self._last_path = batch["path"][-1].as_py()
        return batch
