"""Arithmetic of boxes for many images at once, on any device; nothing here makes the host wait."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_LOG_SCALE = math.log(1000 / 16)
"""A box grows by no more than this: torchvision's limit."""


def decode_boxes(deltas: Tensor, anchors: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Move and scale boxes as a head says.

    Args:
        deltas: (..., 4) float32: shifts of the centre in anchors' sides, and logarithms of scales.
        anchors: (..., 4) float32, XYXY, px.
        weights: what the head multiplies each delta by.

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
