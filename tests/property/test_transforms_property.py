"""Whatever the image and the view, its target stays with it."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from maskrcnn.config import PreprocessConfig
from maskrcnn.model.shapes import resized_shape
from maskrcnn.training.augment import AugmentConfig
from maskrcnn.training.transforms import (
    Patch,
    Purpose,
    SampleKey,
    View,
    adjust_colors,
    draw_view,
    flip_boxes,
    look_at_image,
    random_generator,
)

SIDES = st.integers(1, 12)
UNHURRIED = settings(deadline=None)
SEEDS = st.integers(0, 2**32)


def tight_patch(mask: NDArray[np.uint8]) -> Patch:
    """The smallest patch of whole px around a mask that is not empty."""
    rows, columns = np.nonzero(mask)
    return Patch(mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1], columns.min(), rows.min())


def draw_patch(patch: Patch, height: int, width: int) -> NDArray[np.uint8]:
    """The whole mask, (height, width)."""
    mask = np.zeros((height, width), np.uint8)
    left, top, right, bottom = patch.box
    mask[top:bottom, left:right] = patch.mask
    return mask


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Any mask that is not empty."""
    height, width = draw(SIDES), draw(SIDES)
    rng = np.random.default_rng(draw(SEEDS))
    mask = (rng.random((height, width)) < draw(st.floats(0.02, 0.9))).astype(np.uint8)
    mask[rng.integers(height), rng.integers(width)] = 1
    return mask


@st.composite
def masks_with_windows(draw: st.DrawFn) -> tuple[NDArray[np.uint8], tuple[int, int, int, int]]:
    """A mask, and a window of one px or more inside its image."""
    mask = draw(masks())
    height, width = mask.shape
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return mask, (left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height)))


@st.composite
def configs(draw: st.DrawFn) -> AugmentConfig:
    """Any augmentation."""
    common = {"flip_probability": draw(st.floats(0, 1)), "color_jitter": draw(st.floats(0, 0.99))}
    if draw(st.booleans()):
        return AugmentConfig(**common, short_sides_px=tuple(draw(st.lists(st.integers(32, 1500), max_size=4))))
    low = draw(st.floats(0.01, 10))
    return AugmentConfig(
        **common, scale_jitter=(low, draw(st.floats(low, 10))), crop_size_px=32 * draw(st.integers(1, 40))
    )


@UNHURRIED
@given(masks(), SEEDS)
def test_flipping_twice_changes_nothing(mask: NDArray[np.uint8], seed: int) -> None:
    height, width = mask.shape
    view = View(True, (0, 0, width, height), (height, width))
    image = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))
    once = look_at_image(image, view, (height, width))
    assert look_at_image(once, view, (height, width)).equal(image)
    patch = tight_patch(mask)
    box = np.array([patch.box], np.float64)
    assert np.array_equal(flip_boxes(flip_boxes(box, width), width), box)
    again = patch.flipped(width).flipped(width)
    assert again.box == patch.box
    assert np.array_equal(again.mask, patch.mask)
    assert flip_boxes(box, width)[0].tolist() == list(patch.flipped(width).box)
    assert np.array_equal(draw_patch(patch.flipped(width), height, width), mask[:, ::-1])


@UNHURRIED
@given(masks_with_windows())
def test_a_cut_patch_is_the_cut_mask_and_tight(case: tuple[NDArray[np.uint8], tuple[int, int, int, int]]) -> None:
    mask, window = case
    left, top, right, bottom = window
    cut = tight_patch(mask).cut(window)
    expected = mask[top:bottom, left:right]
    assert np.array_equal(draw_patch(cut, bottom - top, right - left), expected)
    assert cut.box == (tight_patch(expected).box if expected.any() else (0, 0, 0, 0))


@UNHURRIED
@given(masks_with_windows(), st.booleans(), SEEDS)
def test_pixels_move_with_their_masks(
    case: tuple[NDArray[np.uint8], tuple[int, int, int, int]], is_flipped: bool, seed: int
) -> None:
    mask, window = case
    height, width = mask.shape
    left, top, right, bottom = window
    image = np.random.default_rng(seed).integers(1, 256, (3, height, width), dtype=np.uint8) * mask
    view = View(is_flipped, window, (bottom - top, right - left))
    seen = look_at_image(torch.from_numpy(image), view, (height, width))
    patch = tight_patch(mask)
    moved = (patch.flipped(width) if is_flipped else patch).cut(window)
    assert np.array_equal(seen[0].numpy() > 0, draw_patch(moved, bottom - top, right - left) > 0)


@UNHURRIED
@given(st.integers(1, 5000), st.integers(1, 5000), configs(), st.integers(0, 1000))
def test_a_view_is_a_pure_function_of_size_and_chance_within_its_bounds(
    height: int, width: int, config: AugmentConfig, seed: int
) -> None:
    preprocess = PreprocessConfig(min_size_px=600, max_size_px=1000)
    views = [
        draw_view(height, width, preprocess, config, random_generator(seed, Purpose.AUGMENT, SampleKey(3, 4)))
        for _ in range(2)
    ]
    assert views[0] == views[1]
    view = views[0]
    left, top, right, bottom = view.window
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert min(view.size) >= 1
    for factor in (view.brightness, view.contrast, view.saturation):
        assert 1 - config.color_jitter <= factor <= 1 + config.color_jitter
    if config.crop_size_px:
        assert max(view.size) <= config.crop_size_px
        low, high = config.scale_jitter
        unit = config.crop_size_px / max(height, width)
        for size, side in ((view.size[0], bottom - top), (view.size[1], right - left)):
            # To whole px, and at least one; the least window of a few px may be shrunk further.
            assert size <= high * unit * side + 1
            assert size >= min(low * unit * side - 1, config.crop_size_px)
    else:
        assert view.window == (0, 0, width, height)
        sides = config.short_sides_px or (600,)
        fitting = (PreprocessConfig(min_size_px=side, max_size_px=max(side, 1000)) for side in sides)
        assert view.size in {resized_shape(height, width, each) for each in fitting}


@UNHURRIED
@given(SIDES, SIDES, SEEDS, *[st.floats(0, 2)] * 3)
def test_colours_are_those_of_one_step_after_the_other(
    height: int, width: int, seed: int, brightness: float, contrast: float, saturation: float
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)
    luma = np.array([0.299, 0.587, 0.114])[:, None, None]
    colors = image * brightness
    mean = (colors * luma).sum(0).mean()
    colors = mean + contrast * (colors - mean)
    grey = (colors * luma).sum(0)
    expected = (grey + saturation * (colors - grey)).clip(0, 255)
    adjusted = adjust_colors(torch.from_numpy(image), brightness, contrast, saturation).numpy()
    assert np.abs(adjusted - expected).max() <= 0.5 + 1e-3
