from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.coco import rle
from maskrcnn.coco.polygons import Outlines, trace
from maskrcnn.coco.simplify import simplify


def outlines_of(*pictures: str) -> Outlines:
    """Trace masks drawn as text, rows apart by spaces."""
    masks = [np.array([[char == "#" for char in row] for row in picture.split()]) for picture in pictures]
    return trace([rle.decode_counts(rle.from_mask(mask)["counts"]) for mask in masks], masks[0].shape)


def polygons_of(picture: str) -> list[list[int]]:
    return outlines_of(picture).by_mask(1)[0]


def test_a_rectangle_has_its_four_corners() -> None:
    assert polygons_of(".... .##. .##. .##.") == [[1, 1, 1, 4, 3, 4, 3, 1]]


def test_a_full_image_has_its_four_corners() -> None:
    assert polygons_of("### ###") == [[0, 0, 0, 2, 3, 2, 3, 0]]


def test_an_empty_mask_has_no_polygon() -> None:
    assert polygons_of("... ...") == []
    assert trace([], (3, 4)).by_mask(0) == []


def test_a_pixel_has_its_four_corners() -> None:
    assert polygons_of("... ..# ...") == [[2, 1, 2, 2, 3, 2, 3, 1]]


def test_pixels_that_touch_by_a_corner_are_two_parts() -> None:
    assert polygons_of("#. .#") == [[0, 0, 0, 1, 1, 1, 1, 0], [1, 1, 1, 2, 2, 2, 2, 1]]
    assert polygons_of(".# #.") == [[0, 1, 0, 2, 1, 2, 1, 1], [1, 0, 1, 1, 2, 1, 2, 0]]


def test_a_hole_is_joined_by_a_slit_up_from_its_corner() -> None:
    [ring] = polygons_of("#### #..# ####")
    assert ring == [0, 0, 0, 3, 4, 3, 4, 0, 1, 0, 1, 1, 3, 1, 3, 2, 1, 2, 1, 1, 1, 0]


def test_masks_of_one_image_do_not_mix() -> None:
    found = outlines_of("##.. ##..", ".... ....", "##.. ..##").by_mask(3)
    assert found == [[[0, 0, 0, 2, 2, 2, 2, 0]], [], [[0, 0, 0, 1, 2, 1, 2, 0], [2, 1, 2, 2, 4, 2, 4, 1]]]


def test_a_staircase_becomes_a_slope_and_a_rectangle_stays() -> None:
    side = 20
    stairs = " ".join("#" * (row + 1) + "." * (side - row - 1) for row in range(side))
    block = " ".join(["." * side, *(["." + "#" * (side - 2) + "."] * (side - 2)), "." * side])
    exact = outlines_of(stairs, block)
    simple = simplify(exact, 1.0)
    assert np.diff(exact.offsets).tolist() == [2 * side + 2, 4]
    assert np.diff(simple.offsets)[0] < 6
    assert simple.by_mask(2)[1] == exact.by_mask(2)[1]


def test_a_part_that_would_be_lost_keeps_its_outline() -> None:
    line = "......... .#######. ........."
    assert simplify(outlines_of(line), 2.0).by_mask(1) == outlines_of(line).by_mask(1)


def test_both_sides_of_a_slit_stay_where_they_are() -> None:
    picture = " ".join(["#" * 30] * 8 + ["#" * 8 + "." * 15 + "#" * 7] * 12 + ["#" * 30] * 10)
    [ring] = simplify(outlines_of(picture), 5.0).by_mask(1)[0]
    points = list(zip(ring[::2], ring[1::2], strict=True))
    sides = set(zip(points, [*points[1:], points[0]], strict=True))
    assert {((8, 0), (8, 8)), ((8, 8), (8, 0))} <= sides


@pytest.mark.parametrize("name", ["dsb2018_nuclei", "coco_cc_by", "lpbf_defects", "fruits_nuts"])
def test_real_masks_survive(shared_path: Path, name: str) -> None:
    document = json.loads((shared_path / "data" / name / "annotations.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    by_image = defaultdict(list)
    for annotation in document["annotations"]:
        size = sizes[annotation["image_id"]]
        by_image[annotation["image_id"]].append(rle.from_segmentation(annotation["segmentation"], *size))
    for image_id, masks in by_image.items():
        exact = trace([rle.check_rle(mask) for mask in masks], sizes[image_id])
        for mask, polygons in zip(masks, exact.by_mask(len(masks)), strict=True):
            assert (rle.from_polygons(polygons, *sizes[image_id]) if polygons else mask) == mask
