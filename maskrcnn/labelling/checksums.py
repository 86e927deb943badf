"""Checksums inside a Parquet file, so that every range of it that is read proves itself.

Stores send no checksum with a range, and Parquet has none for its footer and the headers of its pages. Between pages
and footer, where no reader of Parquet looks, stand the digests of the file's blocks, then a seal:

    pages | a digest a block of pages | seal: size of the pages, digest of all after them but itself, magic | footer
"""

from __future__ import annotations

import hashlib
import io
import struct
from typing import Any, BinaryIO

from maskrcnn.errors import IntegrityError
from maskrcnn.storage.seekable import SeekableReader

BLOCK_BYTES = 1 << 16
_DIGEST_BYTES = 16
_MAGIC = b"maskrcnn blocks\n"
_SEAL = struct.Struct(f"<Q{_DIGEST_BYTES}s{len(_MAGIC)}s")
_PARQUET_END = struct.Struct("<I4s")
"""The footer's size and Parquet's own magic."""


def seal(body: io.BytesIO) -> None:
    """Put checksums into a whole Parquet file, in its place."""
    view = body.getbuffer()
    footer_bytes = _PARQUET_END.unpack(view[-_PARQUET_END.size :])[0] + _PARQUET_END.size
    size = len(view) - footer_bytes
    footer = bytes(view[size:])
    digests = b"".join(_digest(view[at : min(at + BLOCK_BYTES, size)]) for at in range(0, size, BLOCK_BYTES))
    view.release()
    body.seek(size)
    body.write(digests + _SEAL.pack(size, _digest_end(size, digests, footer), _MAGIC) + footer)


def open_sealed(file: BinaryIO, uri: str) -> CheckedFile | None:
    """Open a Parquet file so that all that is read of it is checked.

    Args:
        file: any seekable file.
        uri: for messages.

    Returns:
        The file; None where it holds no checksums.

    Raises:
        IntegrityError: when the file's end is not as it was sealed; reads raise it for what they read.
        StorageError: as the store answers.
    """
    file_bytes = file.seek(0, io.SEEK_END)
    if file_bytes < _PARQUET_END.size:
        return None
    end_bytes = _PARQUET_END.unpack(_read(file, file_bytes - _PARQUET_END.size, _PARQUET_END.size, uri))[0]
    seal_at = file_bytes - _PARQUET_END.size - end_bytes - _SEAL.size
    if seal_at < 0:
        return None
    size, digest, magic = _SEAL.unpack(_read(file, seal_at, _SEAL.size, uri))
    if magic != _MAGIC:
        return None
    num_blocks = -(-size // BLOCK_BYTES)
    if size + num_blocks * _DIGEST_BYTES != seal_at:
        raise IntegrityError(uri, "its end disagrees with its size")
    end = _read(file, size, file_bytes - size, uri)
    digests, footer = end[: num_blocks * _DIGEST_BYTES], end[num_blocks * _DIGEST_BYTES + _SEAL.size :]
    if _digest_end(size, digests, footer) != digest:
        raise IntegrityError(uri, "its footer's checksum is wrong")
    return CheckedFile(file, uri, size, end, digests)


class CheckedFile(SeekableReader):
    """Reads blocks and checks each; the file's end is in memory, checked already."""

    def __init__(self, file: BinaryIO, uri: str, size: int, end: bytes, digests: bytes) -> None:
        super().__init__(size + len(end))
        self._file, self._uri, self._size, self._end, self._digests = file, uri, size, end, digests
        self._last: tuple[int, bytes] = (-1, b"")

    def readinto(self, buffer: Any) -> int:
        """Read what is asked for, up to the file's end.

        Raises:
            IntegrityError: when a block's checksum is wrong.
            StorageError: as the store answers.
        """
        begin, end = self._position, self._position + len(buffer)
        pages = range(begin // BLOCK_BYTES, -(-min(end, self._size) // BLOCK_BYTES))
        blocks = b"".join(map(self._read_block, pages))
        skipped = begin - pages.start * BLOCK_BYTES
        body = blocks[skipped : skipped + len(buffer)]
        if end > self._size:
            body += self._end[max(begin - self._size, 0) : end - self._size]
        buffer[: len(body)] = body
        self._position += len(body)
        return len(body)

    def _read_block(self, number: int) -> bytes:
        # Columns are smaller than blocks: the same block is asked for several times in a row.
        if self._last[0] != number:
            begin = number * BLOCK_BYTES
            block = _read(self._file, begin, min(BLOCK_BYTES, self._size - begin), self._uri)
            if _digest(block) != self._digests[number * _DIGEST_BYTES : (number + 1) * _DIGEST_BYTES]:
                raise IntegrityError(self._uri, f"the checksum of bytes {begin} to {begin + len(block)} is wrong")
            self._last = (number, block)
        return self._last[1]


def _read(file: BinaryIO, begin: int, num_bytes: int, uri: str) -> bytes:
    file.seek(begin)
    body = file.read(num_bytes)
    if len(body) != num_bytes:
        raise IntegrityError(uri, f"{len(body)} bytes came of {num_bytes}")
    return body


def _digest_end(size: int, digests: bytes, footer: bytes) -> bytes:
    return _digest(struct.pack("<Q", size) + digests + footer)


def _digest(body: bytes | memoryview) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()
