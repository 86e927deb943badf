"""An image with its detections drawn on it: masks, outlines, categories and scores. Pillow only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from maskrcnn.coco import rle

COLORS: tuple[tuple[int, int, int], ...] = (
    (0, 158, 115),
    (213, 94, 0),
    (86, 180, 233),
    (230, 159, 0),
    (204, 121, 167),
    (0, 114, 178),
    (240, 228, 66),
)
"""Told apart by people of any colour vision. Source: Okabe and Ito, "Color Universal Design" (2008)."""

_MASK_OPACITY = 0.4
_SMOOTHING_PX = 3
"""How far resizing smears a mask: px of the image where it is enlarged, px of the picture where it shrinks."""
_PAPER, _INK = (255, 255, 255), (30, 30, 30)


@dataclass(frozen=True)
class Mark:
    """One detection to draw."""

    mask: rle.Rle
    category: str
    score: float


def color_categories(categories: Iterable[str]) -> dict[str, tuple[int, int, int]]:
    """Give each category a colour of its own, as far as there are any."""
    return {category: COLORS[index % len(COLORS)] for index, category in enumerate(sorted(set(categories)))}


def draw_marks(
    image: NDArray[np.uint8], marks: Sequence[Mark], colors: dict[str, tuple[int, int, int]], longer_side_px: int
) -> Image.Image:
    """Draw an image with translucent masks, their outlines, and a flag of category and score on each.

    Args:
        image: (H, W, 3) uint8 RGB.
        marks: of that image; the last is drawn on top.
        colors: by category.
        longer_side_px: of the picture.
    """
    scale = longer_side_px / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    picture = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    outline_px = max(1, longer_side_px // 240)
    for mark in marks:
        left, top, right, bottom = _place(rle.to_bbox(mark.mask), scale, size, outline_px)
        if right <= left or bottom <= top:
            continue
        mask = Image.fromarray(rle.to_mask(mark.mask) * 255)
        seen = (left / scale, top / scale, min(right / scale, mask.width), min(bottom / scale, mask.height))
        # Smoothed while it is enlarged, so that outlines are lines and not stairs.
        mask = mask.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=seen)
        inside = mask.point(lambda value: 255 if value >= 128 else 0)
        outline = ImageChops.subtract(inside, inside.filter(ImageFilter.MinFilter(2 * outline_px + 1)))
        color = Image.new("RGB", mask.size, colors[mark.category])
        picture.paste(color, (left, top), inside.point(lambda value: round(value * _MASK_OPACITY)))
        picture.paste(color, (left, top), outline)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(9, longer_side_px // 36))
    for mark in marks:
        x, y, width, _ = (side * scale for side in rle.to_bbox(mark.mask))
        text = f"{mark.category} {mark.score:.2f}"
        if font.getlength(text) > width:
            text = text.replace(" ", "\n")
        _draw_flag(pen, (x + width / 2, y), text, colors[mark.category], font)
    return picture


def _place(bbox: list[float], scale: float, size: tuple[int, int], outline_px: int) -> tuple[int, int, int, int]:
    """Give the part of the picture that a mask and the smoothing round it lie on: only that need be drawn."""
    x, y, width, height = bbox
    margin = _SMOOTHING_PX * max(scale, 1) + outline_px + 1
    left, top = max(0, int(x * scale - margin)), max(0, int(y * scale - margin))
    right = min(size[0], int((x + width) * scale + margin) + 1)
    bottom = min(size[1], int((y + height) * scale + margin) + 1)
    return (left, top, right, bottom) if width and height else (0, 0, 0, 0)


def _draw_flag(
    pen: ImageDraw.ImageDraw,
    foot: tuple[float, float],
    text: str,
    color: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Write on a patch of colour that stands on ``foot``, and inside the picture."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font, spacing=1, align="center")
    width, height = right - left + 3, bottom - top + 3
    x0 = min(max(0.0, foot[0] - width / 2), max(0.0, pen.im.size[0] - width))
    y0 = max(0.0, foot[1] - height)
    pen.rectangle((x0, y0, x0 + width, y0 + height), fill=color)
    brightness = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    ink = _INK if brightness > 140 else _PAPER
    pen.text((x0 + 2 - left, y0 + 2 - top), text, fill=ink, font=font, spacing=1, align="center")
