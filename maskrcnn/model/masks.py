"""Instance masks to compressed RLE without a full-size paste.

A mask is resized inside its box only; the edges of its runs are found there, column by column, moved to positions in
the whole image, and compressed. On the CPU the result is bit-identical to torchvision's `paste_masks_in_image`,
`> threshold` and pycocotools' `encode`. Knows nothing of networks, categories or images.

Edges and their keys are `maskrcnn.coco.edges`'s; outside a box all is background.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.detection.roi_heads import expand_boxes

from maskrcnn.coco.edges import first_keys, from_edges
from maskrcnn.coco.rle import Rle

MASK_PADDING = 1
"""Cells of background round a mask before it is resized, as torchvision has it."""

FAR_AWAY_PX = 2.0**31
"""A box that reaches further than this shows nothing: its corners must fit int64, and float32 means no pixel there."""

MAX_CELLS_AT_ONCE = 2**21
"""Pixels that the vectorised path looks at together: about 100 MB of intermediates."""

MAX_CELLS_AT_ONCE_CUDA = 2**23
"""The same on CUDA, where each piece makes the host wait once, to learn how many edges there are."""

MAX_RESIZED_PIXELS = 2**25
"""A resized mask larger than this, and than twice the image, is looked at in its visible part only: 128 MiB."""

Ints = NDArray[np.int64]


def encode_instance_masks(
    mask_probs: Tensor, boxes: Tensor, size: tuple[int, int], threshold: float = 0.5
) -> list[Rle]:
    """Compress the instance masks of one image as they would look pasted into it and thresholded.

    Args:
        mask_probs: (N, M, M) or (N, 1, M, M) float, in [0, 1], each over its box.
        boxes: (N, 4) float, XYXY, absolute px of the image. They may leave it.
        size: (H, W) of the image, px.
        threshold: a pixel is foreground above this.

    Returns:
        N compressed RLEs of size [H, W]. A box that is wholly outside, or not finite, or reaches beyond
        2**31 px, gives an empty mask.
    """
    return encode_masks_of_images(mask_probs, boxes, np.tile(np.array(size, np.int64), (len(boxes), 1)), threshold)


def encode_masks_of_images(mask_probs: Tensor, boxes: Tensor, sizes: Ints, threshold: float = 0.5) -> list[Rle]:
    """Compress the instance masks of many images at once.

    Runs on the device of ``mask_probs``. On CUDA only the edges of runs travel to the host, and a pixel may differ from
    the CPU's where its value is within 1e-4 of the threshold.

    Args:
        mask_probs, boxes, threshold: as for `encode_instance_masks`; the boxes may be on the host already.
        sizes: (N, 2) int64, (H, W) of each mask's image, px.

    Source: torchvision `models/detection/roi_heads.py`, `paste_masks_in_image`.
    """
    probs = mask_probs.detach().float().reshape(len(boxes), *mask_probs.shape[-2:])
    padded = F.pad(probs, (MASK_PADDING,) * 4)
    places = place_masks(boxes, padded.shape[-1], sizes)
    if padded.is_cuda:
        keys = find_edges_together(padded, places, np.flatnonzero(places.is_visible), threshold)
    else:
        keys = _find_edges_one_by_one(padded, places, threshold)
    return from_edges(keys, sizes)


@dataclass(frozen=True, eq=False)
class Places:
    """Where N resized masks lie on their images; every array is (N,) int64, px."""

    image_height: Ints
    image_width: Ints
    first_key: Ints
    """From `first_keys`."""
    x: Ints
    y: Ints
    width: Ints
    height: Ints
    left: Ints
    """The visible crop, in the image: columns from left up to right, rows from top up to bottom, ends not included."""
    top: Ints
    right: Ints
    bottom: Ints

    @property
    def is_visible(self) -> NDArray[np.bool_]:
        """Masks of which the image shows at least one pixel."""
        return (self.left < self.right) & (self.top < self.bottom)

    @property
    def is_oversized(self) -> NDArray[np.bool_]:
        """Masks whose resize would take more memory than a box inside the image ever needs."""
        allowed = np.maximum(2 * self.image_height * self.image_width, MAX_RESIZED_PIXELS)
        is_oversized: NDArray[np.bool_] = self.width.astype(np.float64) * self.height > allowed
        return is_oversized

    def key(self, mask: Ints, column: Ints, row: Ints) -> Ints:
        """Key the edges at (column, row) of the masks' visible crops."""
        position = (column + self.left[mask]) * self.image_height[mask] + row + self.top[mask]
        keys: Ints = self.first_key[mask] + position
        return keys


def place_masks(boxes: Tensor, padded_side: int, sizes: Ints) -> Places:
    """Round boxes, grown for the padding, to whole pixels as torchvision does.

    Args:
        boxes: (N, 4) float, XYXY, absolute px; they may be anything.
        padded_side: cells on a side of the padded masks.
        sizes: (N, 2) int64, (H, W) of each mask's image, px.
    """
    grown = expand_boxes(boxes.detach().float().cpu(), padded_side / (padded_side - 2 * MASK_PADDING))
    is_sane = (grown.abs() <= FAR_AWAY_PX).all(1)  # NaN is not
    x1, y1, x2, y2 = grown.where(is_sane[:, None], 0).to(torch.int64).numpy().T
    image_height, image_width = sizes.T
    return Places(
        image_height=image_height,
        image_width=image_width,
        first_key=first_keys(sizes)[:-1],
        x=x1,
        y=y1,
        width=np.maximum(x2 - x1 + 1, 1),
        height=np.maximum(y2 - y1 + 1, 1),
        left=np.maximum(x1, 0),
        top=np.maximum(y1, 0),
        right=np.where(is_sane.numpy(), np.minimum(x2 + 1, image_width), 0),
        bottom=np.minimum(y2 + 1, image_height),
    )


