"""JPEG's segments: size and orientation, and whether the image has its end.

A JPEG that was cut, or whose tail was zeroed, may decode without complaint, grey or smeared where the data stopped.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from maskrcnn.images.defect import corrupt, unsupported
from maskrcnn.images.tiff import orientation_of

# Markers inside compressed data are stuffing (FF 00), restarts (FF D0 to D7) or fill (FF FF); any other ends a scan.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODABLE_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
_ALONE = (0x00, 0x01, *range(0xD0, 0xD9))
_SCAN, _END = 0xDA, 0xD9
_PIXEL_MARKERS = frozenset(range(0xC0, 0xE0)) | {0xE0, 0xEE}  # JFIF and Adobe say which colours are meant


def size(body: bytes) -> tuple[int, int, int]:
    """Read (width, height, orientation), as stored."""
    orientation = None
    for marker, begin, end in _segments(body):
        if marker == 0xE1 and orientation is None and body[begin + 4 : begin + 10] == b"Exif\0\0":
            orientation = orientation_of(body[begin + 4 : end])
        if marker in _FRAMES:
            precision, height, width = struct.unpack_from(">BHH", body, begin + 4)
            if marker not in _DECODABLE_FRAMES or precision != 8:
                raise unsupported(f"is a lossless, hierarchical or {precision}-bit JPEG; save it as a usual 8-bit one")
            return width, height, orientation or 1
    raise corrupt("JPEG does not say its width and height")


def pare(body: bytes) -> bytes:
    """Leave out comments, profiles and previews, and what follows the image; refuse one that has no end."""
    view = memoryview(body)
    parts = [view[:2]]
    for marker, begin, end in _segments(body):
        if marker in _PIXEL_MARKERS:
            parts.append(view[begin:end])
    at = end
    while found := _SCAN_END.search(body, at):
        marker, at = body[found.end() - 1], found.end()
        if marker == _END:
            return b"".join([*parts, view[end:at]])
        if marker not in _ALONE:
            at += int.from_bytes(body[at : at + 2], "big")
    raise corrupt("JPEG is cut off: it has no end-of-image marker")


def _segments(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Walk (marker, begin, end) up to the first start of scan."""
    at = 2
    while (at := body.find(b"\xff", at)) >= 0 and at + 4 <= len(body):
        marker = body[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker == _END:
            break
        else:
            end = at + 2 + int.from_bytes(body[at + 2 : at + 4], "big")
            if end > len(body):
                break
            yield marker, at, end
            if marker == _SCAN:
                return
            at = end
    raise corrupt("JPEG ends before its image data")
