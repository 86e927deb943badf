"""JPEGs decoded at a reduced scale: every kind, every orientation, sides that do not divide; nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from maskrcnn import images
from maskrcnn.images import BadImage
from tests.odd_images import HEIGHT, ODD_IMAGES, WIDTH, OddImage, encode, exif_orientation, photo


def decoded(body: bytes, **options: Any) -> NDArray[np.uint8]:
    pixels = images.decode(body, **options)
    assert not isinstance(pixels, BadImage), pixels
    return pixels


def refused(body: bytes, **options: Any) -> BadImage:
    bad = images.decode(body, **options)
    assert isinstance(bad, BadImage)
    return bad


def of_kind(kind: str, orientation: int = 1, seed: int = 0) -> bytes:
    """Encode a photo as a JPEG of some kind."""
    picture = Image.fromarray(photo(seed))
    exif = exif_orientation(orientation)
    if kind == "progressive":
        return encode(picture, "JPEG", quality=95, progressive=True, exif=exif)
    return encode(picture.convert(kind), "JPEG", quality=95, exif=exif)


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("kind", ["RGB", "L", "CMYK", "progressive"])
def test_jpegs_of_any_kind_are_decoded_at_a_reduced_scale(kind: str, scale: int) -> None:
    body = of_kind(kind)
    reduced = decoded(body, scale=scale)
    assert reduced.shape == (HEIGHT // scale, WIDTH // scale, 3)
    assert reduced.flags.c_contiguous
    assert reduced.flags.writeable
    means = decoded(body).reshape(HEIGHT // scale, scale, WIDTH // scale, scale, 3).mean(axis=(1, 3))
    assert np.abs(reduced - means).mean() < 4  # 2.2 for RGB at a half, whose colours are stored at a half already


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_images_are_turned_too(orientation: int) -> None:
    body = of_kind("RGB", orientation)
    upright, as_stored = decoded(body, scale=4), decoded(body, scale=4, apply_exif=False)
    exif = exif_orientation(orientation)
    picture = Image.fromarray(as_stored)
    picture.getexif().update(exif)
    np.testing.assert_array_equal(upright, np.asarray(ImageOps.exif_transpose(picture)))
    assert as_stored.shape == (HEIGHT // 4, WIDTH // 4, 3)


@pytest.mark.parametrize("odd", ODD_IMAGES, ids=lambda odd: odd.name)
def test_a_scale_changes_neither_other_formats_nor_what_is_bad(odd: OddImage) -> None:
    whole, reduced = images.decode(odd.body), images.decode(odd.body, scale=8)
    if isinstance(whole, BadImage):
        assert reduced == whole
        return
    assert isinstance(reduced, np.ndarray)
    if odd.body.startswith(b"\xff\xd8"):
        assert reduced.shape == (whole.shape[0] // 8, whole.shape[1] // 8, 3)
    else:
        np.testing.assert_array_equal(reduced, whole)


@pytest.mark.parametrize("kind", ["RGB", "L", "CMYK", "progressive"])
def test_cut_jpegs_are_as_bad_at_any_scale(kind: str) -> None:
    body = of_kind(kind)
    for share in (0.02, 0.3, 0.6, 0.99):
        cut = body[: int(len(body) * share)]
        for damaged in (cut, cut + b"\xff\xd9", cut + bytes(len(body) - len(cut))):
            outcomes = [images.decode(damaged, scale=scale) for scale in (1, 2, 4, 8)]
            kinds = {outcome.kind if isinstance(outcome, BadImage) else "ok" for outcome in outcomes}
            assert len(kinds) == 1, (share, outcomes)
        assert refused(cut, scale=8).kind == "corrupt"


def test_other_scales_are_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"one of \(1, 2, 4, 8\), got 3"):
        images.decode(of_kind("RGB"), scale=3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("width", [153, 157, 160])
def test_a_reduced_side_spans_the_whole_side(width: int, orientation: int) -> None:
    ramp = np.arange(width, dtype=np.uint8)[None].repeat(64, axis=0)
    body = encode(ramp, "JPEG", quality=100, exif=exif_orientation(orientation))
    reduced = decoded(body, scale=8)[..., 0]
    columns = reduced.mean(axis=0) if orientation < 5 else reduced.mean(axis=1)
    assert len(columns) == 20
    expected = (np.arange(20) + 0.5) * width / 20 - 0.5
    if columns[0] > columns[-1]:
        expected = expected[::-1]
    assert np.abs(columns - expected)[1:-1].max() < 1  # else, at 153, the far end would be off by 6.5
