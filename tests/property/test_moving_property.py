"""Masks moved on their runs equal masks drawn, laid into the whole image, and encoded there."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pycocotools.mask
import pytest
from hypothesis import event, given, settings

from maskrcnn.coco.moving import move_rles
from maskrcnn.coco.rle import Rle, encode_counts, from_mask

Crops = tuple[list[np.ndarray], tuple[int, int], tuple[int, int]]


@st.composite
def crops(draw: st.DrawFn) -> Crops:
    """Draw masks (h, w), where they lie in an image, and its size; often with full columns or the image's height."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    above, below = draw(st.sampled_from([(0, 0), (3, 0), (0, 2), (4, 5)]))
    left, right = draw(st.sampled_from([(0, 0), (2, 0), (0, 3), (5, 1)]))
    event(f"{above} px above, {below} px below")
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    density = draw(st.sampled_from([0.0, 0.1, 0.5, 0.95, 1.0]))
    masks = [rng.random((height, width)) < density for _ in range(draw(st.integers(1, 4)))]
    return masks, (left, above), (above + height + below, left + width + right)


def at(x: int, y: int, num_masks: int) -> np.ndarray:
    return np.tile(np.array([x, y]), (num_masks, 1))


@settings(max_examples=500, deadline=None)
@given(crops=crops())
def test_moved_on_runs_equals_moved_as_bitmaps_to_the_byte(crops: Crops) -> None:
    masks, (x, y), size = crops
    moved = move_rles([from_mask(mask) for mask in masks], at(x, y, len(masks)), size)
    for rle, mask in zip(moved, masks, strict=True):
        whole = np.zeros(size, np.uint8, order="F")
        whole[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        assert rle == pycocotools.mask.encode(whole)


@settings(max_examples=100, deadline=None)
@given(crops=crops())
def test_a_move_in_two_steps_is_the_move_in_one(crops: Crops) -> None:
    masks, (x, y), (height, width) = crops
    rles = [from_mask(mask) for mask in masks]
    middle = (masks[0].shape[0] + y, masks[0].shape[1] + x)
    num, whole = len(rles), (height + 1, width + 2)
    in_two = move_rles(move_rles(rles, at(x, y, num), middle), at(2, 1, num), whole)
    assert in_two == move_rles(rles, at(x + 2, y + 1, num), whole)


@settings(max_examples=100, deadline=None)
@given(many=st.lists(crops(), min_size=1, max_size=4))
def test_crops_of_many_sizes_move_together_as_they_do_alone(many: list[Crops]) -> None:
    size = (30, 30)
    alone, rles, origins = [], [], []
    for masks, (x, y), _ in many:
        crop = [from_mask(mask) for mask in masks]
        alone += move_rles(crop, at(x, y, len(crop)), size)
        rles += crop
        origins.append(at(x, y, len(crop)))
    assert move_rles(rles, np.concatenate(origins), size) == alone


def test_empty_runs_are_no_foreground() -> None:
    odd: Rle = {"size": [3, 3], "counts": encode_counts([1, 2, 0, 1, 2, 0, 3])}
    [moved] = move_rles([odd], at(1, 0, 1), (4, 4))
    assert pycocotools.mask.decode(moved).T.tolist() == [[0] * 4, [0, 1, 1, 0], [1, 0, 0, 0], [0] * 4]


def test_no_masks_are_no_masks() -> None:
    assert move_rles([], at(0, 0, 0), (4, 4)) == []


@pytest.mark.parametrize(("x", "y", "size"), [(2, 0, (3, 4)), (0, 1, (3, 4)), (-1, 0, (9, 9))])
def test_a_crop_that_leaves_the_image_is_refused(x: int, y: int, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="a crop of 3 x 3 px at .* leaves"):
        move_rles([from_mask(np.ones((3, 3)))] * 2, np.array([[0, 0], [x, y]]), size)


@pytest.mark.parametrize("counts", [[9, 1], [8], []])
def test_a_mask_that_is_not_of_its_size_is_refused(counts: list[int]) -> None:
    wrong: Rle = {"size": [3, 3], "counts": encode_counts(counts)}
    with pytest.raises(ValueError, match="must sum to its size"):
        move_rles([from_mask(np.ones((3, 3))), wrong, from_mask(np.ones((3, 3)))], at(0, 0, 3), (9, 9))
