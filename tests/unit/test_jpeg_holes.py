"""Zeros in the data of a JPEG, as a disk or a download leaves them, its end in place; and pictures that look alike."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from maskrcnn import images
from maskrcnn.images import BadImage
from tests.odd_images import encode, photo


def scan_of(body: bytes) -> tuple[int, int]:
    """Find where the image data of the first scan begin, and where the file's end marker is."""
    begin = body.index(b"\xff\xda")
    return begin + 2 + int.from_bytes(body[begin + 2 : begin + 4], "big"), body.rindex(b"\xff\xd9")


@pytest.mark.parametrize("options", [{"quality": 90}, {"quality": 50, "optimize": True}, {"restart_marker_blocks": 64}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_zeros_up_to_the_end_marker_are_damage(options: dict[str, int], mode: str, share: float) -> None:
    body = encode(Image.fromarray(photo()).convert(mode), "JPEG", **options)
    begin, end = scan_of(body)
    zeroed_from = begin + int(share * (end - begin))
    zeroed = body[:zeroed_from] + bytes(end - zeroed_from) + body[end:]
    answer = images.decode(zeroed)
    assert isinstance(answer, BadImage)
    assert (answer.kind, answer.reason) == ("corrupt", "JPEG is damaged: 64 bytes or more of its image data are 0")


@pytest.mark.parametrize("num_bytes", [127, 512])
def test_a_hole_in_the_middle_is_damage(num_bytes: int) -> None:
    body = encode(photo(), "JPEG")
    begin, end = scan_of(body)
    middle = (begin + end) // 2
    assert isinstance(images.decode(body[:middle] + bytes(num_bytes) + body[middle + num_bytes :]), BadImage)


def patterns() -> dict[str, NDArray[np.uint8]]:
    rows, columns = np.indices((480, 640))
    return {
        "black": np.zeros((480, 640), np.uint8),
        "white": np.full((480, 640), 255, np.uint8),
        "gradient": (columns * 255 // 639).astype(np.uint8),
        "dots": ((rows % 8 == 0) & (columns % 8 == 0)).astype(np.uint8) * 255,
        "stripes": ((rows + columns) % 8 == 0).astype(np.uint8) * 255,
        "noise": np.random.default_rng(0).integers(0, 256, (480, 640)).astype(np.uint8),
    }


@pytest.mark.parametrize("name", patterns())
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_flat_and_regular_pictures_are_sound(name: str, mode: str) -> None:
    picture = Image.fromarray(patterns()[name]).convert(mode)
    for options in ({}, {"optimize": True}, {"progressive": True}):
        for quality in (1, 50, 100):
            answer = images.decode(encode(picture, "JPEG", quality=quality, **options))
            assert not isinstance(answer, BadImage), (options, quality)


def test_tables_that_end_too_early_are_no_crash() -> None:
    body = encode(photo(), "JPEG")
    table = body.index(b"\xff\xc4")
    for length in (2, 3, 19, 20):
        cut = body[: table + 2] + length.to_bytes(2, "big") + body[table + 4 : table + 2 + length]
        answer = images.decode(cut + body[body.index(b"\xff\xda") :])
        assert isinstance(answer, BadImage | np.ndarray)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_little_data_under_a_large_size_is_damage_before_any_memory_is_set_aside(options: dict[str, bool]) -> None:
    body = bytearray(encode(photo(), "JPEG", **options))
    frame = bytes(body).index(b"\xff\xc2" if options else b"\xff\xc0")
    body[frame + 5 : frame + 9] = (9000).to_bytes(2, "big") * 2
    answer = images.decode(bytes(body))
    assert isinstance(answer, BadImage)
    assert answer.reason.startswith("JPEG is damaged: ")
    assert answer.reason.endswith("bytes of image data are too few for its size")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("side", [8, 17, 2000])
def test_the_smallest_sound_files_are_sound(mode: str, side: int) -> None:
    flat = Image.new(mode, (side, side))
    for options in ({"optimize": True, "quality": 1}, {"progressive": True, "quality": 1}, {"subsampling": 2}):
        assert not isinstance(images.decode(encode(flat, "JPEG", **options)), BadImage)
