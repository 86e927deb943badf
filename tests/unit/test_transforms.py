"""Views of an image and its masks, small enough to check by eye."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from maskrcnn.config import PreprocessConfig
from maskrcnn.errors import InputError
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

WHOLE = (0, 0, 4, 2)
PREPROCESS = PreprocessConfig(min_size_px=800, max_size_px=1333)
AS_IT_IS = AugmentConfig(flip_probability=0, color_jitter=0)


def _image() -> torch.Tensor:
    return torch.arange(3 * 2 * 4, dtype=torch.uint8).reshape(3, 2, 4) * 10


def _patch() -> Patch:
    """An L, three px high and two wide, in columns 2 and 3 and rows 1 to 3."""
    return Patch(np.array([[1, 0], [1, 0], [1, 1]], np.uint8), left=2, top=1)


def _rng(seed: int = 0, epoch: int = 0, index: int = 0) -> np.random.Generator:
    return random_generator(seed, Purpose.AUGMENT, SampleKey(epoch, index))


def _views(config: AugmentConfig, height: int = 480, width: int = 640, count: int = 200) -> list[View]:
    return [draw_view(height, width, PREPROCESS, config, _rng(index=index)) for index in range(count)]


def test_a_view_without_augmentation_is_the_whole_image_as_it_is_resized() -> None:
    assert _views(AS_IT_IS, count=1) == [View(False, (0, 0, 640, 480), (800, 1066))]
    image = _image()
    assert look_at_image(image, View(False, WHOLE, (2, 4)), (2, 4)).equal(image)


def test_a_flip_mirrors_image_box_and_patch() -> None:
    flipped = look_at_image(_image(), View(True, WHOLE, (2, 4)), (2, 4))
    assert flipped[0].tolist() == [[30, 20, 10, 0], [70, 60, 50, 40]]
    assert flipped.is_contiguous()
    assert flip_boxes(np.array([[0.0, 0.5, 1.5, 2.0]]), 4).tolist() == [[2.5, 0.5, 4.0, 2.0]]
    assert flip_boxes(np.zeros((0, 4)), 4).shape == (0, 4)
    mirrored = _patch().flipped(10)
    assert (mirrored.mask.tolist(), mirrored.box) == ([[0, 1], [0, 1], [1, 1]], (6, 1, 8, 4))


def test_a_window_is_of_the_mirrored_image() -> None:
    seen = look_at_image(_image(), View(True, (0, 1, 3, 2), (1, 3)), (2, 4))
    assert seen[0].tolist() == [[70, 60, 50]]


def test_a_window_of_a_reduced_image_covers_all_that_it_shows() -> None:
    reduced = torch.arange(3 * 5 * 5, dtype=torch.uint8).reshape(3, 5, 5)  # of 10 x 9 px
    assert look_at_image(reduced, View(False, (3, 2, 6, 8), (6, 3)), (9, 10))[0].tolist() == [
        [6, 7],
        [11, 12],
        [16, 17],
        [21, 22],
    ]


def test_a_patch_is_cut_to_what_a_window_shows_and_no_more() -> None:
    cut = _patch().cut((0, 0, 3, 3))
    assert (cut.mask.tolist(), cut.box) == ([[1], [1]], (2, 1, 3, 3))
    foot = _patch().cut((3, 0, 9, 9))
    assert (foot.mask.tolist(), foot.box) == ([[1]], (0, 3, 1, 4))
    assert _patch().cut((3, 0, 9, 3)).mask.size == 0  # only the empty corner of the L
    assert _patch().cut((8, 8, 9, 9)).mask.size == 0


def test_brightness_contrast_and_saturation_do_what_they_say() -> None:
    image = torch.tensor([200, 100, 50], dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 2)
    assert adjust_colors(image, 1, 1, 1).equal(image)
    assert adjust_colors(image, 0.5, 1, 1)[:, 0, 0].tolist() == [100, 50, 25]
    assert adjust_colors(image, 2, 1, 1)[:, 0, 0].tolist() == [255, 200, 100]
    grey = adjust_colors(image, 1, 1, 0)[:, 0, 0].tolist()
    assert grey == [124, 124, 124]  # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    two_tones = torch.tensor([[[50, 150]]], dtype=torch.uint8).expand(3, 1, 2)
    assert adjust_colors(two_tones, 1, 0.5, 1)[0].tolist() == [[75, 125]]
    assert adjust_colors(two_tones, 0.5, 0.5, 1)[0].tolist() == [[38, 62]]  # around a mean of 50: 37.5, to even


def test_colours_of_a_view_are_applied_to_what_it_shows() -> None:
    view = View(False, (0, 0, 2, 2), (2, 2), brightness=0.5)
    assert look_at_image(_image(), view, (2, 4))[0].tolist() == [[0, 5], [20, 25]]


def test_the_same_key_gives_the_same_view_and_other_keys_do_not() -> None:
    config = AugmentConfig(color_jitter=0.3)
    first = draw_view(480, 640, PREPROCESS, config, _rng(0, 1, 2))
    assert draw_view(480, 640, PREPROCESS, config, _rng(0, 1, 2)) == first
    for key in [(1, 1, 2), (0, 2, 2), (0, 1, 3)]:
        assert draw_view(480, 640, PREPROCESS, config, _rng(*key)) != first


def test_another_purpose_has_other_chances() -> None:
    drawn = {random_generator(0, purpose, SampleKey(0, 0)).integers(2**60) for purpose in Purpose}
    assert len(drawn) == len(Purpose)


def test_one_setting_never_changes_what_another_one_does() -> None:
    plain = _views(AugmentConfig(color_jitter=0))
    bright = _views(AugmentConfig(color_jitter=0.5))
    several = _views(AugmentConfig(color_jitter=0.5, short_sides_px=(640, 800)))
    large = _views(AugmentConfig(color_jitter=0.5, scale_jitter=(0.1, 2.0), crop_size_px=1024))
    flips = [view.is_flipped for view in plain]
    assert 60 < sum(flips) < 140
    for others in (bright, several, large):
        assert [view.is_flipped for view in others] == flips
    for others in (several, large):
        assert [view.brightness for view in others] == [view.brightness for view in bright]
    assert len({view.brightness for view in bright}) == 200


def test_a_mirror_image_comes_as_often_as_it_is_asked_for() -> None:
    assert sum(view.is_flipped for view in _views(AugmentConfig(flip_probability=1.0))) == 200
    assert 20 <= sum(view.is_flipped for view in _views(AugmentConfig(flip_probability=0.2))) <= 60


def test_colours_wander_as_far_as_they_may_and_no_further() -> None:
    views = _views(AugmentConfig(color_jitter=0.2))
    for name in ("brightness", "contrast", "saturation"):
        values = [getattr(view, name) for view in views]
        assert 0.8 <= min(values) < 0.82
        assert 1.18 < max(values) <= 1.2


def test_multi_scale_takes_one_of_its_sides_and_all_of_them() -> None:
    views = _views(AugmentConfig(short_sides_px=(320, 640, 1600)))
    assert {view.size for view in views} == {(320, 426), (640, 853), (1200, 1600)}
    assert {view.window for view in views} == {(0, 0, 640, 480)}


def test_large_scale_jitter_uses_the_whole_range_of_scales() -> None:
    views = _views(AugmentConfig(scale_jitter=(0.5, 2.0), crop_size_px=1024), count=500)
    factors = [view.size[1] / (view.window[2] - view.window[0]) / (1024 / 640) for view in views]
    assert 0.49 < min(factors) < 0.53
    assert 1.97 < max(factors) < 2.01
    assert abs(np.mean(factors) - 1.25) < 0.06
    whole = [view for view, factor in zip(views, factors, strict=True) if factor < 0.99]
    assert {view.window for view in whole} == {(0, 0, 640, 480)}
    # Windows are whole px, so the square is filled but for less than the size of one.
    assert all(view.size[1] >= 1021 for view, factor in zip(views, factors, strict=True) if factor > 1.01)
    lefts = {view.window[0] for view in views}
    assert min(lefts) == 0
    assert max(lefts) > 200
    assert max(view.window[2] for view in views) == 640


def test_a_crop_alone_keeps_the_scale() -> None:
    assert {view.size for view in _views(AugmentConfig(crop_size_px=1024), count=20)} == {(768, 1024)}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flip_probability": 1.5}, "--flip-probability must be in [0, 1], got 1.5"),
        ({"flip_probability": -0.1}, "--flip-probability must be in [0, 1], got -0.1"),
        ({"flip_probability": float("nan")}, "--flip-probability must be in [0, 1], got nan"),
        ({"color_jitter": 1}, "--color-jitter must be in [0, 1), got 1"),
        ({"color_jitter": -0.1}, "--color-jitter must be in [0, 1), got -0.1"),
        ({"short_sides_px": (800, 31)}, "--short-sides must be 32 px or more each, got (800, 31)"),
        ({"scale_jitter": (0.0, 1.0), "crop_size_px": 64}, "0 < LOW <= HIGH <= 10, got 0.0,1.0"),
        ({"scale_jitter": (2.0, 1.0), "crop_size_px": 64}, "0 < LOW <= HIGH <= 10, got 2.0,1.0"),
        ({"scale_jitter": (1.0, 11.0), "crop_size_px": 64}, "0 < LOW <= HIGH <= 10, got 1.0,11.0"),
        ({"crop_size_px": -32}, "--crop-size must be a multiple of 32, or 0, got -32"),
        ({"crop_size_px": 100}, "--crop-size must be a multiple of 32, or 0, got 100"),
        ({"scale_jitter": (0.5, 1.0)}, "--crop-size must be above 0 with --scale-jitter, got 0"),
    ],
)
def test_impossible_augmentation_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        AugmentConfig(**values)
    assert message in str(caught.value)
