"""Features of RoIs from all levels of a pyramid at once, as torchvision's ``MultiScaleRoIAlign`` gives them.

torchvision goes from level to level, and asks the device each time which RoIs belong there. Here the levels are laid
side by side, so that an RoI's level is a matter of where its features lie. On the CPU, where torchvision's kernels use
one thread and no vector units for the gradient, pooling is a weighted sum of rows of a table, one row a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align


@dataclass(frozen=True)
class Pyramid:
    """The levels of B images, side by side."""

    joined: Tensor
    """A table (B * cells, C) of all cells of all levels, image by image; or a canvas (B, C, H, W)."""
    is_table: bool
    places: Tensor
    """(L, 4) int64 of each level: px a cell, height, width, and where it begins: in an image's table, or down the
    canvas."""
    num_images: int

    @classmethod
    def of(cls, levels: Sequence[Tensor], image_height: int, *, is_table: bool) -> Pyramid:
        """Join levels.

        Args:
            levels: L of (B, C, h, w), each of half the size of the one before; joined as float32.
            image_height: of the padded image, px.
            is_table: as a table, else as a canvas.
        """
        shapes = [(int(level.shape[2]), int(level.shape[3])) for level in levels]
        join = _as_table if is_table else _as_canvas
        extents = [height * width if is_table else height + 2 for height, width in shapes]
        begins = [sum(extents[:number]) for number in range(len(shapes))]
        rows = [
            (round(image_height / height), height, width, begin)
            for (height, width), begin in zip(shapes, begins, strict=True)
        ]
        places = torch.tensor(rows)
        if levels[0].is_cuda:
            places = places.pin_memory().to(levels[0].device, non_blocking=True)
        return cls(join(levels).float(), is_table, places, len(levels[0]))

    def pool(self, pooler: Any, boxes: Tensor, image_of_each: Tensor) -> Tensor:
        """Give each RoI's features.

        Args:
            pooler: torchvision's ``MultiScaleRoIAlign``, for its numbers.
            boxes: (R, 4) float32, XYXY, px of the padded image, inside it.
            image_of_each: (R,) int64.

        Returns:
            (R, C, side, side) float32.
        """
        side, num_samples = pooler.output_size[0], pooler.sampling_ratio
        place = self.places[self._levels_of(pooler, boxes)]
        in_cells = boxes / place[:, :1]
        if self.is_table:
            return self._pool_from_table(in_cells, image_of_each, place, side, num_samples)
        return self._pool_from_canvas(in_cells, image_of_each, place, side, num_samples)

    def _levels_of(self, pooler: Any, boxes: Tensor) -> Tensor:
        """Give the level (R,) that each box is taken from.

        Source: Lin et al., "Feature Pyramid Networks for Object Detection", equation 1, as torchvision rounds it.
        """
        size = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        level = torch.floor(pooler.canonical_level + torch.log2(size / pooler.canonical_scale) + 1e-6)
        first = torch.log2(self.places[0, 0].float())
        return (level - first).clamp(0, len(self.places) - 1).long()

    def _pool_from_canvas(
        self, in_cells: Tensor, image_of_each: Tensor, place: Tensor, side: int, num_samples: int
    ) -> Tensor:
        _, height, width, begin = place.unbind(1)
        nothing = torch.zeros_like(in_cells[:, 0])
        down = torch.stack([nothing, begin.to(in_cells), nothing, begin.to(in_cells)], 1)
        rois = torch.cat([image_of_each[:, None].to(in_cells), in_cells + down], 1)
        pooled: Tensor = roi_align(self.joined, rois, (side, side), 1.0, num_samples)
        # Of a bin that reaches over the far edge, only the samples inside count; all of them see the last cell.
        counting = [
            _sample(in_cells[:, axis], in_cells[:, axis + 2], num_cells, side, num_samples)[1]
            for axis, num_cells in ((1, height), (0, width))
        ]
        rows, columns = (is_inside.view(-1, side, num_samples).float().mean(2) for is_inside in counting)
        return pooled * (rows[:, :, None] * columns[:, None])[:, None]

    def _pool_from_table(
        self, in_cells: Tensor, image_of_each: Tensor, place: Tensor, side: int, num_samples: int
    ) -> Tensor:
        _, height, width, begin = place.unbind(1)
        rows, row_weights = _corners(in_cells[:, 1], in_cells[:, 3], height, side, num_samples)
        columns, column_weights = _corners(in_cells[:, 0], in_cells[:, 2], width, side, num_samples)
        first_cell = image_of_each * (len(self.joined) // self.num_images) + begin
        # (R, side, side, corners down, corners across)
        cells = (first_cell[:, None, None] + rows * width[:, None, None])[:, :, None, :, None]
        cells = cells + columns[:, None, :, None, :]
        weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
        summed = F.embedding_bag(
            cells.flatten(3).flatten(0, 2), self.joined, per_sample_weights=weights.flatten(3).flatten(0, 2), mode="sum"
        )
        return summed.view(-1, side, side, self.joined.shape[1]).permute(0, 3, 1, 2)


def _corners(low: Tensor, high: Tensor, num_cells: Tensor, side: int, num_samples: int) -> tuple[Tensor, Tensor]:
    """Say between which cells an axis of RoIs is sampled.

    Args:
        low, high: (R,) float32, the RoI's edges, cells.
        num_cells: (R,) int64, of its level along the axis.
        side: bins.
        num_samples: of a bin.

    Returns:
        Cells, (R, side, 2 * num_samples) int64, and their weights, float32.

    Source: torchvision, ``csrc/ops/cpu/roi_align_common.h``, ``pre_calc_for_bilinear_interpolate``.
    """
    position, is_inside = _sample(low, high, num_cells, side, num_samples)
    last = num_cells[:, None] - 1
    position = position.clamp(min=0).minimum(last.to(position))
    below = position.long()
    share = position - below
    cells = torch.stack([below, torch.minimum(below + 1, last)], -1)
    weights = torch.stack([1 - share, share], -1) * (is_inside / num_samples)[..., None]
    shape = (len(low), side, 2 * num_samples)
    return cells.view(shape), weights.view(shape)


def _sample(low: Tensor, high: Tensor, num_cells: Tensor, side: int, num_samples: int) -> tuple[Tensor, Tensor]:
    """Say where an axis of RoIs is sampled, (R, side * num_samples), and which of it is not beyond the far edge.

    Only an RoI narrower than a cell reaches over the edge, since it is pooled as if it were a cell wide.
    """
    sample = torch.arange(side * num_samples, device=low.device) + 0.5
    length = (high - low).clamp(min=1)
    position = low[:, None] + sample * (length / (side * num_samples))[:, None]
    return position, position <= num_cells[:, None]


def _as_table(levels: Sequence[Tensor]) -> Tensor:
    rows = [level.permute(0, 2, 3, 1).flatten(1, 2) for level in levels]
    return torch.cat(rows, 1).flatten(0, 1)


def _as_canvas(levels: Sequence[Tensor]) -> Tensor:
    """Stack levels; each ends with its last row and column twice more, as what lies beyond the last centres counts."""
    width = levels[0].shape[3] + 2
    padded = [F.pad(level, (0, 2, 0, 2), mode="replicate") for level in levels]
    return torch.cat([F.pad(level, (0, width - level.shape[3])) for level in padded], 2)
