"""Tables of many small images, by nights, stores and cameras, for the tests of counting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from maskrcnn.labelling.results import ImageResult
from tests.labelled_parts import FAILED, labelled, write_part

CAN, BOX, BAG = 2, 5, 9
NIGHTS = [f"2026-11-{day}" for day in range(15, 23)]
_DOT = np.ones((1, 1), np.uint8)

Stock = Mapping[int, int]
"""Instances of each category."""


def image(stock: Stock | None) -> ImageResult:
    """Give an image with so many instances; None: one that failed."""
    if stock is None:
        return FAILED
    return labelled([(category, 0.9, _DOT) for category, num in stock.items() for _ in range(num)])


def write_nights(
    folder: Path,
    stock_of: Callable[[str, str, int], Stock | None],
    *,
    nights: list[str] = NIGHTS,
    stores: tuple[str, ...] = ("north", "south"),
    num_images: int = 6,
    has_folders: bool = True,
) -> str:
    """Leave a part a night; each image lies below its date and store.

    Args:
        folder: the OUTPUT.
        stock_of: what an image of a night, a store and a number holds.
    """
    for place, night in enumerate(nights):
        results = {
            f"{night}/{store}/{number}.jpg": image(stock_of(night, store, number))
            for store in stores
            for number in range(num_images)
        }
        write_part(folder, results, part=place, date=night if has_folders else None)
    return str(folder)
