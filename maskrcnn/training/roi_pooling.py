"""Features of RoIs from all levels of a pyramid at once, with their gradients.

On the CPU pooling is prediction's weighted sum of table rows, whose gradient is one too. On a GPU that gradient is
slow, and torchvision's kernel is not: there the levels lie on one canvas, so that an RoI's level is a matter of where
its features lie, and nobody has to ask the device which RoIs belong to which level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from maskrcnn.model.inputs import send
from maskrcnn.model.roi_align import FeatureTable, level_exponents, level_of, sample_points


class PooledFeatures(Protocol):
    """The features of a batch, ready to be pooled."""

    def pool(self, boxes: Tensor, image_of_box: Tensor, side: int, samples_per_side: int) -> Tensor:
        """Give the features (N, side, side, C) inside boxes; see `FeatureTable.pool`."""
        ...


def join_levels(levels: Sequence[Tensor], input_shape: tuple[int, int], *, is_table: bool) -> PooledFeatures:
    """Join the levels of a pyramid in float32.

    Args:
        levels: L of (B, C, H, W), each of half the size of the one before.
        input_shape: (height, width) of the padded images, px.
        is_table: as a table, else as a canvas.
    """
    exact = [level.float() for level in levels]
    return FeatureTable(exact, input_shape) if is_table else FeatureCanvas(exact, input_shape)


class FeatureCanvas:
    """The levels of B images, one below the other.

    Args:
        levels, input_shape: as for `FeatureTable`.
    """

    def __init__(self, levels: Sequence[Tensor], input_shape: tuple[int, int]) -> None:
        exponents = level_exponents(levels, input_shape)
        self._finest, self._coarsest = exponents[0], exponents[-1]
        shapes = [(int(level.shape[2]), int(level.shape[3])) for level in levels]
        begins = [sum(height + 2 for height, _ in shapes[:number]) for number in range(len(shapes))]
        rows = [(height, width, begin) for (height, width), begin in zip(shapes, begins, strict=True)]
        self._places = send(torch.tensor(rows), levels[0].device)
        self._canvas = _stack(levels)

    def pool(self, boxes: Tensor, image_of_box: Tensor, side: int, samples_per_side: int) -> Tensor:
        """Give the features inside boxes; see `FeatureTable.pool`."""
        level = level_of(boxes, self._finest, self._coarsest)
        height, width, begin = self._places[level].unbind(1)
        in_cells = boxes * torch.exp2(-(level + self._finest).float())[:, None]
        nothing = torch.zeros_like(in_cells[:, 0])
        down = torch.stack([nothing, begin.to(in_cells), nothing, begin.to(in_cells)], 1)
        rois = torch.cat([image_of_box[:, None].to(in_cells), in_cells + down], 1)
        pooled: Tensor = roi_align(self._canvas, rois, (side, side), 1.0, samples_per_side)
        # Of a bin that reaches over the far edge, only the samples inside count; all of them see the last cell.
        counting = [
            sample_points(in_cells[:, axis], in_cells[:, axis + 2], num_cells, side, samples_per_side)[1]
            for axis, num_cells in ((1, height), (0, width))
        ]
        rows, columns = (is_inside.view(-1, side, samples_per_side).float().mean(2) for is_inside in counting)
        return (pooled * (rows[:, :, None] * columns[:, None])[:, None]).permute(0, 2, 3, 1)


def _stack(levels: Sequence[Tensor]) -> Tensor:
    """Stack levels; each ends with its last row and column twice more, as what lies beyond the last centres counts."""
    width = levels[0].shape[3] + 2
    padded = [F.pad(level, (0, 2, 0, 2), mode="replicate") for level in levels]
    return torch.cat([F.pad(level, (0, width - level.shape[3])) for level in padded], 2)
