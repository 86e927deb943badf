"""Pictures of detections, looked at pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from maskrcnn.coco import rle
from maskrcnn.drawing import Mark, draw_marks
from maskrcnn.report.plots import Tile, draw_contact_sheet

RED = (250, 0, 0)


def _mark(rows: slice, columns: slice, category: str = "can") -> Mark:
    mask = np.zeros((60, 80), bool)
    mask[rows, columns] = True
    return Mark(rle.from_mask(mask), category, 0.9)


def _grey() -> np.ndarray:
    return np.full((60, 80, 3), 100, np.uint8)


def test_a_mask_is_tinted_its_edge_is_outlined_and_the_rest_is_left_alone() -> None:
    picture = draw_marks(_grey(), [_mark(slice(30, 60), slice(20, 70))], {"can": RED}, longer_side_px=80)
    pixels = np.asarray(picture).astype(int)
    assert pixels.shape == (60, 80, 3)
    assert pixels[45, 45].tolist() == [160, 60, 60]  # 40% red over grey
    assert pixels[45, 20].tolist() == pixels[45, 69].tolist() == list(RED)
    assert pixels[45, 10].tolist() == pixels[45, 75].tolist() == [100, 100, 100]


def test_an_enlarged_mask_stays_where_it_is() -> None:
    picture = draw_marks(_grey(), [_mark(slice(30, 60), slice(20, 70))], {"can": RED}, longer_side_px=320)
    tinted = np.asarray(picture)[200, :, 1] < 90
    columns = np.flatnonzero(tinted)
    assert abs(columns[0] - 80) <= 2
    assert abs(columns[-1] - 279) <= 2


def test_flags_stay_inside_the_picture() -> None:
    marks = [_mark(slice(0, 9), slice(0, 9)), _mark(slice(0, 60), slice(76, 80)), _mark(slice(55, 60), slice(0, 80))]
    for mark in marks:
        flagged = np.asarray(draw_marks(_grey(), [mark], {"can": RED}, longer_side_px=400)).astype(int)
        solid = (np.abs(flagged - RED).sum(axis=2) < 10).sum()
        assert solid > 200  # the whole flag, wherever its mask lies


def test_a_sheet_has_a_place_for_every_tile_and_one_colour_a_category() -> None:
    can, box = _mark(slice(30, 60), slice(20, 70)), _mark(slice(30, 60), slice(20, 70), "box")
    tiles = [
        Tile(_grey(), [can], "one"),
        Tile(_grey(), [box], "two"),
        Tile(_grey(), [can], "three"),
        Tile(None, [], "x"),
    ]
    sheet = draw_contact_sheet(tiles, num_columns=2, tile_px=160)
    assert sheet.width == 2 * 160 + 3 * 10
    row_height = 120 + 2 * 12 + 10
    assert sheet.height == 2 * row_height + 10
    pixels = np.asarray(sheet)
    middles = [pixels[10 + row * row_height + 100, 10 + column * 170 + 90] for row in (0, 1) for column in (0, 1)]
    assert middles[0].tolist() == middles[2].tolist() != middles[1].tolist()
    assert middles[3].tolist() == [255, 255, 255]


def test_a_long_caption_is_cut_at_its_tile() -> None:
    blank = Image.new("RGB", (160, 120))
    tile = Tile(np.asarray(blank), [], "a very long name of a file that goes on and on and on.jpg")
    sheet = np.asarray(draw_contact_sheet([tile, Tile(np.asarray(blank), [], "")], num_columns=2, tile_px=160))
    caption = sheet[132:150]
    assert (caption[:, 10:170] < 100).any()
    assert (caption[:, 172:] == 255).all()


@pytest.mark.parametrize(("x", "y", "w", "h"), [(0, 40, 20, 24), (44, 40, 20, 24), (10, 30, 5, 4), (0, 63, 64, 1)])
@pytest.mark.parametrize("scale", [1, 3])
def test_a_mask_is_coloured_where_it_lies_and_nowhere_else(x: int, y: int, w: int, h: int, scale: int) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[y : y + h, x : x + w] = 1
    marks = [Mark(rle.from_mask(mask), "can", 0.9), Mark(rle.from_mask(mask * 0), "can", 0.9)]
    black = np.zeros((64, 64, 3), np.uint8)
    picture = np.asarray(draw_marks(black, marks, {"can": (255, 0, 0)}, 64 * scale))
    is_colored = picture[..., 0] > 50
    expected = mask.repeat(scale, axis=0).repeat(scale, axis=1) > 0
    # The flag stands on the mask's first row; enlarged corners are round.
    below = slice(y * scale + 1, None)
    assert (is_colored[below] != expected[below]).sum() <= (0 if scale == 1 else 8)
