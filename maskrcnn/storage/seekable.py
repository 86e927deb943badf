"""What every file has in common that knows its size and is read at a position."""

from __future__ import annotations

import io


class SeekableReader(io.RawIOBase):
    """Keeps the position; whoever derives from it reads there, and moves it on.

    Args:
        size: of the whole, bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._file_bytes = size
        self._position = 0

    def readable(self) -> bool:
        """Say that it is."""
        return True

    def seekable(self) -> bool:
        """Say that it is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; nothing is read."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file_bytes}[whence]
        self._position = origin + offset
        return self._position

    def tell(self) -> int:
        """Give the position."""
        return self._position
