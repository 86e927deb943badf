"""WebP's chunks: size and orientation, and whether all of the image is there."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress

from maskrcnn.images.defect import ImageDefectError, corrupt
from maskrcnn.images.tiff import orientation_of

_LIKELY_ZERO_TAIL = 1 / 8
"""Share of a lossy WebP that may end in zeros: flat images reach 1/13 when tiny, 1/18 when large. Lossless ones are
not judged by it: four fifths of one may be zeros."""


def size(body: bytes) -> tuple[int, int, int]:
    """Read (width, height, orientation), as stored."""
    name = body[12:16]
    if name == b"VP8X":
        width, height = (1 + int.from_bytes(body[at : at + 3], "little") for at in (24, 27))
    elif name == b"VP8L":
        bits = struct.unpack_from("<I", body, 21)[0]
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif name == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 26))
    else:
        raise corrupt("WebP does not begin with an image chunk")
    orientation = 1
    with suppress(ImageDefectError, struct.error):
        for name, begin, end in _chunks(body):
            if name == b"EXIF":
                orientation = orientation_of(body[begin:end])
    return width, height, orientation


def pare(body: bytes) -> bytes:
    """Refuse one that is cut off or zeroed; nothing needs leaving out."""
    for name, begin, end in _chunks(body):
        payload = body[begin:end] if name == b"VP8 " else b""
        num_zeros = len(payload) - len(payload.rstrip(b"\0"))
        if num_zeros > 256 and num_zeros > _LIKELY_ZERO_TAIL * len(payload):
            raise corrupt(f"WebP is damaged: its last {num_zeros} bytes of image data are 0")
    return body


def _chunks(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Walk (name, begin, end) of the payloads."""
    riff_end = 8 + int.from_bytes(body[4:8], "little")
    if riff_end > len(body):
        raise corrupt(f"WebP is cut off: it says {riff_end} bytes, and has {len(body)}")
    at = 12
    while at + 8 <= riff_end:
        name, length = struct.unpack_from("<4sI", body, at)
        begin, end = at + 8, at + 8 + length
        if end > riff_end:
            raise corrupt(f"WebP is damaged at byte {at}")
        yield name, begin, end
        at = end + length % 2
