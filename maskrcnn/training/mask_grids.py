"""Masks as small grids of equal size, and the mask head's targets cut from them.

The loss sees a mask at 28 x 28 cells inside a box, so no mask is ever drawn over a whole image: a grid holds a mask's
own px of the network's input where they fit into it, else their means over larger cells, per axis. A thin scratch
keeps its width, and a large product loses what the loss cannot see.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.ops import roi_align

from maskrcnn.coco import rle
from maskrcnn.coco.rle import Rle
from maskrcnn.training.transforms import Patch

GRID_SIDE = 112
"""Cells; four for each of the 28 that the loss compares, where a mask is larger than the grid."""
_INNER = GRID_SIDE - 2  # one cell on each side says what is beyond the mask


def read_patch(mask: Rle) -> Patch:
    """Draw the part of an RLE that is not empty; no more is ever held."""
    runs, image_height = rle.check_rle(mask), mask["size"][0]
    left, top, width, height = map(int, rle.runs_to_bbox(runs, image_height))
    return Patch(rle.runs_to_columns(runs, image_height, left, left + width)[top : top + height], left, top)


def nearest_indices(num_in: int, num_out: int) -> NDArray[np.int64]:
    """Give the px of a side that each px of its resized side is taken from.

    Source: torch, ``aten/src/ATen/native/UpSample.h``, ``nearest_neighbor_compute_source_index``.
    """
    places = np.arange(num_out, dtype=np.float32) * np.float32(num_in / num_out)
    return np.minimum(places.astype(np.int64), num_in - 1)


def draw_grid(
    patch: Patch, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], tuple[float, float, float, float]]:
    """Resize a mask as torchvision does, nearest px by nearest px, but only where it is not empty, into a grid.

    Args:
        patch: in an image of any size.
        rows, columns: from ``nearest_indices``: the image's px for every px of the resized image.

    Returns:
        The grid, (GRID_SIDE, GRID_SIDE) uint8 of 0 to 255, and its frame: left and top of its first cell, width and
        height of a cell, px of the resized image.
    """
    grid = np.zeros((GRID_SIDE, GRID_SIDE), np.uint8)
    x0, y0, x1, y1 = patch.box
    top, bottom = np.searchsorted(rows, [y0, y1]).tolist()
    left, right = np.searchsorted(columns, [x0, x1]).tolist()
    if top == bottom or left == right:
        return grid, (float(left), float(top), 1.0, 1.0)
    resized = patch.mask[rows[top:bottom] - y0][:, columns[left:right] - x0] * np.uint8(255)
    height, width = min(bottom - top, _INNER), min(right - left, _INNER)
    if (height, width) != resized.shape:
        resized = np.asarray(Image.fromarray(resized).resize((width, height), Image.Resampling.BOX))
    grid[1 : height + 1, 1 : width + 1] = resized
    # At the image's far edges there is no px beyond, and roi_align repeats the last one.
    if bottom == len(rows):
        grid[height + 1] = grid[height]
    if right == len(columns):
        grid[:, width + 1] = grid[:, width]
    cell_width, cell_height = (right - left) / width, (bottom - top) / height
    return grid, (left - cell_width, top - cell_height, cell_width, cell_height)


def mask_targets(grids: Tensor, frames: Tensor, boxes: Tensor, matched: Tensor, side: int) -> Tensor:
    """Cut targets for the mask head.

    They are those of torchvision's ``project_masks_on_boxes`` over full-size masks: equal where a mask fits into its
    grid px by px, close where it is larger.

    Args:
        grids: (N, GRID_SIDE, GRID_SIDE) uint8 of 0 to 255, from ``draw_grid``.
        frames: (N, 4) float32, their frames, px of the network's input.
        boxes: (P, 4) float32 XYXY, px of the network's input.
        matched: (P,) int64, which mask belongs to each box.
        side: cells of a target.

    Returns:
        (P, side, side) float32 in [0, 1].

    Source: torchvision, ``models/detection/roi_heads.py``, ``project_masks_on_boxes``.
    """
    if len(boxes) == 0:
        return boxes.new_zeros(0, side, side)
    frame = frames[matched]
    # A coordinate x of roi_align is the middle of px x, hence the halves.
    in_grid = (boxes + 0.5 - frame[:, [0, 1, 0, 1]]) / frame[:, [2, 3, 2, 3]] - 0.5
    rois = torch.cat([matched[:, None].to(boxes), in_grid], dim=1)
    targets: Tensor = roi_align(grids[:, None].to(boxes) / 255, rois, (side, side), 1.0)
    return targets[:, 0]


def draw_union(masks: Sequence[Rle], height: int, width: int) -> NDArray[np.bool_] | None:
    """Draw what any of some masks covers, (height, width); None where there is no mask."""
    union: NDArray[np.bool_] | None = None
    for mask in masks:
        drawn = rle.to_mask(mask).astype(bool)
        union = drawn if union is None else union | drawn
    return union


def covered_shares(covered: Tensor, boxes: Tensor) -> Tensor:
    """Give the share of each box's own area that an area of the image covers.

    Args:
        covered: (H, W) bool, in px of any size of the image.
        boxes: (P, 4) XYXY in the same px; fractions of px count.

    Returns:
        (P,) float32 in [0, 1]; 0 for boxes without an area. What lies outside the image is not covered.
    """
    height, width = covered.shape
    # Its own dtype: float32 counts px exactly only up to 2**24.
    sums = torch.zeros(height + 1, width + 1, dtype=torch.float64, device=covered.device)
    sums[1:, 1:] = covered.to(torch.float64).cumsum(0).cumsum(1)
    box = boxes.to(torch.float64)
    x0, x1 = (box[:, i].clamp(0, width) for i in (0, 2))
    y0, y1 = (box[:, i].clamp(0, height) for i in (1, 3))
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    inside = _sum_at(sums, x1, y1) - _sum_at(sums, x0, y1) - _sum_at(sums, x1, y0) + _sum_at(sums, x0, y0)
    return torch.where(area > 0, inside / area.clamp(min=1e-9), 0.0).float()


def _sum_at(sums: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Interpolate a table of sums between whole px, which is exact for px of one value each."""
    column, row = x.floor().long().clamp(max=sums.shape[1] - 2), y.floor().long().clamp(max=sums.shape[0] - 2)
    across, down = x - column, y - row
    above = sums[row, column] * (1 - across) + sums[row, column + 1] * across
    below = sums[row + 1, column] * (1 - across) + sums[row + 1, column + 1] * across
    return above * (1 - down) + below * down
