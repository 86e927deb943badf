"""A file of a bucket as a seekable one, of which only the ranges that are read travel."""

from __future__ import annotations

from typing import Any

import obstore

from maskrcnn.errors import IntegrityError
from maskrcnn.storage.answers import check_length, named_errors
from maskrcnn.storage.base import ObjectMeta, bare_etag
from maskrcnn.storage.outages import StoreWatch
from maskrcnn.storage.seekable import SeekableReader


class RangeReader(SeekableReader):
    """Reads one version of an object.

    Args:
        client: of the bucket.
        key: of the object.
        meta: the version to read.
        watch: makes the requests.
    """

    def __init__(self, client: Any, key: str, meta: ObjectMeta, watch: StoreWatch) -> None:
        super().__init__(meta.size)
        self._client, self._key, self._meta, self._watch = client, key, meta, watch

    def readinto(self, buffer: Any) -> int:
        """Read a range.

        Raises:
            IntegrityError: the object has changed since it was opened, or the store sends another range.
            StorageError: as the store answers.
        """
        begin, end = self._position, min(self._position + len(buffer), self._meta.size)
        if end <= begin:
            return 0
        body = self._watch.ask(self._meta.uri, lambda: self._read(begin, end), reads=True)
        buffer[: len(body)] = body
        self._position = end
        return len(body)

    def _read(self, begin: int, end: int) -> bytes:
        uri = self._meta.uri
        with named_errors(uri):
            # The client refuses an answer that is not the range: an error page with a 200, or the whole object.
            answer = obstore.get(self._client, self._key, options={"range": (begin, end)})
            found, body = bare_etag(answer.meta["e_tag"]), bytes(answer.bytes())
        if found != self._meta.etag:
            raise IntegrityError(uri, "it changed while it was being read")
        check_length(uri, body, end - begin, "the range")
        return body
