"""Drawn shelves: the masks are what can be seen, and the COCO file says the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from maskrcnn.errors import InputError
from maskrcnn.synthetic import CATEGORIES, draw_shelf, write_shelves
from maskrcnn.synthetic.shelf import ShelfInstance, _Piece, _visible


def test_the_same_seed_draws_the_same_shelf_and_another_does_not() -> None:
    first, again, other = draw_shelf(3), draw_shelf(3), draw_shelf(4)
    assert np.array_equal(first.image, again.image)
    assert [i.category_id for i in first.instances] == [i.category_id for i in again.instances]
    assert all(np.array_equal(a.mask, b.mask) for a, b in zip(first.instances, again.instances, strict=True))
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize(("width", "height", "num_boards"), [(160, 160, 2), (97, 131, 1), (640, 480, 3)])
def test_no_pixel_belongs_to_two_products(width: int, height: int, num_boards: int) -> None:
    shelf = draw_shelf(5, width=width, height=height, num_boards=num_boards)
    assert shelf.image.shape == (height, width, 3)
    assert shelf.image.dtype == np.uint8
    masks = np.stack([instance.mask for instance in shelf.instances])
    assert masks.shape[1:] == (height, width)
    assert masks.any(axis=(1, 2)).all()
    assert masks.sum(axis=0).max() == 1


def test_shelves_hold_all_four_kinds_with_gaps_touching_neighbours_and_hidden_parts() -> None:
    shelves = [draw_shelf(seed) for seed in range(12)]
    instances = [instance for shelf in shelves for instance in shelf.instances]
    assert {instance.category_id for instance in instances} == set(CATEGORIES)
    touching = 0
    for shelf in shelves:
        owner = np.zeros(shelf.image.shape[:2], int)
        for index, instance in enumerate(shelf.instances, start=1):
            owner[instance.mask] = index
        left, right = owner[:, :-1], owner[:, 1:]
        touching += int(((left != right) & (left > 0) & (right > 0)).any())
        assert 0.05 < (owner > 0).mean() < 0.8
    assert touching >= 6


def _opaque(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 4), 255, np.uint8)


def test_what_is_in_front_hides_what_is_behind() -> None:
    behind, in_front = _Piece(_opaque(4, 4), 0, 0, 2), _Piece(_opaque(2, 4), 2, 1, 5)
    price_label = _Piece(_opaque(1, 2), 0, 3, None)
    pieces, sights = _visible([behind, in_front, price_label], width=6, height=5)
    assert pieces == [behind, in_front, price_label]
    assert (sights[0].left, sights[0].top) == (0, 0)
    assert sights[0].visible.astype(int).tolist() == [
        [1, 1, 1, 1],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 1],
    ]
    assert (sights[1].left, sights[1].top, sights[1].visible.sum()) == (2, 1, 8)


def test_a_product_that_is_hardly_seen_is_left_out_and_hides_nothing() -> None:
    far, hidden, in_front = (
        _Piece(_opaque(4, 4), 0, 0, 2),
        _Piece(_opaque(4, 4), 1, 0, 3),
        _Piece(_opaque(4, 4), 2, 0, 5),
    )
    pieces, sights = _visible([far, hidden, in_front], width=6, height=4)
    assert pieces == [far, in_front]
    assert [int(sight.visible.sum()) for sight in sights] == [8, 16]


def test_what_lies_outside_the_image_is_not_seen() -> None:
    _, [sight] = _visible([_Piece(_opaque(4, 4), -1, -1, 2)], width=6, height=6)
    assert (sight.left, sight.top, sight.visible.shape) == (0, 0, (3, 3))
    product = ShelfInstance(2, sight.visible, sight.left, sight.top, (6, 6))
    expected = np.zeros((6, 6), bool)
    expected[:3, :3] = True
    assert np.array_equal(product.mask, expected)


def test_an_edge_belongs_to_a_product_that_covers_half_of_the_pixel() -> None:
    patch = _opaque(1, 3)
    patch[0, :, 3] = [127, 128, 255]
    _, [sight] = _visible([_Piece(patch, 0, 0, 2)], width=3, height=1)
    assert sight.visible.tolist() == [[False, True, True]]


def test_written_shelves_read_back_as_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations_path = write_shelves(tmp_path / "shelves", num_images=3, seed=11)
    coco = COCO(str(annotations_path))
    assert {category["id"]: category["name"] for category in coco.dataset["categories"]} == CATEGORIES
    assert sorted(coco.imgs) == [1, 2, 3]
    for image_id, image in coco.imgs.items():
        drawn = draw_shelf((11, image_id))
        with Image.open(annotations_path.parent / "images" / image["file_name"]) as stored:
            difference = np.abs(np.asarray(stored).astype(int) - drawn.image)
        assert difference.mean() < 8
        annotations = coco.imgToAnns[image_id]
        assert len(annotations) == len(drawn.instances)
        for annotation, instance in zip(annotations, drawn.instances, strict=True):
            assert annotation["category_id"] == instance.category_id
            assert np.array_equal(coco.annToMask(annotation).astype(bool), instance.mask)
            assert annotation["area"] == instance.mask.sum()
            rows, columns = np.nonzero(instance.mask)
            width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
            assert annotation["bbox"] == [columns.min(), rows.min(), width, height]


def test_a_shelf_too_small_to_draw_is_refused() -> None:
    with pytest.raises(InputError, match="must be 40 px or more wide and high, got 160 x 100 / 3"):
        draw_shelf(0, height=100, num_boards=3)


def test_a_shelf_that_is_sold_out_is_the_same_scene_with_fewer_products() -> None:
    full = draw_shelf(5)
    counts = [len(draw_shelf(5, stock=stock).instances) for stock in (0.0, 0.5, 1.0)]
    assert counts[0] == 0 < counts[1] < counts[2] == len(full.instances)
    np.testing.assert_array_equal(draw_shelf(5, stock=1.0).image, full.image)
    np.testing.assert_array_equal(draw_shelf(5, stock=0.5).image, draw_shelf(5, stock=0.5).image)
