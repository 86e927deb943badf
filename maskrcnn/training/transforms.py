"""How a training image is looked at: flip, crop, size and colours, drawn by key, and applied to image and target alike.

A view is drawn from the image's size alone, so that whoever plans a step knows its shapes before an image is read.
Every random choice comes from a generator keyed by (seed, epoch, sample): a sample looks the same on whichever worker
it is prepared, and after a resume.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskrcnn.config import PreprocessConfig
from maskrcnn.model.shapes import resized_shape
from maskrcnn.training.augment import AugmentConfig

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: how much red, green and blue add to brightness
_MIN_WINDOW_PX = 8
_PIXELS_AT_ONCE = 1 << 16


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


def random_generator(seed: int, purpose: Purpose, key: SampleKey) -> np.random.Generator:
    """Build the generator of one purpose for one sample in one epoch; no two of them have anything in common."""
    return np.random.default_rng((seed, purpose, *key))


@dataclass(frozen=True)
class View:
    """How one image is looked at once: mirrored, then cut to a window, then resized."""

    is_flipped: bool
    window: tuple[int, int, int, int]
    """Left, top, right, bottom of what is seen, px of the file's image after the flip."""
    size: tuple[int, int]
    """(height, width) that the window is resized to, px of the network's input, before padding."""
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0


def draw_view(
    height: int, width: int, preprocess: PreprocessConfig, config: AugmentConfig, rng: np.random.Generator
) -> View:
    """Draw how an image is looked at.

    Every number is drawn whether it is used or not, so that one setting never changes what another one does.

    Args:
        height, width: of the file's image, px.
        preprocess: sizes without augmentation.
        config: how far views wander.
        rng: of the sample.
    """
    is_flipped = bool(rng.random() < config.flip_probability)
    colors = (1 + config.color_jitter * rng.uniform(-1, 1, 3)).tolist()
    size_draw, scale_draw, left_draw, top_draw = rng.random(4).tolist()
    if config.crop_size_px:
        window, size = _jitter_scale(height, width, config, scale_draw, left_draw, top_draw)
    else:
        sides = config.short_sides_px or (preprocess.min_size_px,)
        min_size = sides[int(size_draw * len(sides))]
        window = (0, 0, width, height)
        size = resized_shape(
            height, width, replace(preprocess, min_size_px=min_size, max_size_px=max(min_size, preprocess.max_size_px))
        )
    return View(is_flipped, window, size, *colors)


def _jitter_scale(
    height: int, width: int, config: AugmentConfig, scale_draw: float, left_draw: float, top_draw: float
) -> tuple[tuple[int, int, int, int], tuple[int, int]]:
    """Scale by chance, and cut what does not fit into the square.

    Source: Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method", section 3 (large scale jittering).
    """
    crop, (low, high) = config.crop_size_px, config.scale_jitter
    scale = crop / max(height, width) * (low + (high - low) * scale_draw)
    edges: list[tuple[int, int]] = []
    for side, draw in ((width, left_draw), (height, top_draw)):
        seen = min(side, max(_MIN_WINDOW_PX, round(crop / scale)))
        begin = int(draw * (side - seen + 1))
        edges.append((begin, begin + seen))
    (left, right), (top, bottom) = edges
    size = tuple(min(crop, max(1, round((end - begin) * scale))) for begin, end in ((top, bottom), (left, right)))
    return (left, top, right, bottom), size  # type: ignore[return-value]


def look_at_image(image: Tensor, view: View, full_size: tuple[int, int]) -> Tensor:
    """Mirror, cut and recolour an image; it is resized later, on the device.

    Args:
        image: (3, H, W) uint8 RGB, perhaps decoded at a reduced scale.
        view: in px of the file's image.
        full_size: (height, width) of the file's image, px.

    Returns:
        (3, H', W') uint8 RGB.
    """
    left, top, right, bottom = view.window
    image = image.flip(-1) if view.is_flipped else image
    down, across = image.shape[1] / full_size[0], image.shape[2] / full_size[1]
    image = image[:, int(top * down) : math.ceil(bottom * down), int(left * across) : math.ceil(right * across)]
    if (view.brightness, view.contrast, view.saturation) == (1.0, 1.0, 1.0):
        return image.contiguous()
    return adjust_colors(image, view.brightness, view.contrast, view.saturation)


def flip_boxes(boxes: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mirror (N, 4) XYXY boxes, px, left to right in an image of this width."""
    x0, y0, x1, y1 = boxes.T
    return np.stack([width - x1, y0, width - x0, y1], axis=1)


@dataclass(frozen=True)
class Patch:
    """The part of a mask that is not empty, and where it lies."""

    mask: NDArray[np.uint8]
    """(h, w) of 0 and 1."""
    left: int
    """px of the image."""
    top: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, px."""
        height, width = self.mask.shape
        return self.left, self.top, self.left + width, self.top + height

    def flipped(self, width: int) -> Patch:
        """Mirror left to right in an image of this width."""
        return Patch(self.mask[:, ::-1], width - self.left - self.mask.shape[1], self.top)

    def cut(self, window: tuple[int, int, int, int]) -> Patch:
        """Give what is seen in a window, in its px, as tight as it is; (0, 0) when nothing is."""
        left, top, right, bottom = window
        x0, y0, _, _ = self.box
        inside = self.mask[max(top - y0, 0) : max(bottom - y0, 0), max(left - x0, 0) : max(right - x0, 0)]
        columns, rows = np.flatnonzero(inside.any(0)), np.flatnonzero(inside.any(1))
        if not len(columns):
            return Patch(np.zeros((0, 0), np.uint8), 0, 0)
        tight = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return Patch(tight, max(x0 - left, 0) + int(columns[0]), max(y0 - top, 0) + int(rows[0]))


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
    # All three are affine, so they are one matrix and one offset; they go piece by piece, since whole images in float32
    # tear holes into the heap, and make a loader's worker grow by hundreds of MiB.
    luma = torch.tensor(_LUMA)
    matrix = brightness * contrast * (saturation * torch.eye(3) + (1 - saturation) * luma.expand(3, 3))
    pixels = image.reshape(3, -1)
    mean = brightness * float(pixels.numpy().mean(axis=1) @ luma.double().numpy())
    adjusted = torch.empty_like(pixels)
    for begin in range(0, pixels.shape[1], _PIXELS_AT_ONCE):
        piece = slice(begin, begin + _PIXELS_AT_ONCE)
        colors = (matrix @ pixels[:, piece].float()).add_((1 - contrast) * mean)
        adjusted[:, piece] = colors.round_().clamp_(0, 255)
    return adjusted.reshape(image.shape)
