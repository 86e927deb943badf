"""Decoded images are tensors of their own, in torch's layout; a bad image stays a value."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn import images
from maskrcnn.config import PreprocessConfig
from maskrcnn.images import BadImage, ImageHeader
from maskrcnn.model.decode import DecodedImage, decode_image, decoded_bytes
from tests.odd_images import exif_orientation

WHOLE = PreprocessConfig()
REDUCED = PreprocessConfig(min_size_px=32, max_size_px=64, decode_scale=8)


@pytest.fixture
def pixels() -> np.ndarray:  # (H, W, 3)
    return np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **options)
    return file.getvalue()


def decoded(body: bytes, preprocess: PreprocessConfig = WHOLE) -> DecodedImage:
    image = decode_image(body, preprocess)
    assert isinstance(image, DecodedImage), image
    return image


def test_channels_come_first(pixels: np.ndarray) -> None:
    image = decoded(encoded(pixels, format="PNG"))
    assert image.size == (5, 9)
    assert image.pixels.dtype == torch.uint8
    assert image.pixels.is_contiguous()
    np.testing.assert_array_equal(image.pixels.numpy(), pixels.transpose(2, 0, 1))
    image.pixels.zero_()  # writable: its memory is nobody else's


def test_the_exif_policy_is_the_callers(pixels: np.ndarray) -> None:
    body = encoded(pixels, format="PNG", exif=exif_orientation(6))
    turned, as_stored = decoded(body), decoded(body, PreprocessConfig(apply_exif=False))
    assert (turned.size, as_stored.size) == ((9, 5), (5, 9))
    assert torch.equal(turned.pixels, as_stored.pixels.rot90(-1, (1, 2)))


def test_a_bad_image_is_a_value(pixels: np.ndarray) -> None:
    body = encoded(pixels, format="PNG")
    for bad, kind in [(b"", "corrupt"), (body[:40], "corrupt")]:
        found = decode_image(bad, WHOLE)
        assert isinstance(found, BadImage)
        assert found.kind == kind
    large = decode_image(body, WHOLE, max_pixels=44)
    assert isinstance(large, BadImage)
    assert large.kind == "too_large"


def test_a_photo_of_12_megapixels_is_decoded_at_a_half() -> None:
    body = encoded(np.full((3000, 4000, 3), 90, np.uint8), format="JPEG")
    image = decoded(body, PreprocessConfig(min_size_px=800, decode_scale=8))
    assert image.size == (3000, 4000)
    assert image.pixels.shape == (3, 1500, 2000)
    assert decoded(body).pixels.shape == (3, 3000, 4000)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_image_is_turned_like_a_whole_one(orientation: int) -> None:
    y, x = np.mgrid[0:200, 0:320]
    smooth = np.stack([x * 255 / 320, y * 255 / 200, 255 - x * 255 / 320], axis=2).astype(np.uint8)
    body = encoded(smooth, format="JPEG", quality=95, exif=exif_orientation(orientation))
    whole, reduced = decoded(body), decoded(body, REDUCED)
    assert whole.size == reduced.size == tuple(whole.pixels.shape[1:])
    assert sorted(reduced.pixels.shape[1:]) == [50, 80]  # a quarter: an eighth of 200 is less than the wanted 32
    means = torch.nn.functional.avg_pool2d(whole.pixels.float(), 4)
    assert (reduced.pixels - means).abs().max() <= 4


def test_the_bytes_are_known_from_the_header(pixels: np.ndarray) -> None:
    large = np.zeros((301, 203, 3), np.uint8)
    for body in (encoded(large, format="JPEG"), encoded(large, format="PNG"), encoded(pixels, format="JPEG")):
        header = images.read_header(body)
        assert isinstance(header, ImageHeader)
        assert decoded_bytes(header, REDUCED) == decoded(body, REDUCED).pixels.nbytes
    assert decoded(encoded(large, format="PNG"), REDUCED).pixels.shape == (3, 301, 203)


def test_the_cap_is_on_the_whole_size() -> None:
    body = encoded(np.zeros((300, 200, 3), np.uint8), format="JPEG")
    large = decode_image(body, REDUCED, max_pixels=300 * 200 - 1)
    assert isinstance(large, BadImage)
    assert large.kind == "too_large"
    assert isinstance(decode_image(body, REDUCED, max_pixels=300 * 200), DecodedImage)
