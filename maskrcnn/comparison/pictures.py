"""Pictures of the images on which two tables differ: A's instances on the left one, B's on the right one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrcnn.comparison.worst import Difference, Found
from maskrcnn.drawing import COLORS, Mark, draw_marks
from maskrcnn.report.photos import load_photo
from maskrcnn.report.pictures import to_jpeg

PICTURE_PX = 720
MATCHED, LOST, GAINED = COLORS[0], COLORS[1], COLORS[5]

_PHOTOS_AT_ONCE = 4
"""Each may be as large as the labelling job allowed; as pictures they are small."""
_GREY = 128


@dataclass(frozen=True)
class Picture:
    """What two tables have of an image, as two JPEGs."""

    a: bytes
    b: bytes
    is_on_photo: bool
    """Else on grey: the image cannot be read, or has another size by now."""


def draw_differences(
    differences: Sequence[Difference], photo_uris: Sequence[str | None], table_uri: str
) -> Iterator[Picture]:
    """Draw images, in order.

    Args:
        differences: what the tables have of them.
        photo_uris: where they lie; None: nowhere.
        table_uri: of the table that names them, normalised.
    """

    def draw(one: Difference, photo_uri: str | None) -> Picture:
        photo = None if photo_uri is None else load_photo(photo_uri, table_uri)
        if photo is not None and photo.shape[:2] != one.size:
            photo = None
        canvas = np.full((*one.size, 3), _GREY, np.uint8) if photo is None else photo
        return Picture(
            _draw(canvas, one.a, "lost", LOST), _draw(canvas, one.b, "gained", GAINED), is_on_photo=photo is not None
        )

    with ThreadPoolExecutor(_PHOTOS_AT_ONCE) as threads:
        yield from threads.map(draw, differences, photo_uris)


def _draw(photo: NDArray[np.uint8], found: Sequence[Found], lonely: str, color: tuple[int, int, int]) -> bytes:
    """Draw matched instances thinly below, and those of one table only on top."""
    matched = sorted({one.category for one in found if one.iou})
    colors = dict.fromkeys(matched, MATCHED) | {f"{lonely} {one.category}": color for one in found if not one.iou}
    in_order = sorted(found, key=lambda one: one.iou == 0)
    marks = [Mark(one.mask, one.category if one.iou else f"{lonely} {one.category}", one.score) for one in in_order]
    return to_jpeg(draw_marks(photo, marks, colors, PICTURE_PX), quality=85)
