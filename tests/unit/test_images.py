"""Image files to RGB: odd files, every kind of pixel, EXIF, caps, threads, and whose settings stay as they were."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from maskrcnn import images
from maskrcnn.images import BadImage, ImageHeader
from tests.odd_images import (
    HEIGHT,
    ODD_IMAGES,
    WIDTH,
    OddImage,
    encode,
    exif_orientation,
    grey_16,
    palette_with_alpha,
    photo,
    png_chunk,
    png_header,
)

ODD = {odd.name: odd for odd in ODD_IMAGES}
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}}


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


def of_16_bits(grey: NDArray[Any]) -> NDArray[np.uint8]:
    return np.round(grey / 257)[..., None].repeat(3, axis=2).astype(np.uint8)


def with_tag(tiff: bytes, tag: int, value: int) -> bytes:
    """Overwrite a TIFF tag that holds one short."""
    entry = struct.pack("<HHI", tag, 3, 1)
    assert tiff.count(entry) == 1
    at = tiff.index(entry) + len(entry)
    return tiff[:at] + struct.pack("<I", value) + tiff[at + 4 :]


def after_start(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """Put a segment at the start of a JPEG."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


@pytest.mark.parametrize("odd", ODD_IMAGES, ids=lambda odd: odd.name)
def test_odd_files_become_what_they_must(odd: OddImage) -> None:
    pixels = images.decode(odd.body)
    if odd.status == "error":
        assert isinstance(pixels, BadImage)
        assert pixels.kind == odd.error_kind
        assert "\n" not in pixels.reason
        return
    assert isinstance(pixels, np.ndarray)
    assert (pixels.shape, pixels.dtype) == ((odd.height, odd.width, 3), np.uint8)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    header = images.read_header(odd.body)
    assert isinstance(header, ImageHeader)
    assert (header.width, header.height) == (odd.width, odd.height)


def test_there_are_twenty_odd_files() -> None:
    assert len(ODD) == len(ODD_IMAGES) == 20


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    expected = of_16_bits(grey_16())
    np.testing.assert_array_equal(decoded(ODD["grey-16-bit.png"].body), expected)
    np.testing.assert_array_equal(decoded(ODD["grey-16-bit.tiff"].body), expected)
    np.testing.assert_array_equal(decoded(encode(grey_16().astype(">u2"), "TIFF")), expected)
    as_32_bits = encode(grey_16().astype(np.int32), "TIFF")
    np.testing.assert_array_equal(decoded(as_32_bits), expected)


def test_16_bit_grey_with_white_as_zero_is_turned() -> None:
    negative = with_tag(encode(grey_16(), "TIFF"), 262, 0)
    np.testing.assert_array_equal(decoded(negative), of_16_bits(65535 - grey_16()))


def test_16_bit_rgb_is_scaled() -> None:
    colour = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in colour)
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0))
    body = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    np.testing.assert_allclose(decoded(body), colour / 257, atol=1)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), "32-bit float"),
        (np.arange(12, dtype=np.int32).reshape(3, 4) * 10_000, "32-bit pixels of 0 to 110000"),
        (np.arange(12, dtype=np.int32).reshape(3, 4) - 300, "32-bit pixels of -300 to -289"),
        (np.arange(12, dtype=np.int32).reshape(3, 4), "32-bit pixels of 0 to 11"),
    ],
)
def test_pixels_without_a_known_range_are_unsupported(pixels: NDArray[Any], reason: str) -> None:
    bad = refused(encode(pixels, "TIFF"))
    assert bad.kind == "unsupported"
    assert reason in bad.reason
    assert "save it as 8-bit or 16-bit" in bad.reason


def test_palette_gives_its_colours_and_drops_alpha() -> None:
    indices, colours, _ = palette_with_alpha()
    np.testing.assert_array_equal(decoded(ODD["palette-with-alpha.png"].body), colours[indices])


