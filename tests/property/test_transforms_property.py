"""Whatever the image, its target stays with it."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.training.transforms import (
    AugmentConfig,
    Purpose,
    Sample,
    SampleKey,
    augment,
    flip_horizontal,
    random_generator,
)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Any image with any masks, each in the smallest box of whole pixels around it."""
    height, width, num_instances = draw(st.integers(1, 12)), draw(st.integers(1, 12)), draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    masks = rng.random((num_instances, height, width)) < draw(st.floats(0.02, 0.9))
    masks[:, rng.integers(height), rng.integers(width)] = True
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8))
    boxes = torch.tensor([_box_around(mask) for mask in masks], dtype=torch.float32).reshape(-1, 4)
    labels = torch.from_numpy(rng.integers(1, 5, num_instances))
    return Sample(image, boxes, labels, torch.from_numpy(masks))


def _box_around(mask: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def _is_same(one: Sample, other: Sample) -> bool:
    return all(getattr(one, name).equal(getattr(other, name)) for name in ("image", "boxes", "labels", "masks"))


@given(samples())
def test_flipping_twice_changes_nothing(sample: Sample) -> None:
    assert _is_same(flip_horizontal(flip_horizontal(sample)), sample)


@given(samples(), st.integers(0, 1000), st.floats(0, 1), st.floats(0, 0.99))
def test_a_box_is_always_the_one_around_its_mask(sample: Sample, seed: int, flips: float, jitter: float) -> None:
    augmented = augment(sample, AugmentConfig(flips, jitter), random_generator(seed, Purpose.AUGMENT, SampleKey(0, 0)))
    assert augmented.image.shape == sample.image.shape
    assert augmented.image.dtype == torch.uint8
    assert augmented.labels.equal(sample.labels)
    for box, mask in zip(augmented.boxes, augmented.masks, strict=True):
        assert box.tolist() == _box_around(mask.numpy())


@given(samples(), st.integers(0, 1000))
def test_pixels_move_with_their_masks(sample: Sample, seed: int) -> None:
    augmented = augment(sample, AugmentConfig(0.5, 0), random_generator(seed, Purpose.AUGMENT, SampleKey(0, 0)))
    for before, after in zip(sample.masks, augmented.masks, strict=True):
        seen_before = sorted(map(tuple, sample.image[:, before].T.tolist()))
        seen_after = sorted(map(tuple, augmented.image[:, after].T.tolist()))
        assert seen_before == seen_after
