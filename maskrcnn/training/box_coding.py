"""Boxes relative to others, in few operations, and without constants that are brought to the device each time."""

from __future__ import annotations

import torch
from torch import Tensor

Weights = tuple[float, float, float, float]
"""Of the distances across and down, and of the logarithms of width and height; equal in pairs."""


def encode_boxes(truths: Tensor, boxes: Tensor, weights: Weights) -> Tensor:
    """Give boxes (..., 4) relative to others (..., 4), all XYXY.

    Source: Ren et al., "Faster R-CNN", equation 2; torchvision, ``models/detection/_utils.py``, ``BoxCoder``.
    """
    centre, size = _centres(boxes)
    true_centre, true_size = _centres(truths)
    moved, grown = (true_centre - centre) / size, (true_size / size).log()
    return torch.cat([_weighted(moved, weights[0]), _weighted(grown, weights[2])], -1)


def decode_boxes(deltas: Tensor, boxes: Tensor, weights: Weights, largest_growth: float) -> Tensor:
    """Give the boxes (..., 4), XYXY, that ``encode_boxes`` would turn into these deltas.

    Args:
        deltas: (..., 4).
        boxes: (..., 4) XYXY, what the deltas are relative to.
        weights: of ``encode_boxes``.
        largest_growth: the logarithm that width and height may grow by.
    """
    centre, size = _centres(boxes)
    new_centre = centre + _weighted(deltas[..., :2], weights[0], -1) * size
    half = 0.5 * size * _weighted(deltas[..., 2:], weights[2], -1).clamp(max=largest_growth).exp()
    return torch.cat([new_centre - half, new_centre + half], -1)


def _centres(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


def _weighted(pair: Tensor, weight: float, power: int = 1) -> Tensor:
    return pair * weight**power
