"""Decoded images are tensors of their own, in torch's layout; a bad image stays a value."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn.images import BadImage
from maskrcnn.model.decode import decode_image


@pytest.fixture
def pixels() -> np.ndarray:  # (H, W, 3)
    return np.random.default_rng(0).integers(0, 256, (5, 9, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **options)
    return file.getvalue()


def test_channels_come_first(pixels: np.ndarray) -> None:
    image = decode_image(encoded(pixels, format="PNG"))
    assert isinstance(image, torch.Tensor)
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    np.testing.assert_array_equal(image.numpy(), pixels.transpose(2, 0, 1))
    image.zero_()  # writable: its memory is nobody else's


def test_the_exif_policy_is_the_callers(pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    body = encoded(pixels, format="PNG", exif=exif)
    turned, as_stored = decode_image(body, apply_exif=True), decode_image(body, apply_exif=False)
    assert isinstance(turned, torch.Tensor)
    assert isinstance(as_stored, torch.Tensor)
    assert (turned.shape, as_stored.shape) == ((3, 9, 5), (3, 5, 9))
    assert torch.equal(turned, as_stored.rot90(-1, (1, 2)))


def test_a_bad_image_is_a_value(pixels: np.ndarray) -> None:
    body = encoded(pixels, format="PNG")
    for bad, kind in [(b"", "corrupt"), (body[:40], "corrupt")]:
        found = decode_image(bad)
        assert isinstance(found, BadImage)
        assert found.kind == kind
    large = decode_image(body, max_pixels=44)
    assert isinstance(large, BadImage)
    assert large.kind == "too_large"
