"""What happens to an image on its way to the network, always together with its target. Owns the sample's shape.

Every random choice is drawn from a generator keyed by (seed, epoch, sample), so that a sample looks the same on
whichever worker it is prepared, and after a resume.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from maskrcnn.config import check

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: how much red, green and blue add to brightness


class Purpose(enum.IntEnum):
    """What chance is asked for."""

    ORDER = 0
    AUGMENT = 1
    ANCHORS = 2
    ROIS = 3


class SampleKey(NamedTuple):
    """Which sample, and how often it has been seen: all that its randomness depends on besides the seed."""

    epoch: int
    sample_index: int


_UNKEYED = SampleKey(0, 0)


@dataclass(frozen=True)
class AugmentConfig:
    """How far training images wander from their files."""

    flip_probability: float = 0.5
    """Of a mirror image, left to right."""
    color_jitter: float = 0.1
    """Brightness, contrast and saturation are each multiplied by up to 1 +- this; 0 leaves the colours alone."""

    def __post_init__(self) -> None:
        check(0 <= self.flip_probability <= 1, "flip_probability", self.flip_probability, "in [0, 1]")
        check(0 <= self.color_jitter < 1, "color_jitter", self.color_jitter, "in [0, 1)")


@dataclass(frozen=True)
class Sample:
    """An image and what is on it; boxes, labels and masks are equally long."""

    image: Tensor
    """(3, H, W) uint8 RGB."""
    boxes: Tensor
    """(N, 4) float32, XYXY, absolute px of this image."""
    labels: Tensor
    """(N,) int64, the network's class indices, 1 or more."""
    masks: Tensor
    """(N, H, W) bool."""
    key: SampleKey = _UNKEYED
    image_id: int = 0
    num_left_out: int = 0
    """Instances of the file whose mask turned out to be empty."""

    def __post_init__(self) -> None:
        lengths = {len(self.boxes), len(self.labels), len(self.masks)}
        if len(lengths) != 1 or self.masks.shape[1:] != self.image.shape[1:] or self.boxes.shape[1:] != (4,):
            shapes = {name: tuple(getattr(self, name).shape) for name in ("image", "boxes", "labels", "masks")}
            raise ValueError(f"a sample's parts must fit together, got {shapes} for image {self.image_id}")


def random_generator(seed: int, purpose: Purpose, key: SampleKey) -> np.random.Generator:
    """Build the generator of one purpose for one sample in one epoch; no two of them have anything in common."""
    return np.random.default_rng((seed, purpose, *key))


def augment(sample: Sample, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """Flip a sample and change its colours by chance.

    Every number is drawn whether it is used or not, so that one setting never changes what another one does.
    """
    is_flipped = rng.random() < config.flip_probability
    brightness, contrast, saturation = (1 + config.color_jitter * rng.uniform(-1, 1, 3)).tolist()
    if is_flipped:
        sample = flip_horizontal(sample)
    if config.color_jitter == 0:
        return sample
    return replace(sample, image=adjust_colors(sample.image, brightness, contrast, saturation))


def flip_horizontal(sample: Sample) -> Sample:
    """Mirror image, boxes and masks left to right."""
    width = sample.image.shape[-1]
    x0, y0, x1, y1 = sample.boxes.unbind(1)
    return replace(
        sample,
        image=sample.image.flip(-1),
        boxes=torch.stack([width - x1, y0, width - x0, y1], dim=1),
        masks=sample.masks.flip(-1),
    )


def adjust_colors(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Multiply the brightness, the distance from mean brightness, and the distance from grey, in that order.

    Args:
        image: (3, H, W) uint8 RGB.
        brightness: factor, 1 leaves it as it is.
        contrast: factor.
        saturation: factor.

    Returns:
        (3, H, W) uint8 RGB, rounded and clipped once, at the end.
    """
    colors = image.float() * brightness
    luma = torch.tensor(_LUMA).view(3, 1, 1)
    mean = (colors * luma).sum(0).mean()
    colors = mean + contrast * (colors - mean)
    grey = (colors * luma).sum(0, keepdim=True)
    colors = grey + saturation * (colors - grey)
    return colors.round().clamp(0, 255).to(torch.uint8)
