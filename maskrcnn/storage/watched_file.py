"""An open file whose reads are repeated and named as all other requests are."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, BinaryIO

from maskrcnn.errors import IntegrityError, StorageError
from maskrcnn.storage.base import short_reason


class WatchedFile(io.RawIOBase):
    """Reads through another file.

    Args:
        uri: of the object, for messages.
        file: the one to read.
        ask: makes a request, repeats it, and names its errors.
    """

    def __init__(self, uri: str, file: BinaryIO, ask: Callable[[Callable[[], bytes]], bytes]) -> None:
        self._uri, self._file, self._ask = uri, file, ask

    def readable(self) -> bool:
        """Say that it is."""
        return True

    def seekable(self) -> bool:
        """Say whether the file is."""
        return self._file.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; nothing travels."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Give the position."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """Read some bytes.

        Raises:
            IntegrityError: the object became shorter since it was opened.
            StorageError: as the store answers.
        """
        body = self._ask(lambda: self._read(len(buffer)))
        buffer[: len(body)] = body
        return len(body)

    def close(self) -> None:
        """Close both."""
        if not self.closed:
            self._file.close()
        super().close()

    def _read(self, num_bytes: int) -> bytes:
        begin = self._file.tell()
        try:
            body = self._file.read(num_bytes)
        except ValueError as error:  # a server that does not send ranges
            raise StorageError(self._uri, short_reason(error)) from error
        size = getattr(self._file, "size", None)
        if num_bytes and not body and size is not None and begin < size:
            raise IntegrityError(self._uri, "it became shorter while it was being read")
        return body
