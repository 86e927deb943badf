"""Image files as an attacker, a broken camera or a bad disk would write them; the n-th is always the same."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.odd_images import encode, exif_orientation, photo, png_chunk

SMALL = photo()[:48, :64]
SOUND: dict[str, bytes] = {
    "jpeg": encode(SMALL, "JPEG", exif=exif_orientation(6)),
    "progressive jpeg": encode(SMALL, "JPEG", progressive=True),
    "cmyk jpeg": encode(Image.fromarray(SMALL).convert("CMYK"), "JPEG"),
    "png": encode(SMALL, "PNG", exif=exif_orientation(3)),
    "palette png": encode(Image.fromarray(SMALL).quantize(16), "PNG"),
    "16-bit png": encode(SMALL[..., 0].astype(np.uint16) * 257, "PNG"),
    "webp": encode(SMALL, "WEBP", exif=exif_orientation(8)),
    "lossless webp": encode(SMALL, "WEBP", lossless=True),
    "bmp": encode(SMALL, "BMP"),
    "gif": encode(SMALL, "GIF"),
    "tiff": encode(SMALL, "TIFF", exif=exif_orientation(5)),
    "lzw tiff": encode(SMALL, "TIFF", compression="tiff_lzw"),
    "deflate tiff": encode(SMALL, "TIFF", compression="tiff_deflate"),
    "jpeg tiff": encode(SMALL, "TIFF", compression="jpeg"),
}
SIDES = [0, 1, 2, 64, 8191, 16_383, 20_000, 32_768, 65_535, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1]


def hostile_image(number: int) -> bytes:
    """Make the n-th hostile file."""
    rng = random.Random(number)
    body = rng.choice(_MAKERS)(rng)
    for _ in range(rng.choice([0, 0, 1, 2])):
        body = rng.choice(_DAMAGES)(body, rng)
    return body


def _damaged(rng: random.Random) -> bytes:
    body = rng.choice(list(SOUND.values()))
    for _ in range(rng.randint(1, 5)):
        body = rng.choice(_DAMAGES)(body, rng)
    return body


def _cut(body: bytes, rng: random.Random) -> bytes:
    return body[: rng.randint(0, len(body))]


def _flip(body: bytes, rng: random.Random) -> bytes:
    flipped = bytearray(body)
    for _ in range(rng.choice([1, 1, 8, 64])):
        if flipped:
            flipped[_place(body, rng) % len(body)] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _zero(body: bytes, rng: random.Random) -> bytes:
    begin = _place(body, rng)
    length = min(rng.choice([1, 4, 64, 512, 10**6]), len(body) - begin)
    return body[:begin] + bytes(max(length, 0)) + body[begin + max(length, 0) :]


def _overwrite(body: bytes, rng: random.Random) -> bytes:
    """Put a number that means much where a length, a count or an offset may stand."""
    number = rng.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, len(body), len(body) + 1])
    size = rng.choice([2, 4])
    patch = (number % 256**size).to_bytes(size, rng.choice(["big", "little"]))
    at = _place(body, rng)
    return body[:at] + patch + body[at + size :]


def _insert(body: bytes, rng: random.Random) -> bytes:
    at = _place(body, rng)
    return body[:at] + rng.randbytes(rng.choice([1, 7, 100])) + body[at:]


def _graft(body: bytes, rng: random.Random) -> bytes:
    """Go on with another file from some byte on."""
    other = rng.choice(list(SOUND.values()))
    return body[: _place(body, rng)] + other[_place(other, rng) :]


def _place(body: bytes, rng: random.Random) -> int:
    """Choose a byte, most often among the first: headers are what decoders believe."""
    return rng.randrange(min(len(body), rng.choice([64, 300, 10**9])) or 1)


def _lying_size(rng: random.Random) -> bytes:
    width, height = rng.choice(SIDES), rng.choice(SIDES)
    name = rng.choice(["png", "jpeg", "progressive jpeg", "bmp", "gif", "webp", "lossless webp", "tiff", "lzw tiff"])
    body = bytearray(SOUND[name])
    if name == "png":
        header = struct.pack(
            ">IIBBBBB", width % 2**32, height % 2**32, rng.choice([1, 8, 16]), rng.choice([0, 2, 3, 6]), 0, 0, 0
        )
        return bytes(body[:8]) + png_chunk(b"IHDR", header) + bytes(body[33:])
    if "jpeg" in name:
        at = body.index(b"\xff\xc2" if name.startswith("progressive") else b"\xff\xc0")
        struct.pack_into(">HH", body, at + 5, height % 2**16, width % 2**16)
    elif name == "bmp":
        struct.pack_into("<ii", body, 18, _signed(width), _signed(rng.choice([height, -height])))
    elif name == "gif":
        at = body.index(b",", 13)
        struct.pack_into("<HH", body, rng.choice([6, at + 5]), width % 2**16, height % 2**16)
    elif name == "webp":
        at = body.index(b"VP8 ") + 14
        struct.pack_into("<HH", body, at, width % 2**14, height % 2**14)
        body[24:30] = (width % 2**24).to_bytes(3, "little") + (height % 2**24).to_bytes(3, "little")
    elif name == "lossless webp":
        struct.pack_into("<I", body, 21, width % 2**14 | (height % 2**14) << 14)
    else:
        for tag, value in ((256, width), (257, height)):
            entry = bytes(body).find(struct.pack("<H", tag) + b"\x03\x00\x01\x00\x00\x00")
            entry = entry if entry >= 0 else bytes(body).find(struct.pack("<H", tag) + b"\x04\x00\x01\x00\x00\x00")
            struct.pack_into("<HHII", body, entry, tag, 4, 1, value % 2**32)
    return bytes(body)


def _signed(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31


def _bomb(rng: random.Random) -> bytes:
    """A little that unpacks to much."""
    zeros = zlib.compress(bytes(rng.choice([10**6, 10**7, 5 * 10**7])), 9)
    png = SOUND["png"]
    header = png_chunk(
        b"IHDR", struct.pack(">IIBBBBB", rng.choice([1, 64, 2000]), rng.choice([1, 64, 2000]), 8, 2, 0, 0, 0)
    )
    kind = rng.choice(["text", "profile", "pixels", "many", "tiff", "gif"])
    if kind == "text":
        return png[:33] + png_chunk(b"zTXt", b"a\0\0" + zeros) + png[33:]
    if kind == "profile":
        return png[:33] + png_chunk(b"iCCP", b"a\0\0" + zeros) + png[33:]
    if kind == "pixels":
        return png[:8] + header + png_chunk(b"IDAT", zeros) + png_chunk(b"IEND", b"")
    if kind == "many":
        chunks = b"".join(png_chunk(b"IDAT", zeros[at : at + 100]) for at in range(0, len(zeros), 100))
        return png[:8] + header + chunks + png_chunk(b"IEND", b"")
    if kind == "tiff":
        stream = io.BytesIO()
        Image.new("RGB", (3000, 2500)).save(stream, "TIFF", compression="tiff_deflate")
        return stream.getvalue()
    return encode(Image.new("P", (3000, 2500)), "GIF")


def _chain(rng: random.Random) -> bytes:
    """Thousands of pieces, or a piece that leads back to itself."""
    number = rng.choice([300, 10_000])
    kind = rng.choice(["png", "jpeg", "jpeg scans", "gif", "webp", "tiff tags", "tiff loop", "exif loop"])
    png, jpeg, gif, webp, tiff = (SOUND[name] for name in ("png", "jpeg", "gif", "webp", "tiff"))
    if kind == "png":
        return png[:33] + png_chunk(rng.choice([b"tEXt", b"IDAT", b"fcTL", b"eXIf"]), b"") * number + png[33:]
    if kind == "jpeg":
        return jpeg[:2] + (b"\xff" + bytes([rng.choice([0xE1, 0xFE, 0xDB, 0xC4, 0xDD])]) + b"\0\2") * number + jpeg[2:]
    if kind == "jpeg scans":
        progressive = SOUND["progressive jpeg"]
        begin = progressive.index(b"\xff\xda")
        return progressive[:-2] + progressive[begin:-2] * min(number, 1000) + b"\xff\xd9"
    if kind == "gif":
        at = gif.index(b",", 13)
        return gif[:at] + b"!\xfe\x01a\0" * number + gif[at:] + gif[at:-1] * 50
    if kind == "webp":
        chunks = b"JUNK\0\0\0\0" * number
        return b"RIFF" + struct.pack("<I", len(webp) - 8 + len(chunks)) + webp[8:] + chunks
    if kind == "exif loop":
        exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHII", 1, 0x8769, 4, 1, 8) + struct.pack(">I", 8)
        return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    directory = struct.unpack_from("<I", tiff, 4)[0]
    if kind == "tiff loop":
        (num_tags,) = struct.unpack_from("<H", tiff, directory)
        after = directory + 2 + 12 * num_tags
        return tiff[:after] + struct.pack("<I", directory) + tiff[after + 4 :]
    tags = b"".join(
        struct.pack("<HHII", rng.choice([256, 273, 279, 330, 34665]), 4, 1, directory) for _ in range(number)
    )
    return tiff + struct.pack("<H", number) + tags + bytes(4)


def _polyglot(rng: random.Random) -> bytes:
    """Two formats in one file, or one in the other's clothes."""
    first, second = rng.sample(list(SOUND.values()), 2)
    kind = rng.choice(["behind", "head", "zip", "script", "nested"])
    if kind == "behind":
        return first + second
    if kind == "head":
        return second[:8] + first
    if kind == "zip":
        return first + b"PK\x03\x04" + bytes(26) + b"PK\x05\x06" + bytes(18)
    if kind == "script":
        return b"GIF89a/*" + first + b"*/=1;alert(1)//"
    jpeg = SOUND["jpeg"]
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(first) % 60_000 + 2) + first[:60_000] + jpeg[2:]


def _noise(rng: random.Random) -> bytes:
    begin = rng.choice([b"", *(body[: rng.choice([4, 12, 40])] for body in SOUND.values())])
    return begin + rng.randbytes(rng.choice([0, 10, 1000, 20_000]))


_DAMAGES: list[Callable[[bytes, random.Random], bytes]] = [
    _cut,
    _flip,
    _flip,
    _zero,
    _overwrite,
    _overwrite,
    _insert,
    _graft,
]
_MAKERS: list[Callable[[random.Random], bytes]] = [
    _damaged, _damaged, _damaged, _lying_size, _lying_size, _bomb, _chain, _polyglot, _noise,
]  # fmt: skip
