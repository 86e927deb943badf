"""PNG's chunks: size and orientation, checksums, and whether the image has its end.

Decoders skip the checksums of the image data, and stop reading before the last chunk.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress

from maskrcnn.images.defect import ImageDefectError, corrupt
from maskrcnn.images.tiff import orientation_of

MAGIC = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")


def size(body: bytes) -> tuple[int, int, int]:
    """Read (width, height, orientation), as stored."""
    name, width, height = struct.unpack_from(">4sII", body, 12)
    if name != b"IHDR":
        raise corrupt("PNG does not begin with its IHDR chunk")
    orientation = 1
    with suppress(ImageDefectError):  # whether the rest is whole is asked when it is decoded
        for name, begin, end in _chunks(body):
            if name == b"eXIf":
                orientation = orientation_of(body[begin + 8 : end - 4])
    return width, height, orientation


def pare(body: bytes) -> bytes:
    """Leave out text, profiles, transparency and animation; refuse wrong checksums and a missing end."""
    view = memoryview(body)
    parts = [view[: len(MAGIC)]]
    names = []
    for name, begin, end in _chunks(body):
        if name not in _PIXEL_CHUNKS:
            continue
        if zlib.crc32(view[begin + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise corrupt(f"PNG is damaged: the checksum of its {name.decode()} chunk at byte {begin} is wrong")
        names.append(name)
        parts.append(view[begin:end])
    if b"IDAT" not in names or names.count(b"IHDR") != 1:
        raise corrupt("PNG is damaged: it must have one IHDR chunk, and image data")
    return b"".join(parts)


def _chunks(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Walk (name, begin, end) up to IEND."""
    at = len(MAGIC)
    while at + 12 <= len(body):
        length, name = struct.unpack_from(">I4s", body, at)
        end = at + 12 + length
        if not name.isalpha():
            raise corrupt(f"PNG is damaged at byte {at}")
        if end > len(body):
            raise corrupt(f"PNG is cut off inside its {name.decode()} chunk")
        yield name, at, end
        if name == b"IEND":
            return
        at = end
    raise corrupt("PNG is cut off: it has no IEND chunk")
