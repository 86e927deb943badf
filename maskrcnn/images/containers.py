"""Which format a file is in, how large its image is, and whether it is whole. Hardly anything is decoded here.

Decoders let much pass: a JPEG or WebP whose second half was zeroed, a PNG cut before its end. And they fail over what
has nothing to do with the pixels: a text chunk, a preview, a GPS tag. So each file is walked first by its format's
reader, and handed on pared to what the pixels need.

What no reader can tell from a dark image: zeros in BMPs, uncompressed TIFFs and lossless WebPs, and a hole in a
progressive JPEG or a WebP. A flipped bit is noticed where there are checksums, in PNGs, and hardly anywhere else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Literal, NamedTuple

from maskrcnn.images import gif, jpeg, png, tiff, webp
from maskrcnn.images.defect import ImageDefectError, corrupt, unsupported

Format = Literal["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]

_DIB_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)
_LONG_MAGICS = (png.MAGIC, b"GIF89a", b"RIFF")


class StoredSize(NamedTuple):
    """An image as it lies in the file: size in px before any turning, and the EXIF orientation, 1 to 8."""

    format: Format
    width: int
    height: int
    orientation: int


def sniff(body: bytes) -> Format | None:
    """Tell the format by the first bytes; None for anything else."""
    if body.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if body.startswith(png.MAGIC):
        return "PNG"
    if body.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if body.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return "WEBP"
    if body[:2] == b"BM" and int.from_bytes(body[14:18], "little") in _DIB_HEADER_BYTES:
        return "BMP"
    return None


def parse_header(body: bytes) -> StoredSize:
    """Read format, size and orientation.

    Raises:
        ImageDefectError: empty, of another format, or cut off or damaged before its size.
    """
    if not body:
        raise corrupt("is empty")
    name = sniff(body)
    if name is None:
        raise _explain_unknown(body)
    try:
        width, height, orientation = _SIZES[name](body)
    except (IndexError, struct.error):
        raise corrupt(f"{name} is cut off inside its header") from None
    if width < 1 or height < 1:
        raise corrupt(f"{name} says that it is {width} x {height} px")
    return StoredSize(name, width, height, orientation)


def pare(body: bytes, name: Format) -> bytes:
    """Check that a file is whole, and leave out what its pixels do not need.

    Raises:
        ImageDefectError: cut off or damaged.
    """
    try:
        return _PARERS[name](body) if name in _PARERS else body
    except (IndexError, struct.error):
        raise corrupt(f"{name} is cut off") from None


def _explain_unknown(body: bytes) -> ImageDefectError:
    if not body.strip(b"\0"):
        return corrupt(f"holds {len(body)} bytes of 0 and nothing else")
    if len(body) < 8 and any(magic.startswith(body) for magic in _LONG_MAGICS):
        return corrupt(f"is cut off after {len(body)} bytes")
    shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in body[:20])
    return unsupported(f"is not a JPEG, PNG, WebP, BMP, TIFF or GIF; it begins with '{shown}'")


def _bmp_size(body: bytes) -> tuple[int, int, int]:
    if body[14] == 12:
        return (*struct.unpack_from("<HH", body, 18), 1)
    width, height = struct.unpack_from("<ii", body, 18)
    return width, abs(height), 1  # below 0: stored from the top


_SIZES: dict[Format, Callable[[bytes], tuple[int, int, int]]] = {
    "JPEG": jpeg.size,
    "PNG": png.size,
    "WEBP": webp.size,
    "BMP": _bmp_size,
    "TIFF": tiff.size,
    "GIF": gif.size,
}

# A BMP has nothing to walk: header, then rows, which the decoder counts.
_PARERS: dict[Format, Callable[[bytes], bytes]] = {
    "JPEG": jpeg.pare,
    "PNG": png.pare,
    "WEBP": webp.pare,
    "TIFF": tiff.pare,
    "GIF": gif.pare,
}
