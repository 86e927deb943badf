"""Arithmetic of boxes for many images at once, on any device; nothing here makes the host wait."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
"""A box grows by no more than this: torchvision's limit."""


Weights = tuple[float, float, float, float]
"""What a head multiplies its answers by: shifts across and down, and the logarithms of width and height."""


def encode_boxes(truths: Tensor, anchors: Tensor, weights: Weights) -> Tensor:
    """Say how a head should move and scale boxes (..., 4), XYXY, for them to become others: (..., 4) float32.

    Source: Ren et al. 2015, "Faster R-CNN", eq. 2; torchvision, ``BoxCoder.encode_single``.
    """
    sides, true_sides = anchors[..., 2:] - anchors[..., :2], truths[..., 2:] - truths[..., :2]
    centres, true_centres = anchors[..., :2] + 0.5 * sides, truths[..., :2] + 0.5 * true_sides
    wx, wy, ww, wh = weights
    shifts, growths = (true_centres - centres) / sides, (true_sides / sides).log()
    return torch.stack([shifts[..., 0] * wx, shifts[..., 1] * wy, growths[..., 0] * ww, growths[..., 1] * wh], dim=-1)


def decode_boxes(deltas: Tensor, anchors: Tensor, weights: Weights) -> Tensor:
    """Move and scale boxes as a head says.

    Args:
        deltas: (..., 4) float32: shifts of the centre in anchors' sides, and logarithms of scales.
        anchors: (..., 4) float32, XYXY, px.
        weights: of `encode_boxes`.

    Returns:
        (..., 4) float32, XYXY, px; they may leave the image.

    Source: torchvision, ``models/detection/_utils.py``, ``BoxCoder.decode_single``.
    """
    sides = anchors[..., 2:] - anchors[..., :2]
    centres = anchors[..., :2] + 0.5 * sides
    wx, wy, ww, wh = weights
    centres = torch.stack([deltas[..., 0] / wx, deltas[..., 1] / wy], dim=-1) * sides + centres
    scales = torch.stack([deltas[..., 2] / ww, deltas[..., 3] / wh], dim=-1).clamp(max=MAX_LOG_SCALE).exp()
    halves = 0.5 * (scales * sides)
    return torch.cat([centres - halves, centres + halves], dim=-1)


def clip_boxes(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Cut boxes at their images' edges.

    Args:
        boxes: (B, ..., 4) float32, XYXY, px.
        sizes: (B, 2) float32, (height, width) of each image, px.
    """
    limits = sizes.flip(1).repeat(1, 2).view(len(sizes), *[1] * (boxes.dim() - 2), 4)
    return boxes.clamp(min=0).minimum(limits)


def are_at_least(boxes: Tensor, side_px: float) -> Tensor:
    """Say of boxes (..., 4), XYXY, whether both sides are this long or longer; of NaN, no."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= side_px).all(-1)
