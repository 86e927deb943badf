"""Photos for the page: small, upright as they were labelled, or a reason."""

from __future__ import annotations

import io
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn.images import BadImage
from maskrcnn.labelling.stages import ByteBudget
from maskrcnn.report.pictures import LARGE_PX, THUMBNAIL_PX, Pictures, find_below
from maskrcnn.report.pictures import make_pictures as make_pictures_within
from maskrcnn.report.pictures import read_pictures as read_pictures_within

BUDGET = ByteBudget(10**9)
make_pictures = partial(make_pictures_within, max_pixels=100_000_000, decoded=BUDGET)
read_pictures = partial(read_pictures_within, max_pixels=100_000_000, decoded=BUDGET)


def jpeg(width: int, height: int, orientation: int = 1) -> bytes:
    """A photo that is red in its left half, as stored."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    exif = Image.Exif()
    exif[274] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file.getvalue()


def opened(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body))


@pytest.mark.parametrize(("width", "height"), [(64, 48), (1280, 40), (3000, 2000), (7001, 901)])
def test_a_photo_is_made_no_larger_than_a_page_needs(width: int, height: int) -> None:
    made = make_pictures(jpeg(width, height), (height, width))
    assert isinstance(made, Pictures)
    for body, limit in ((made.large, LARGE_PX), (made.thumbnail, THUMBNAIL_PX)):
        picture = opened(body)
        assert picture.format == "JPEG"
        assert max(picture.size) == min(max(width, height), limit)
        assert picture.width / picture.height == pytest.approx(width / height, rel=0.1, abs=1)
        assert picture.getpixel((picture.width // 4, picture.height // 2))[0] > 200  # type: ignore[index]
        assert picture.getpixel((picture.width * 3 // 4, picture.height // 2))[0] < 50  # type: ignore[index]


def test_a_photo_stands_as_it_was_labelled() -> None:
    body = jpeg(60, 40, orientation=6)
    upright, stored = make_pictures(body, (60, 40)), make_pictures(body, (40, 60))
    assert isinstance(upright, Pictures)
    assert isinstance(stored, Pictures)
    assert opened(upright.large).size == (40, 60)
    assert opened(stored.large).size == (60, 40)
    assert opened(upright.large).getpixel((20, 10))[0] > 200  # type: ignore[index]


def test_a_photo_that_has_changed_is_not_shown() -> None:
    bad = make_pictures(jpeg(60, 40), (30, 30))
    assert bad == BadImage("integrity", "is 60 x 40 px, and was 30 x 30 px when it was labelled")


def test_what_cannot_be_read_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"<html>")
    here = str(tmp_path)
    assert str(read_pictures(f"{here}/a.jpg", (4, 4), here)).startswith("unsupported: is not a JPEG")
    assert str(read_pictures(f"{here}/b.jpg", (4, 4), here)).startswith("not_found: ")
    assert "must not hold .. as a folder" in str(read_pictures(f"{here}/../a.jpg", (4, 4), here))
    assert "must not lead to an address" in str(read_pictures("http://169.254.169.254/a.jpg", (4, 4), here))
    assert "must have one of the schemes" in str(read_pictures("/etc/passwd", (4, 4), "s3://bucket/labels"))


def test_photos_are_found_by_the_longest_end_of_their_names(tmp_path: Path) -> None:
    for name in ("front/a.jpg", "a.jpg", "c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    uris = ["s3://x/front/a.jpg", "s3://x/back/a.jpg", "s3://x/b.jpg"]
    assert find_below(str(tmp_path), uris) == {
        "s3://x/front/a.jpg": f"{tmp_path}/front/a.jpg",
        "s3://x/back/a.jpg": f"{tmp_path}/a.jpg",
    }


def test_a_photo_of_the_table_itself_is_shown_for_no_other_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").touch()
    uris = [f"{tmp_path}/a/1.jpg", f"{tmp_path}/b/1.jpg"]
    assert find_below(f"{tmp_path}/a", uris) == {uris[0]: uris[0]}


def test_the_cap_is_the_readers_and_no_table_raises_it() -> None:
    bad = make_pictures_within(jpeg(60, 40), (40, 60), 2399, BUDGET)
    assert isinstance(bad, BadImage)
    assert bad.kind == "too_large"
    assert isinstance(make_pictures_within(jpeg(60, 40), (40, 60), 2400, BUDGET), Pictures)


def test_photos_wait_for_the_pixels_that_others_hold() -> None:
    decoded = ByteBudget(3 * 60 * 40)
    decoded.acquire(1)
    made: list[Pictures | BadImage] = []
    thread = threading.Thread(target=lambda: made.append(make_pictures(jpeg(60, 40), (40, 60), decoded=decoded)))
    thread.start()
    while not decoded.is_starved:
        thread.join(0.001)
    assert made == []
    decoded.release(1)
    thread.join()
    assert isinstance(made[0], Pictures)
    assert isinstance(make_pictures(jpeg(60, 41), (41, 60), decoded=decoded), Pictures), "larger than all: goes alone"
