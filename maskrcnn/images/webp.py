"""WebP's chunks: size and orientation, and whether all of the image is there."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import suppress

from PIL.WebPImagePlugin import WebPImageFile

from maskrcnn.images.defect import ImageDefectError, corrupt
from maskrcnn.images.tiff import orientation_of

_LONG_ZERO_TAIL = 256
"""Bytes. Flat images end so too, in zeros that stand for pixels."""
_CUT_FROM_TAIL = 128
"""Bytes. Encoders write up to 4 more than are read."""
_ANIMATED = 0x02
"""Of the flags in front of an extended file."""


def size(body: bytes) -> tuple[int, int, int]:
    """Read (width, height, orientation), as stored."""
    name = body[12:16]
    if name == b"VP8X":
        width, height = (1 + int.from_bytes(body[at : at + 3], "little") for at in (24, 27))
    elif name in _FRAME_SIZES:
        width, height = _FRAME_SIZES[name](body, 20)
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
    stored_size = size(body)[:2]
    is_still = body[12:16] == b"VP8X" and not body[20] & _ANIMATED
    for name, begin, end in _chunks(body):
        if is_still and name in _FRAME_SIZES and _FRAME_SIZES[name](body, begin) != stored_size:
            raise corrupt("WebP is damaged: its sizes contradict each other")
        # Lossless ones are not judged by it: four fifths of one may be zeros.
        if name == b"VP8 " and _FRAME_SIZES[name](body, begin) == stored_size:
            _check_tail(body[begin:end])
    return body


def _check_tail(payload: bytes) -> None:
    """Refuse a lossy image that was zeroed from some point on.

    Zeros decode as blocks without detail, a fraction of a bit each, so that the decoder is done long before they end.
    An encoder writes none that are not read.
    """
    num_zeros = len(payload) - len(payload.rstrip(b"\0"))
    if num_zeros > _LONG_ZERO_TAIL and _decodes(payload[:-_CUT_FROM_TAIL]):
        raise corrupt(f"WebP is damaged: its last {num_zeros} bytes of image data are 0")


def _decodes(payload: bytes) -> bool:
    chunk = struct.pack("<4sI", b"VP8 ", len(payload)) + payload + bytes(len(payload) % 2)
    try:
        WebPImageFile(io.BytesIO(struct.pack("<4sI4s", b"RIFF", 4 + len(chunk), b"WEBP") + chunk)).load()
    except Exception:  # Pillow raises all sorts
        return False
    return True


def _lossy_size(body: bytes, begin: int) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", body, begin + 6)
    return width & 0x3FFF, height & 0x3FFF


def _lossless_size(body: bytes, begin: int) -> tuple[int, int]:
    bits = struct.unpack_from("<I", body, begin + 1)[0]
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)


_FRAME_SIZES = {b"VP8 ": _lossy_size, b"VP8L": _lossless_size}


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
