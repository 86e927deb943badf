"""TIFF's directories of tags: the orientation in an EXIF block, and a TIFF's size and the tags its pixels need."""

from __future__ import annotations

import struct
from typing import NamedTuple

from maskrcnn.images.defect import corrupt

ORIENTATION = 274
_WIDTH, _HEIGHT = 256, 257

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGER_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}

_SINGLE_TAGS = frozenset({254, 256, 257, 259, 262, 266, 277, 278, 284, 317, 322, 323})
_PIXEL_TAGS = _SINGLE_TAGS | {
    *(258, 273, 279, 292, 293, 320, 324, 325, 338, 339, 347),
    *(512, 513, 514, 515, 517, 518, 519, 520, 521),  # JPEG of the first kind
    *(529, 530, 531, 532),  # YCbCr
}
"""Tags that say how to decode the pixels. All others, from GPS to thumbnails, only offer more ways to fail."""


class _Entry(NamedTuple):
    tag: int
    kind: int
    num_values: int
    value_at: int
    raw: bytes


class _Layout(NamedTuple):
    order: str
    is_big: bool
    first_directory_at: int


def orientation_of(exif: bytes) -> int:
    """Read the orientation out of an EXIF block.

    Args:
        exif: the block, with or without its `Exif` prefix.

    Returns:
        1 to 8; 1, upright, where the block is empty, damaged or says nothing.
    """
    block = exif.removeprefix(b"Exif\x00\x00")
    try:
        layout = _layout(block)
        for entry in _entries(block, layout):
            if entry.tag == ORIENTATION:
                return _valid_orientation(_integer(block, layout, entry))
    except Exception:  # cameras write all sorts here, and the image is fine without
        return 1
    return 1


def size(body: bytes) -> tuple[int, int, int]:
    """Read (width, height, orientation) of the first image, as stored."""
    layout = _layout(body)
    entries = {entry.tag: entry for entry in _entries(body, layout)}
    if _WIDTH not in entries or _HEIGHT not in entries:
        raise corrupt("TIFF does not say its width and height")
    width, height = (_integer(body, layout, entries[tag]) for tag in (_WIDTH, _HEIGHT))
    turned = entries.get(ORIENTATION)
    return width, height, 1 if turned is None else _valid_orientation(_integer(body, layout, turned))


def pare(body: bytes) -> bytes:
    """Rewrite a TIFF so that its one directory holds what decoding the first image takes, and no orientation."""
    layout = _layout(body)
    kept = [entry for entry in _entries(body, layout) if entry.tag in _PIXEL_TAGS]
    for entry in kept:
        if entry.value_at + _TYPE_BYTES.get(entry.kind, 0) * entry.num_values > len(body):
            raise corrupt(f"TIFF is cut off: tag {entry.tag} lies beyond its end")
        if entry.tag in _SINGLE_TAGS and entry.num_values != 1:
            raise corrupt(f"TIFF is damaged: tag {entry.tag} holds {entry.num_values} values, not one")

    # Written over the old directory, so that nothing is appended that could pass for missing pixels.
    count = struct.pack(layout.order + ("Q" if layout.is_big else "H"), len(kept))
    no_next = bytes(8 if layout.is_big else 4)
    directory = b"".join([count, *(entry.raw for entry in kept), no_next])
    begin = layout.first_directory_at
    return b"".join([body[:begin], directory, memoryview(body)[begin + len(directory) :]])


def _layout(block: bytes) -> _Layout:
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        raise corrupt("TIFF does not say its byte order")
    is_big = struct.unpack_from(order + "H", block, 2)[0] == 43
    first_at: int = struct.unpack_from(order + ("Q" if is_big else "I"), block, 8 if is_big else 4)[0]
    return _Layout(order, is_big, first_at)


def _entries(block: bytes, layout: _Layout) -> list[_Entry]:
    order, is_big, at = layout
    count_format, entry_format, inline_bytes = ("Q", "HHQ", 8) if is_big else ("H", "HHI", 4)
    if at + 2 > len(block):
        raise corrupt("TIFF is cut off before its directory")
    num_entries: int = struct.unpack_from(order + count_format, block, at)[0]
    at += struct.calcsize("=" + count_format)
    entry_bytes = struct.calcsize("=" + entry_format) + inline_bytes
    if at + num_entries * entry_bytes > len(block):
        raise corrupt("TIFF is cut off inside its directory")
    entries = []
    for begin in range(at, at + num_entries * entry_bytes, entry_bytes):
        tag, kind, count = struct.unpack_from(order + entry_format, block, begin)
        value_at = begin + entry_bytes - inline_bytes
        if _TYPE_BYTES.get(kind, 0) * count > inline_bytes:
            value_at = struct.unpack_from(order + ("Q" if is_big else "I"), block, value_at)[0]
        entries.append(_Entry(tag, kind, count, value_at, block[begin : begin + entry_bytes]))
    return entries


def _integer(block: bytes, layout: _Layout, entry: _Entry) -> int:
    if entry.kind not in _INTEGER_CODES or entry.num_values != 1:
        raise corrupt(f"TIFF is damaged: tag {entry.tag} is not one whole number")
    value: int = struct.unpack_from(layout.order + _INTEGER_CODES[entry.kind], block, entry.value_at)[0]
    return value


def _valid_orientation(value: int) -> int:
    return value if 1 <= value <= 8 else 1
