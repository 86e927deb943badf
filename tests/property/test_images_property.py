"""Damaged image files: whatever the bytes, the answer is an image of the header's size, or a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from maskrcnn import images
from maskrcnn.errors import ERROR_KINDS
from maskrcnn.images import BadImage
from tests.odd_images import ODD_IMAGES, encode, exif_orientation, photo

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

MAX_PIXELS = 1_000_000
SMALL = photo()[:24, :32]
SOUND: list[bytes] = [
    encode(SMALL, "JPEG", exif=exif_orientation(6)),
    encode(SMALL, "JPEG", progressive=True),
    encode(SMALL, "PNG", exif=exif_orientation(3)),
    encode(SMALL, "WEBP", exif=exif_orientation(8)),
    encode(SMALL, "WEBP", lossless=True),
    encode(SMALL, "BMP"),
    encode(SMALL, "GIF"),
    encode(SMALL, "TIFF", exif=exif_orientation(5)),
    encode(SMALL, "TIFF", compression="tiff_lzw"),
    encode(SMALL[..., 0].astype(np.uint16) * 257, "TIFF"),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    body = bytearray(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.one_of(st.integers(0, min(len(body), 300)), st.integers(0, len(body))))
        how = draw(st.sampled_from(["cut", "zero", "overwrite", "insert", "delete"]))
        if how == "cut":
            del body[at:]
        elif how == "zero":
            count = draw(st.integers(1, 100))
            body[at : at + count] = bytes(len(body[at : at + count]))
        elif how == "overwrite":
            patch = draw(st.binary(min_size=1, max_size=8))
            body[at : at + len(patch)] = patch
        elif how == "insert":
            body[at:at] = draw(st.binary(min_size=1, max_size=16))
        else:
            del body[at : at + draw(st.integers(1, 16))]
    return bytes(body)


def assert_image_or_reason(body: bytes, **options: Any) -> None:
    header = images.read_header(body, max_pixels=MAX_PIXELS, **options)
    answer = images.decode(body, max_pixels=MAX_PIXELS, **options)
    if isinstance(answer, BadImage):
        assert answer.kind in ERROR_KINDS
        assert answer.reason
        assert answer.reason.isprintable()
        return
    assert not isinstance(header, BadImage)
    assert answer.shape == (header.height, header.width, 3)
    assert answer.dtype == np.uint8


@settings(UNHURRIED, max_examples=400)
@given(damaged())
@example(ODD_IMAGES[0].body)
def test_damage_never_raises(body: bytes) -> None:
    assert_image_or_reason(body)
    assert_image_or_reason(body, apply_exif=False)


@UNHURRIED
@given(st.sampled_from([body[:12] for body in SOUND]), st.binary(max_size=200))
def test_noise_behind_a_true_beginning_never_raises(beginning: bytes, noise: bytes) -> None:
    assert_image_or_reason(beginning + noise)
