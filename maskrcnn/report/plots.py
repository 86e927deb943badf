"""Sheets of many images with their detections. Pillow only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from maskrcnn.drawing import Mark, color_categories, draw_marks

_PAPER, _INK, _FAINT = (255, 255, 255), (30, 30, 30), (120, 120, 120)
_MARGIN_PX = 10


@dataclass(frozen=True)
class Tile:
    """One image of a sheet with its detections, or nothing but a caption where there is no image."""

    image: NDArray[np.uint8] | None
    """(H, W, 3) uint8 RGB."""
    marks: Sequence[Mark]
    caption: str


def draw_contact_sheet(tiles: Sequence[Tile], *, num_columns: int = 4, tile_px: int = 360) -> Image.Image:
    """Draw tiles side by side, each category in a colour of its own over the whole sheet.

    Args:
        tiles: from left to right, row by row.
        num_columns: tiles in a row.
        tile_px: the longer side of every image on the sheet, px; small images are enlarged.
    """
    colors = color_categories(mark.category for tile in tiles for mark in tile.marks)
    drawn = [None if tile.image is None else draw_marks(tile.image, tile.marks, colors, tile_px) for tile in tiles]
    tile_height = max((picture.height for picture in drawn if picture), default=tile_px)
    caption_px = max(12, tile_px // 22)
    row_height = tile_height + 2 * caption_px + _MARGIN_PX
    num_rows = -(-len(tiles) // num_columns)
    size = (num_columns * (tile_px + _MARGIN_PX) + _MARGIN_PX, num_rows * row_height + _MARGIN_PX)
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, (tile, picture) in enumerate(zip(tiles, drawn, strict=True)):
        left = _MARGIN_PX + index % num_columns * (tile_px + _MARGIN_PX)
        top = _MARGIN_PX + index // num_columns * row_height
        if picture:
            sheet.paste(picture, (left, top))
        else:
            pen.rectangle((left, top, left + tile_px - 1, top + tile_height - 1), outline=_FAINT)
            middle = (left + tile_px / 2, top + tile_height / 2)
            pen.text(middle, "no image", fill=_FAINT, font=ImageFont.load_default(caption_px), anchor="mm")
        font = ImageFont.load_default(caption_px)
        pen.text(
            (left, top + tile_height + caption_px // 3), _fitted(tile.caption, font, tile_px), fill=_INK, font=font
        )
    return sheet


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    """Cut a text to a width, px."""
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text + "…"
