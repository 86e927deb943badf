"""Damaged image files: whatever the bytes, the answer is an image of the header's size, or a reason."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from maskrcnn import images
from maskrcnn.config import PreprocessConfig
from maskrcnn.errors import ERROR_KINDS
from maskrcnn.images import BadImage
from maskrcnn.model.shapes import decode_scale_for, resized_shape
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


SCALES = st.sampled_from([1, 2, 4, 8])


@UNHURRIED
@given(st.integers(1, 70), st.integers(1, 70), SCALES, st.integers(1, 8), st.booleans(), st.booleans())
@example(height=3, width=70, scale=8, orientation=6, is_grey=False, is_progressive=True)
def test_a_reduced_side_is_rounded_up(
    height: int, width: int, scale: int, orientation: int, is_grey: bool, is_progressive: bool
) -> None:
    pixels = np.zeros((height, width) if is_grey else (height, width, 3), np.uint8)
    body = encode(pixels, "JPEG", exif=exif_orientation(orientation), progressive=is_progressive)
    reduced = images.decode(body, scale=scale)
    assert isinstance(reduced, np.ndarray)
    expected = (math.ceil(height / scale), math.ceil(width / scale))
    assert reduced.shape[:2] == (expected[::-1] if orientation >= 5 else expected)


@given(
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.integers(32, 1500),
    st.integers(0, 1500),
    st.sampled_from([2, 4, 8]),
)
def test_what_is_reduced_is_never_enlarged_again(
    height: int, width: int, min_size: int, more: int, allowed: int
) -> None:
    preprocess = PreprocessConfig(min_size, min_size + more, decode_scale=allowed)
    resized = resized_shape(height, width, preprocess)

    def is_enough(scale: int) -> bool:
        return math.ceil(height / scale) >= resized[0] and math.ceil(width / scale) >= resized[1]

    scale = decode_scale_for(height, width, preprocess)
    assert scale <= allowed
    assert scale == 1 or is_enough(scale)
    assert scale == allowed or not is_enough(2 * scale)
    assert decode_scale_for(width, height, preprocess) == scale
