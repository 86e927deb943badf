"""RoIAlign over a feature pyramid as one weighted sum of table rows.

The cells of all levels and all images are the rows of one table, (cells, C). A bin of a RoI is a weighted sum of the
rows round its sampling points, so that all RoIs of a batch, whatever their image and level, are one call of
`embedding_bag`, which reads whole channel vectors. Nothing makes the host wait. Sums are taken in another order than
torchvision's, hence equal to it but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskrcnn.model.inputs import send

CANONICAL_SIDE_PX = 224
CANONICAL_LEVEL = 4
_LEVEL_EPSILON = 1e-6


class FeatureTable:
    """The features of a batch, ready to be pooled.

    Args:
        levels: L of (B, C, H, W), finest first, of any float dtype; channels-last is the fast layout.
        input_shape: (height, width) of the network's input that they come from, px.
    """

    def __init__(self, levels: Sequence[Tensor], input_shape: tuple[int, int]) -> None:
        self._rows = torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in levels])
        exponents = level_exponents(levels, input_shape)
        self._finest, self._coarsest = exponents[0], exponents[-1]
        shapes = [(level.shape[2], level.shape[3]) for level in levels]
        num_images = levels[0].shape[0]
        starts = [0]
        for height, width in shapes[:-1]:
            starts.append(starts[-1] + num_images * height * width)
        device = self._rows.device
        self._heights, self._widths, self._starts = (
            send(torch.tensor(values), device) for values in ([h for h, _ in shapes], [w for _, w in shapes], starts)
        )

    def pool(self, boxes: Tensor, image_of_box: Tensor, side: int, samples_per_side: int) -> Tensor:
        """Give the features inside boxes, averaged in bins.

        Args:
            boxes: (N, 4) float32, XYXY, px of the network's input.
            image_of_box: (N,) int64.
            side: bins on a side.
            samples_per_side: sampling points on a side of a bin, 1 or more.

        Returns:
            (N, side, side, C) of the features' dtype.

        Source: torchvision, ``csrc/ops/cpu/roi_align_kernel.cpp`` and ``ops/poolers.py``, with ``aligned=False``.
        """
        level = level_of(boxes, self._finest, self._coarsest)
        scale = torch.exp2(-(level + self._finest).float())
        height, width = self._heights[level], self._widths[level]
        row, row_weight = _sample(boxes[:, 1] * scale, boxes[:, 3] * scale, height, side, samples_per_side)
        column, column_weight = _sample(boxes[:, 0] * scale, boxes[:, 2] * scale, width, side, samples_per_side)
        first = self._starts[level] + image_of_box * height * width
        cells = first[:, None, None] + row * width[:, None, None]
        indices = cells[:, :, None, :, None] + column[:, None, :, None, :]
        weights = row_weight[:, :, None, :, None] * column_weight[:, None, :, None, :]
        bags = len(boxes) * side * side, 4 * samples_per_side**2
        weights = weights.view(bags).to(self._rows.dtype)
        pooled = F.embedding_bag(indices.view(bags), self._rows, per_sample_weights=weights, mode="sum")
        return pooled.view(len(boxes), side, side, self._rows.shape[1])


def level_exponents(levels: Sequence[Tensor], input_shape: tuple[int, int]) -> list[int]:
    """Give the power of two by which each level (B, C, H, W) is smaller than the input."""
    return [-round(math.log2(level.shape[2] / input_shape[0])) for level in levels]


def level_of(boxes: Tensor, finest: int, coarsest: int) -> Tensor:
    """Say from which level each box (N, 4) is pooled, (N,) int64, 0 for the finest.

    Source: torchvision, ``ops/poolers.py``, ``LevelMapper``; Lin et al. 2017, "Feature Pyramid Networks", eq. 1.
    """
    sides = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level = torch.floor(CANONICAL_LEVEL + torch.log2(sides / CANONICAL_SIDE_PX) + _LEVEL_EPSILON)
    return level.clamp(finest, coarsest).to(torch.int64) - finest


def _sample(start: Tensor, end: Tensor, num_cells: Tensor, side: int, samples_per_side: int) -> tuple[Tensor, Tensor]:
    """Give the cells round the sampling points of each bin along one axis, and their weights.

    Args:
        start, end: (N,) float32, of the boxes, cells.
        num_cells: (N,) int64, cells along the axis.
        side: bins.
        samples_per_side: sampling points in a bin.

    Returns:
        Two of (N, side, 2 * samples_per_side): int64 cells; float32 weights, which are those of a mean.
    """
    point, is_inside = sample_points(start, end, num_cells, side, samples_per_side)
    last = num_cells[:, None] - 1
    point = point.clamp(min=0).minimum(last)
    cell = point.to(torch.int64)
    share = point - cell
    weights = torch.stack([1 - share, share], dim=-1).masked_fill(~is_inside[..., None], 0) / samples_per_side
    cells = torch.stack([cell, (cell + 1).minimum(last)], dim=-1)
    shape = len(start), side, 2 * samples_per_side
    return cells.view(shape), weights.view(shape)


def sample_points(
    start: Tensor, end: Tensor, num_cells: Tensor, side: int, samples_per_side: int
) -> tuple[Tensor, Tensor]:
    """Say where an axis of boxes is sampled, cells, and which of the points count: (N, side * samples_per_side) both.

    The arguments are `_sample`'s. A box narrower than a cell is pooled as if it were a cell wide.
    """
    bin_length = (end - start).clamp(min=1) / side
    steps = torch.arange(side * samples_per_side, device=start.device)
    point = start[:, None] + (steps + 0.5) / samples_per_side * bin_length[:, None]
    return point, (point >= -1) & (point <= num_cells[:, None])
