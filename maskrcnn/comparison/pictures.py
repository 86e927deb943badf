"""Pictures of the images on which two tables differ: A's instances on the left one, B's on the right one."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from maskrcnn.comparison.worst import Difference, Found
from maskrcnn.report.photos import load_photo
from maskrcnn.report.plots import Mark, draw_marks

PICTURE_PX = 720
MATCHED, LOST, GAINED = (0, 158, 115), (213, 94, 0), (0, 114, 178)
"""Told apart by people of any colour vision. Source: Okabe and Ito, "Color Universal Design" (2008)."""

_PHOTOS_AT_ONCE = 8
_GREY = 128


def draw_differences(
    differences: Sequence[Difference], photo_uris: Sequence[str]
) -> Iterator[tuple[Difference, bool, bytes, bytes]]:
    """Draw each image twice, as JPEG.

    Args:
        differences: what the tables have of the images.
        photo_uris: where the images lie.

    Yields:
        The difference, whether its image could be read (else it is drawn on grey), and A's and B's picture.
    """
    with ThreadPoolExecutor(_PHOTOS_AT_ONCE) as threads:
        photos = threads.map(load_photo, photo_uris)
        for one, photo in zip(differences, photos, strict=True):
            # Another size: the file has changed since it was labelled.
            is_read = photo is not None and photo.shape[:2] == one.size
            canvas = photo if photo is not None and is_read else np.full((*one.size, 3), _GREY, np.uint8)
            a, b = _draw(canvas, one.a, "lost", LOST), _draw(canvas, one.b, "gained", GAINED)
            yield one, is_read, a, b


def _draw(photo: NDArray[np.uint8], found: Sequence[Found], lonely: str, color: tuple[int, int, int]) -> bytes:
    """Draw matched instances thinly below, and those of one table only on top."""
    matched = sorted({one.category for one in found if one.iou})
    colors = dict.fromkeys(matched, MATCHED) | {f"{lonely} {one.category}": color for one in found if not one.iou}
    in_order = sorted(found, key=lambda one: one.iou == 0)
    marks = [Mark(one.mask, one.category if one.iou else f"{lonely} {one.category}", one.score) for one in in_order]
    sink = io.BytesIO()
    draw_marks(photo, marks, colors, PICTURE_PX).save(sink, "JPEG", quality=85)
    return sink.getvalue()
