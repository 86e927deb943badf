"""GIF's blocks: the size of the first frame, and whether all of it is there."""

from __future__ import annotations

import struct

from maskrcnn.images.defect import corrupt


def size(body: bytes) -> tuple[int, int, int]:
    """Read (width, height, orientation); the first frame may be larger than the canvas, and GIFs are never turned."""
    width, height, _ = _first_frame(body)
    return width, height, 1


def pare(body: bytes) -> bytes:
    """Leave out all frames but the first; refuse one that breaks off."""
    end = _blocks_end(body, _first_frame(body)[2])
    # A block's length byte that was zeroed looks like the end of the frame, but then no block and no trailer follows.
    if body[end] not in (0x21, 0x2C, 0x3B):
        raise corrupt(f"GIF is damaged: its first frame breaks off at byte {end}")
    return body[:end] + b";"


def _first_frame(body: bytes) -> tuple[int, int, int]:
    """Find (width, height, where the first frame's blocks of compressed data begin)."""
    width, height, flags = struct.unpack_from("<HHB", body, 6)
    at = 13 + _table_bytes(flags)
    while body[at] == 0x21:
        at = _blocks_end(body, at + 2)
    if body[at] != 0x2C:
        raise corrupt("GIF is damaged: its blocks hold no image")
    left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", body, at + 1)
    at += 10 + _table_bytes(flags) + 1
    return max(width, left + frame_width), max(height, top + frame_height), at


def _table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _blocks_end(body: bytes, at: int) -> int:
    while body[at]:
        at += body[at] + 1
    return at + 1
