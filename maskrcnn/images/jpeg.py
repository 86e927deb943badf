"""JPEG's segments: size and orientation, and whether the image has its end.

A JPEG that was cut, or whose tail was zeroed, may decode without complaint, grey or smeared where the data stopped.
A flipped bit is noticed by no decoder, only by a checksum beside the file.
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
_TABLES, _SCAN, _END = 0xC4, 0xDA, 0xD9
_SEQUENTIAL_FRAMES = (0xC0, 0xC1)
_PROGRESSIVE_FRAME = 0xC2
_HOLE = bytes(64)
_ZERO_RUN = 0xF0
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
    codes = _Codes()
    num_bytes = 0
    for marker, begin, end in _segments(body):
        if marker in _PIXEL_MARKERS:
            parts.append(view[begin:end])
            codes.read(marker, body[begin + 4 : end])
    scan_begin = at = end
    while found := _SCAN_END.search(body, at):
        marker, marker_at, at = body[found.end() - 1], found.start(), found.end()
        num_bytes += marker_at - scan_begin
        if not codes.may_hold_zeros and body.find(_HOLE, scan_begin, marker_at) >= 0:
            raise corrupt(f"JPEG is damaged: {len(_HOLE)} bytes or more of its image data are 0")
        if marker == _END:
            if num_bytes < codes.least_bytes:
                raise corrupt(f"JPEG is damaged: {num_bytes} bytes of image data are too few for its size")
            return b"".join([*parts, view[end:at]])
        if marker not in _ALONE:
            length = int.from_bytes(body[at : at + 2], "big")
            codes.read(marker, body[at + 2 : at + length])
            at += length
        scan_begin = at
    raise corrupt("JPEG is cut off: it has no end-of-image marker")


class _Codes:
    """What a stretch of zeros would mean in the scan at hand, and how little data the image can have.

    The shortest Huffman code is all zeros. Where it is not a component's end of block, zeros would be 63 equal
    coefficients, block after block, such as no picture has. Refinements of progressive images may well be zeros.
    """

    def __init__(self) -> None:
        self._is_sequential = False
        self._first_symbols: dict[int, int] = {}
        self.may_hold_zeros = True
        self.least_bytes = 0

    def read(self, marker: int, payload: bytes) -> None:
        """Take in a segment."""
        if marker in _FRAMES:
            self._is_sequential = marker in _SEQUENTIAL_FRAMES
            # A block takes two codes of a bit at least; in progressive images one, for many others its second.
            bits_per_block = 2 if self._is_sequential else 1 if marker == _PROGRESSIVE_FRAME else 0
            self.least_bytes = bits_per_block * _count_blocks(payload) // 8
        elif marker == _TABLES:
            at = 0
            while at + 17 < len(payload):
                self._first_symbols[payload[at]] = payload[at + 17]
                at += 17 + sum(payload[at + 1 : at + 17])
        elif marker == _SCAN:
            tables = payload[2 : 1 + 2 * payload[0] : 2]
            symbols = [self._first_symbols.get(0x10 | table & 0x0F, 0) for table in tables]
            is_flat = all(symbol & 0x0F == 0 and symbol != _ZERO_RUN for symbol in symbols)
            self.may_hold_zeros = is_flat or not self._is_sequential


def _count_blocks(frame: bytes) -> int:
    """Count the 8x8 blocks of all components."""
    height, width, num_components = struct.unpack_from(">HHB", frame, 1)
    factors = [divmod(frame[7 + 3 * place], 16) for place in range(num_components)]
    most_across, most_down = (max((one[axis] for one in factors), default=1) or 1 for axis in (0, 1))
    return sum(
        -(-width * across // (8 * most_across)) * -(-height * down // (8 * most_down)) for across, down in factors
    )


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