def _find_edges_one_by_one(padded: Tensor, places: Places, threshold: float) -> Ints:
    """Find every edge on the CPU, resizing each mask with the very call that torchvision makes."""
    is_oversized = places.is_visible & places.is_oversized
    masks = np.flatnonzero(places.is_visible & ~is_oversized)
    edges = []
    for i in masks.tolist():
        x, y = places.x[i], places.y[i]
        shape = (int(places.height[i]), int(places.width[i]))
        resized = F.interpolate(padded[i, None, None], size=shape, mode="bilinear", align_corners=False)[0, 0]
        crop = resized[places.top[i] - y : places.bottom[i] - y, places.left[i] - x : places.right[i] - x]
        is_on = (crop > threshold).numpy()
        is_edge = np.empty((is_on.shape[0] + 1, is_on.shape[1]), np.bool_)
        is_edge[0], is_edge[-1] = is_on[0], is_on[-1]
        np.not_equal(is_on[1:], is_on[:-1], out=is_edge[1:-1])
        edges.append(np.flatnonzero(is_edge))
    keys = np.zeros(0, np.int64)
    if edges:
        mask = np.repeat(masks, [len(found) for found in edges])
        row, column = np.divmod(np.concatenate(edges), (places.right - places.left)[mask])
        keys = places.key(mask, column, row)
    if is_oversized.any():
        keys = np.concatenate([keys, find_edges_together(padded, places, np.flatnonzero(is_oversized), threshold)])
    return np.sort(keys)


def find_edges_together(padded: Tensor, places: Places, masks: Ints, threshold: float) -> Ints:
    """Find the edges of many masks at once, on the device of ``padded``.

    The visible columns of all masks, tallest mask first, are the rows of one table, which is worked off in pieces of
    bounded size: neither the number of kernels nor the memory grows with a mask's size or the image's.

    Args:
        padded: (N, S, S) float32, padded masks.
        places: where the N masks lie.
        masks: (K,) int64, the visible masks to look at.
        threshold: a pixel is foreground above this.

    Returns:
        (num_edges,) int64, sorted keys, on the host.
    """
    if not len(masks):
        return np.zeros(0, np.int64)
    device, side = padded.device, padded.shape[-1]
    masks = masks[np.argsort((places.top - places.bottom)[masks], kind="stable")]
    num_rows, num_columns = (places.bottom - places.top)[masks], (places.right - places.left)[masks]
    ends = np.cumsum(num_columns)
    zeros = np.zeros_like(masks)
    per_mask = [
        masks,
        (places.left - places.x)[masks],
        places.width[masks],
        (places.top - places.y)[masks],
        places.height[masks],
        num_rows,
        places.key(masks, zeros, zeros),
        places.image_height[masks],
        num_columns,
        ends - num_columns,
    ]
    table = torch.from_numpy(np.stack(per_mask)).to(device)  # (10, K)
    table = table.repeat_interleave(table[8], dim=1, output_size=int(ends[-1]))  # (10, num columns of all masks)
    step = torch.arange(int(ends[-1]), device=device) - table[9]
    table[1] += step
    table[6] += step * table[7]

    max_cells = MAX_CELLS_AT_ONCE_CUDA if padded.is_cuda else MAX_CELLS_AT_ONCE
    keys = []
    begin = 0
    while begin < ends[-1]:
        tallest = int(num_rows[np.searchsorted(ends, begin, side="right")])
        end = begin + max(1, max_cells // max(tallest, side))
        keys.append(_find_edges_in_columns(padded, table[:7, begin:end, None], tallest, threshold))
        begin = end
    return torch.cat(keys).sort().values.cpu().numpy()


def _find_edges_in_columns(padded: Tensor, table: Tensor, tallest: int, threshold: float) -> Tensor:
    """Find the edges in C columns: ``table`` (7, C, 1) int64 says which mask's, where, and how far down they go."""
    mask, across, width, down, height, num_rows, first_key = table
    cell, next_cell, weight = _source_cells(across, width, padded.shape[-1])
    mask, cell, next_cell = mask[:, 0], cell[:, 0], next_cell[:, 0]
    column = (1 - weight) * padded[mask, :, cell] + weight * padded[mask, :, next_cell]  # (C, S)
    row = torch.arange(tallest, device=padded.device)
    cell, next_cell, weight = _source_cells(down + row, height, padded.shape[-1])  # (C, tallest)
    value = (1 - weight) * column.gather(1, cell) + weight * column.gather(1, next_cell)
    is_on = F.pad((value > threshold) & (row < num_rows), (1, 1))
    at, row = (is_on[:, 1:] != is_on[:, :-1]).nonzero(as_tuple=True)
    keys: Tensor = first_key[at, 0] + row
    return keys


def _source_cells(position: Tensor, length: Tensor, num_cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """Give the two cells that a resized pixel lies between, and the second one's weight.

    Source: PyTorch `ATen/native/UpSample.h`, `area_pixel_compute_source_index`, `guard_index_and_lambda`.
    """
    source = ((num_cells / length.float()) * (position.float() + 0.5) - 0.5).clamp(min=0)
    cell = source.to(torch.int64).clamp(max=num_cells - 1)
    return cell, (cell + 1).clamp(max=num_cells - 1), (source - cell).clamp(0, 1)