def test_grey_alpha_and_one_bit() -> None:
    grey = np.asarray(Image.fromarray(photo()).convert("L"))[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(decoded(ODD["grey-with-alpha.png"].body), grey)
    one_bit = decoded(ODD["one-bit.png"].body)
    assert set(np.unique(one_bit)) == {0, 255}
    np.testing.assert_array_equal(one_bit, as_pillow_sees(ODD["one-bit.png"].body))


def test_transparent_pixels_keep_their_colour() -> None:
    rgba = np.dstack([photo(), np.zeros((HEIGHT, WIDTH), np.uint8)])
    np.testing.assert_array_equal(decoded(encode(rgba, "PNG")), photo())


def test_cmyk_jpegs_are_inverted_as_adobe_writes_them() -> None:
    assert np.abs(decoded(ODD["cmyk.jpg"].body).astype(int) - photo()).mean() < 3
    # Only the transform flag tells YCCK from CMYK; luma 55 there is cyan, magenta and yellow of 55, so grey of 200.
    flat = encode(
        Image.merge("CMYK", [Image.new("L", (16, 16), ink) for ink in (200, 127, 127, 0)]), "JPEG", quality=100
    )
    flag_at = flat.index(b"Adobe") + 11
    assert decoded(flat)[8, 8].tolist() == pytest.approx([55, 128, 128], abs=1)
    ycck = flat[:flag_at] + b"\x02" + flat[flag_at + 1 :]
    assert decoded(ycck)[8, 8].tolist() == pytest.approx([200, 200, 200], abs=1)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"])
def test_tiffs_of_any_colours(mode: str, compression: str | None) -> None:
    body = encode(Image.fromarray(photo()).convert(mode), "TIFF", compression=compression)
    pixels = decoded(body)
    np.testing.assert_array_equal(pixels, as_pillow_sees(body))
    if mode in ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
        assert np.abs(pixels.astype(int) - photo()).max() <= 3


def test_large_tiffs_of_the_second_kind_are_read() -> None:
    np.testing.assert_array_equal(decoded(encode(photo(), "TIFF", big_tiff=True)), photo())


@pytest.mark.parametrize("format_name", LOSSLESS)
def test_lossless_formats_keep_every_pixel(format_name: str) -> None:
    np.testing.assert_array_equal(decoded(encode(photo(), format_name, **LOSSLESS[format_name])), photo())


@pytest.mark.parametrize("format_name", ["GIF", "PNG", "TIFF", "WEBP"])
def test_of_several_frames_the_first_counts(format_name: str) -> None:
    frames = [Image.fromarray(photo(seed)) for seed in range(3)]
    options = LOSSLESS.get(format_name, {})
    body = encode(frames[0], format_name, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decoded(body), as_pillow_sees(body))
    if format_name != "GIF":
        np.testing.assert_array_equal(decoded(body), photo())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_turns_the_image_unless_told_not_to(format_name: str, orientation: int) -> None:
    body = encode(photo(), format_name, exif=exif_orientation(orientation), **LOSSLESS.get(format_name, {}))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(body))))
    np.testing.assert_array_equal(decoded(body), upright)
    header = images.read_header(body)
    height, width = upright.shape[:2]
    assert header == ImageHeader(format_name, width, height, orientation)  # type: ignore[arg-type]
    as_stored = decoded(body, apply_exif=False)
    assert images.read_header(body, apply_exif=False) == ImageHeader(format_name, WIDTH, HEIGHT, orientation)  # type: ignore[arg-type]
    if format_name in LOSSLESS:
        np.testing.assert_array_equal(as_stored, photo())
    else:
        assert as_stored.shape == photo().shape


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0XX*\0\x08\0\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(40),
        b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 274, 3, 1, 9),
        b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 274, 2, 1, 6),
        b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 274, 3, 2**31, 6),
    ],
)
def test_a_broken_exif_block_leaves_the_image_upright(exif: bytes) -> None:
    body = after_start(encode(photo(), "JPEG"), 0xE1, exif)
    assert images.read_header(body) == ImageHeader("JPEG", WIDTH, HEIGHT, 1)
    np.testing.assert_array_equal(decoded(body), decoded(encode(photo(), "JPEG")))


def test_exif_of_either_byte_order_is_read() -> None:
    little = struct.pack("<2sHIHHHII", b"II", 42, 8, 1, 274, 3, 1, 6)
    big = struct.pack(">2sHIHHHIHH", b"MM", 42, 8, 1, 274, 3, 1, 6, 0)
    for block in (little, big):
        header = images.read_header(after_start(encode(photo(), "JPEG"), 0xE1, b"Exif\0\0" + block))
        assert header == ImageHeader("JPEG", HEIGHT, WIDTH, 6)


def test_the_cap_is_checked_in_the_header_with_numbers() -> None:
    assert refused(png_header(20_000, 10_000)) == BadImage(
        "too_large", "is 20000 x 10000 = 200000000 px, more than the cap of 100000000 px"
    )
    assert refused(png_header(10_000, 10_001)).kind == "too_large"
    assert images.read_header(png_header(10_000, 10_000)) == ImageHeader("PNG", 10_000, 10_000, 1)
    for format_name in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"):
        assert refused(encode(photo(), format_name), max_pixels=WIDTH * HEIGHT - 1).kind == "too_large"
        assert decoded(encode(photo(), format_name), max_pixels=WIDTH * HEIGHT).shape == photo().shape


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_pillows_own_limit_neither_binds_us_nor_is_switched_off(
    format_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    body = encode(photo(), format_name)
    assert decoded(body).shape == photo().shape
    assert Image.MAX_IMAGE_PIXELS == 1000
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(body)).load()
    assert refused(body[:-200], max_pixels=10**9).kind == "corrupt"
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_many_threads_decode_at_once_with_pillows_limit_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT // 4)
    expected = [(odd, images.decode(odd.body)) for odd in ODD_IMAGES]
    barrier = threading.Barrier(8)

    def decode_all(_: int) -> bool:
        barrier.wait()
        return all(
            got == want if isinstance(want, BadImage) else np.array_equal(got, want)
            for odd, want in expected
            for got in [images.decode(odd.body)]
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(decode_all, range(8)))
    assert WIDTH * HEIGHT // 4 == Image.MAX_IMAGE_PIXELS


def test_real_images_decode_as_pillow_decodes_them(shared_path: Any) -> None:
    paths = sorted(shared_path.glob("data/*/images/*"))
    assert len(paths) >= 300
    for path in paths[::9]:
        body = path.read_bytes()
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(body))).convert("RGB")
        np.testing.assert_array_equal(decoded(body), np.asarray(upright))
