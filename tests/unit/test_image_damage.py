"""Damaged and strange image files: what is not whole is corrupt, and what surrounds the pixels does not matter."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from maskrcnn import images
from maskrcnn.images import BadImage
from tests.odd_images import encode, exif_orientation, photo, png_chunk


def decoded(body: bytes, **options: Any) -> NDArray[np.uint8]:
    pixels = images.decode(body, **options)
    assert not isinstance(pixels, BadImage), pixels
    return pixels


def refused(body: bytes, **options: Any) -> BadImage:
    bad = images.decode(body, **options)
    assert isinstance(bad, BadImage)
    return bad


def as_pillow_sees(body: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))


def with_tag(tiff: bytes, tag: int, value: int) -> bytes:
    """Overwrite a TIFF tag that holds one short."""
    entry = struct.pack("<HHI", tag, 3, 1)
    assert tiff.count(entry) == 1
    at = tiff.index(entry) + len(entry)
    return tiff[:at] + struct.pack("<I", value) + tiff[at + 4 :]


def after_start(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """Put a segment at the start of a JPEG."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def after_ihdr(png: bytes, chunks: bytes) -> bytes:
    """Put chunks behind a PNG's header."""
    return png[:33] + chunks + png[33:]


def test_a_smear_of_pixels_with_its_size_forged_is_refused() -> None:
    """Pillow reads the second header chunk, whose size was never held against the cap."""
    honest = encode(photo(), "PNG")
    forged = after_ihdr(honest, png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)))
    assert refused(forged).kind == "corrupt"


def test_files_that_are_no_images_are_described_safely() -> None:
    for body, start in [
        (b"%PDF-1.7\n%\xe2\xe3", "%PDF-1.7.%.."),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "<svg xmlns='http://w"[:20]),
        (b'{"error": "no such bucket"}', '{"error": "no such b'),
        (b"BMW is a car, not a bitmap", "BMW is a car, not a "),
        (b"\x1b[31mred\x07\r\n" * 9, ".[31mred....[31mred."),
        (b"hello", "hello"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1", "....ftypheic....mif1"),
    ]:
        bad = refused(body)
        assert bad.kind == "unsupported"
        assert bad.reason.endswith(f"it begins with '{start}'")


@pytest.mark.parametrize("body", [b"", bytes(5000), b"\x89PN", b"GIF8", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"II*\0"])
def test_what_is_left_of_an_image_is_corrupt(body: bytes) -> None:
    assert refused(body).kind == "corrupt"


ENCODINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {"quality": 90}),
    "progressive jpeg": ("JPEG", {"quality": 90, "progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"quality": 90}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "lzw tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "deflate tiff": ("TIFF", {"compression": "tiff_deflate"}),
}


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_files_cut_off_are_corrupt(name: str, share: float) -> None:
    format_name, options = ENCODINGS[name]
    body = encode(photo(), format_name, **options)
    assert refused(body[: int(len(body) * share)]).kind == "corrupt"
    assert refused(body[:-1]).kind == "corrupt"


@pytest.mark.parametrize("name", [name for name in ENCODINGS if name not in ("lossless webp", "bmp", "tiff")])
@pytest.mark.parametrize("share", [0.5, 0.7])
def test_files_zeroed_from_some_point_on_are_corrupt(name: str, share: float) -> None:
    """Those left out have no checksum, no end marker and no code that zeros break: they cannot be told from dark."""
    format_name, options = ENCODINGS[name]
    body = encode(photo(), format_name, **options)
    kept = int(len(body) * share)
    assert refused(body[:kept] + bytes(len(body) - kept)).kind == "corrupt"


def flat(width: int, height: int, value: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def gradient(width: int, height: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=2).astype(np.uint8)


def texture_above_white(width: int, height: int) -> NDArray[np.uint8]:
    pixels = flat(width, height, 255)
    pixels[: height // 20] = np.random.default_rng(0).integers(0, 255, (height // 20, width, 3))
    return pixels


CALM = {
    "tiny black": flat(16, 16, 0),
    "black": flat(640, 480, 0),
    "grey": flat(640, 480, 128),
    "white": flat(900, 900, 255),
    "gradient": gradient(2000, 1500),
    "texture above white": texture_above_white(800, 600),
}


@pytest.mark.parametrize("name", CALM)
@pytest.mark.parametrize("quality", [0, 50, 90, 100])
def test_calm_webps_may_end_in_zeros_and_are_sound(name: str, quality: int) -> None:
    body = encode(CALM[name], "WEBP", quality=quality, method=0)
    np.testing.assert_array_equal(decoded(body), as_pillow_sees(body))


def test_some_sound_webps_end_in_many_zeros() -> None:
    body = encode(CALM["black"], "WEBP", quality=100, method=0)
    assert len(body) - len(body.rstrip(b"\0")) > len(body) / 8


@given(
    st.integers(16, 400), st.integers(16, 400), st.integers(0, 255), st.integers(0, 100), st.sampled_from([0, 4, 6]),
    st.floats(0, 1), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_no_webp_that_an_encoder_wrote_is_refused(
    width: int, height: int, value: int, quality: int, method: int, texture: float, seed: int
) -> None:
    pixels = flat(width, height, value)
    rows = int(height * texture)
    pixels[:rows] = np.random.default_rng(seed).integers(0, 255, (rows, width, 3))
    decoded(encode(pixels, "WEBP", quality=quality, method=method))


@pytest.mark.parametrize("quality", [50, 100])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_webps_with_calm_parts_are_corrupt_when_zeroed(quality: int, share: float) -> None:
    pixels = flat(640, 480, 255)
    pixels[100:] = np.random.default_rng(0).integers(0, 255, (380, 640, 3))
    body = encode(pixels, "WEBP", quality=quality)
    kept = int(len(body) * share)
    assert "bytes of image data are 0" in refused(body[:kept] + bytes(len(body) - kept)).reason


def test_bytes_after_the_end_of_a_jpeg_do_not_matter() -> None:
    body = encode(photo(), "JPEG")
    for tail in (b"\0" * 5000, b"trailer", body, b"\xff\xd9"):
        np.testing.assert_array_equal(decoded(body + tail), decoded(body))


def test_the_end_of_a_preview_is_not_the_end_of_the_image() -> None:
    preview = encode(Image.fromarray(photo()).resize((40, 30)), "JPEG")
    body = after_start(encode(photo(), "JPEG"), 0xE1, b"Exif\0\0" + preview)
    assert decoded(body).shape == photo().shape
    assert refused(body[:-2]).kind == "corrupt"


def test_restart_markers_and_fill_bytes_are_part_of_a_jpeg() -> None:
    body = encode(photo(), "JPEG", restart_marker_blocks=3)
    assert b"\xff\xd0" in body
    np.testing.assert_array_equal(decoded(body), as_pillow_sees(body))
    filled = body[:-2] + b"\xff\xff\xff\xd9"
    np.testing.assert_array_equal(decoded(filled), decoded(body))


@pytest.mark.parametrize(
    ("marker", "payload"),
    [
        (0xE2, b"MPF\0" + bytes(range(60))),
        (0xED, b"Photoshop 3.0\0" + b"8BIM" + b"\xff" * 7),
        (0xE2, b"ICC_PROFILE\0"),
        (0xFE, b"\xff\xd9 a comment"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation='6'"),
    ],
)
def test_metadata_cannot_spoil_a_jpeg(marker: int, payload: bytes) -> None:
    body = encode(photo(), "JPEG")
    np.testing.assert_array_equal(decoded(after_start(body, marker, payload)), decoded(body))


def test_metadata_cannot_spoil_a_png() -> None:
    body = encode(photo(), "PNG")
    bomb = png_chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(20_000_000)))
    bad_checksum = png_chunk(b"tEXt", b"note\0hello")[:-4] + b"\0\0\0\0"
    broken_animation = png_chunk(b"acTL", bytes(8)) + png_chunk(b"fcTL", bytes(26))
    for chunks in (bomb, bad_checksum, broken_animation, png_chunk(b"iCCP", b"x\0\0junk"), png_chunk(b"gAMA", b"")):
        np.testing.assert_array_equal(decoded(after_ihdr(body, chunks)), photo())


def test_metadata_cannot_spoil_a_tiff() -> None:
    body = encode(photo(), "TIFF", tiffinfo={270: "a description", 305: "some software"})
    entry = struct.pack("<HHI", 270, 2, 14)
    assert body.count(entry) == 1
    far_away = body.replace(entry, struct.pack("<HHI", 270, 2, 2**31))
    np.testing.assert_array_equal(decoded(far_away), photo())


def test_kinds_that_pillow_does_not_know_are_unsupported() -> None:
    tiff = with_tag(encode(photo(), "TIFF"), 262, 9)
    bmp = bytearray(encode(photo(), "BMP"))
    bmp[28:30] = struct.pack("<H", 23)
    lossless_jpeg = encode(photo(), "JPEG").replace(b"\xff\xc0", b"\xff\xc3", 1)
    twelve_bit_jpeg = encode(photo(), "JPEG").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c", 1)
    for body in (tiff, bytes(bmp), lossless_jpeg, twelve_bit_jpeg):
        assert refused(body).kind == "unsupported"


def test_a_webp_whose_canvas_is_not_its_picture_is_refused_before_it_is_drawn() -> None:
    honest = encode(photo(), "WEBP", exif=exif_orientation(1))
    assert honest[12:16] == b"VP8X"
    forged = honest[:24] + (9999).to_bytes(3, "little") + honest[27:]
    assert refused(forged).reason == "WebP is damaged: its sizes contradict each other"
    animated = encode(Image.fromarray(photo()), "WEBP", save_all=True, append_images=[Image.fromarray(photo(1))])
    assert decoded(animated).shape == photo().shape
