"""A sample's transforms on images small enough to check by eye."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn.errors import InputError
from maskrcnn.training.transforms import (
    AugmentConfig,
    Purpose,
    Sample,
    SampleKey,
    adjust_colors,
    augment,
    flip_horizontal,
    random_generator,
)


def _sample() -> Sample:
    image = torch.arange(3 * 2 * 4, dtype=torch.uint8).reshape(3, 2, 4) * 10
    mask = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0]]], dtype=torch.bool)
    return Sample(image, torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([3]), mask, image_id=7)


def _rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    return random_generator(seed, Purpose.AUGMENT, SampleKey(epoch, index))


def test_flip_mirrors_image_box_and_mask() -> None:
    flipped = flip_horizontal(_sample())
    assert flipped.image[0].tolist() == [[30, 20, 10, 0], [70, 60, 50, 40]]
    assert flipped.boxes.tolist() == [[2.0, 0.0, 4.0, 2.0]]
    assert flipped.masks[0].int().tolist() == [[0, 0, 1, 1], [0, 0, 0, 1]]
    assert flipped.labels.tolist() == [3]
    assert flipped.image_id == 7


def test_flip_takes_an_image_without_instances() -> None:
    image = torch.zeros(3, 2, 4, dtype=torch.uint8)
    bare = Sample(image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2, 4, dtype=torch.bool))
    assert flip_horizontal(bare).boxes.shape == (0, 4)


def test_brightness_contrast_and_saturation_do_what_they_say() -> None:
    image = torch.tensor([200, 100, 50], dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 2)
    assert adjust_colors(image, 1, 1, 1).equal(image)
    assert adjust_colors(image, 0.5, 1, 1)[:, 0, 0].tolist() == [100, 50, 25]
    assert adjust_colors(image, 2, 1, 1)[:, 0, 0].tolist() == [255, 200, 100]
    grey = adjust_colors(image, 1, 1, 0)[:, 0, 0].tolist()
    assert grey == [124, 124, 124]  # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    two_tones = torch.tensor([[[50, 150]]], dtype=torch.uint8).expand(3, 1, 2)
    assert adjust_colors(two_tones, 1, 0.5, 1)[0].tolist() == [[75, 125]]


def test_the_same_key_gives_the_same_sample_and_other_keys_do_not() -> None:
    config = AugmentConfig(color_jitter=0.3)
    first = augment(_sample(), config, _rng(0, 1, 2))
    assert augment(_sample(), config, _rng(0, 1, 2)).image.equal(first.image)
    for key in [(1, 1, 2), (0, 2, 2), (0, 1, 3)]:
        assert not augment(_sample(), config, _rng(*key)).image.equal(first.image)


def test_another_purpose_has_other_chances() -> None:
    drawn = {random_generator(0, purpose, SampleKey(0, 0)).integers(2**60) for purpose in Purpose}
    assert len(drawn) == len(Purpose)


def test_colours_do_not_change_who_is_flipped() -> None:
    for index in range(20):
        plain = augment(_sample(), AugmentConfig(color_jitter=0), _rng(0, 0, index))
        bright = augment(_sample(), AugmentConfig(color_jitter=0.5), _rng(0, 0, index))
        assert plain.boxes.equal(bright.boxes)


def test_no_augmentation_leaves_a_sample_as_it_is() -> None:
    sample = _sample()
    assert augment(sample, AugmentConfig(0, 0), _rng(0, 0, 0)) is sample


def test_parts_that_do_not_fit_together_are_no_sample() -> None:
    sample = _sample()
    with pytest.raises(ValueError, match="must fit together"):
        Sample(sample.image, sample.boxes, sample.labels[:0], sample.masks)
    with pytest.raises(ValueError, match="must fit together"):
        Sample(sample.image, sample.boxes, sample.labels, sample.masks[..., :3])


def test_impossible_augmentation_is_refused() -> None:
    with pytest.raises(InputError, match=r"--flip-probability must be in \[0, 1\], got 1.5"):
        AugmentConfig(flip_probability=1.5)
    with pytest.raises(InputError, match=r"--color-jitter must be in \[0, 1\), got 1"):
        AugmentConfig(color_jitter=1)
