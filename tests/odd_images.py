"""Twenty files such as lie in any bucket: cut off, mislabelled, unusual but sound. Each with what must become of it."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskrcnn.errors import ErrorKind

WIDTH, HEIGHT = 160, 120
ORIENTATION = 274


@dataclass(frozen=True)
class OddImage:
    """A file and its expected row: `ok` with a size after the EXIF policy, or `error` with a kind."""

    name: str
    body: bytes
    status: str
    error_kind: ErrorKind | None
    width: int | None
    height: int | None


def photo(seed: int = 0) -> NDArray[np.uint8]:
    """Draw (HEIGHT, WIDTH, 3) uint8 RGB: colour gradients under noise, so that no half of it compresses to nothing."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    base = np.stack([x * 255 / WIDTH, y * 255 / HEIGHT, 255 - (x + y) * 255 / (WIDTH + HEIGHT)], axis=2)
    noise = np.random.default_rng(seed).normal(0, 12, base.shape)
    return np.clip(base + noise, 0, 255).astype(np.uint8)


def grey_16(seed: int = 0) -> NDArray[np.uint16]:
    """Draw (HEIGHT, WIDTH) uint16 grey from end to end of its range."""
    ramp = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16)
    return np.random.default_rng(seed).permutation(ramp).reshape(HEIGHT, WIDTH)


def palette_with_alpha() -> tuple[NDArray[np.uint8], NDArray[np.uint8], bytes]:
    """Draw (HEIGHT, WIDTH) indices, their (4, 3) colours, and each colour's alpha."""
    indices = (np.add.outer(np.arange(HEIGHT) // 30, np.arange(WIDTH) // 40) % 4).astype(np.uint8)
    colours = np.array([[255, 0, 0], [0, 200, 30], [10, 20, 240], [250, 250, 5]], np.uint8)
    return indices, colours, bytes([0, 80, 160, 255])


def encode(image: Image.Image | NDArray[Any], format_name: str, **options: Any) -> bytes:
    """Encode with Pillow."""
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, format_name, **options)
    return stream.getvalue()


def exif_orientation(orientation: int) -> Image.Exif:
    """Build an EXIF block that says only how the image must be turned."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def png_chunk(name: bytes, payload: bytes) -> bytes:
    """Build a PNG chunk, checksum and all."""
    return struct.pack(">I", len(payload)) + name + payload + struct.pack(">I", zlib.crc32(name + payload))


def png_header(width: int, height: int) -> bytes:
    """Build a PNG that says it is that large, and holds one row."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    row = png_chunk(b"IDAT", zlib.compress(bytes(1 + 3 * width)))
    return b"\x89PNG\r\n\x1a\n" + header + row + png_chunk(b"IEND", b"")


def _palette_png() -> bytes:
    indices, colours, alpha = palette_with_alpha()
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    return encode(image, "PNG", transparency=alpha)


def _png_with_bad_checksum() -> bytes:
    body = bytearray(encode(photo(), "PNG"))
    body[body.index(b"IDAT") + 1000] ^= 0x10
    return bytes(body)


def _zeroed_from_the_middle(body: bytes) -> bytes:
    half = len(body) // 2
    return body[:half] + bytes(len(body) - half)


def _build() -> list[OddImage]:
    jpeg = encode(photo(), "JPEG", quality=90)
    rgb = Image.fromarray(photo())
    grey_alpha = Image.merge("LA", [rgb.convert("L"), Image.linear_gradient("L").resize(rgb.size)])
    frames = [Image.fromarray(photo(seed)) for seed in range(3)]
    html = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in.</body></html>\n"
    xml = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Denied</Message></Error>'

    def bad(name: str, body: bytes, kind: ErrorKind) -> OddImage:
        return OddImage(name, body, "error", kind, None, None)

    def sound(name: str, body: bytes, width: int = WIDTH, height: int = HEIGHT) -> OddImage:
        return OddImage(name, body, "ok", None, width, height)

    return [
        bad("truncated.jpg", jpeg[: len(jpeg) * 6 // 10], "corrupt"),
        bad("empty.jpg", b"", "corrupt"),
        bad("sign-in-page.jpg", html, "unsupported"),
        bad("access-denied.jpg", xml, "unsupported"),
        sound("png-named.jpg", encode(photo(), "PNG")),
        sound("progressive-without-extension", encode(photo(), "JPEG", progressive=True)),
        sound("grey-16-bit.png", encode(grey_16(), "PNG")),
        sound("cmyk.jpg", encode(rgb.convert("CMYK"), "JPEG", quality=95)),
        sound("palette-with-alpha.png", _palette_png()),
        sound("turned.jpg", encode(photo(), "JPEG", quality=95, exif=exif_orientation(6)), HEIGHT, WIDTH),
        bad("200-megapixels.png", png_header(20_000, 10_000), "too_large"),
        bad("zeroed-second-half.jpg", _zeroed_from_the_middle(jpeg), "corrupt"),
        bad("truncated.png", encode(photo(), "PNG")[:-3000], "corrupt"),
        sound("grey-with-alpha.png", encode(grey_alpha, "PNG")),
        sound("one-bit.png", encode(rgb.convert("1"), "PNG")),
        sound("animated.gif", encode(frames[0], "GIF", save_all=True, append_images=frames[1:])),
        sound("photo.webp", encode(photo(), "WEBP", quality=90)),
        sound("grey-16-bit.tiff", encode(grey_16(), "TIFF", compression="tiff_lzw")),
        sound("bitmap.bmp", encode(photo(), "BMP")),
        bad("bad-checksum.png", _png_with_bad_checksum(), "corrupt"),
    ]


ODD_IMAGES: list[OddImage] = _build()
"""Always the same twenty."""
