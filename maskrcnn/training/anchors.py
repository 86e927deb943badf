"""The anchors of a padded shape, and the truths that they lie on, for a whole batch at once.

All images of a batch have one padded shape, hence the same anchors, and a level's anchors lie on a grid: what they
share with a truth is a product of a share across and a share down. So no pair of boxes is ever compared on its own,
and the memory is bounded by taking a few truths at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

_MAX_PAIRS = 1 << 25
_MAX_SHAPES = 16


@dataclass(frozen=True)
class Anchors:
    """Boxes of reference, level after level."""

    boxes: Tensor
    """(A, 4) float32, XYXY, px of the network's input."""
    level_shapes: tuple[tuple[int, int, int], ...]
    """(height, width, anchors of a cell) of each level; their order in ``boxes`` is the same."""

    @property
    def num_of_level(self) -> list[int]:
        """Give the number of anchors of each level."""
        return [height * width * each for height, width, each in self.level_shapes]


class AnchorCache:
    """Remembers the anchors of the padded shapes seen last.

    Args:
        generator: torchvision's.
    """

    def __init__(self, generator: Any) -> None:
        self._generator = generator
        self._kept: dict[Any, Anchors] = {}

    def anchors_of(self, images: Tensor, levels: Sequence[Tensor]) -> Anchors:
        """Give the anchors of a batch (B, 3, H, W) and its features, each (B, C, h, w)."""
        sizes = [(int(level.shape[-2]), int(level.shape[-1])) for level in levels]
        key = (images.shape[-2:], images.device, *sizes)
        if key not in self._kept:
            if len(self._kept) == _MAX_SHAPES:
                del self._kept[next(iter(self._kept))]
            # Only the shapes matter, but torchvision takes the dtype from the features, and bf16 has too few digits.
            likes = [images.new_empty(1).float().expand(1, 1, *size) for size in sizes]
            [boxes] = self._generator(ImageList(images[:1], [(0, 0)]), likes)
            nums = self._generator.num_anchors_per_location()
            shapes = tuple((*size, num) for size, num in zip(sizes, nums, strict=True))
            self._kept[key] = Anchors(boxes, shapes)
        return self._kept[key]


def match_anchors(anchors: Anchors, truths: Tensor, is_truth: Tensor, high: float, low: float) -> tuple[Tensor, Tensor]:
    """Say what each anchor lies on.

    An anchor is on the truth that it overlaps most if their IoU is ``high`` or more, or if no anchor overlaps some
    truth more than it; it is on background if every IoU is below ``low``.

    Args:
        anchors: of the padded shape.
        truths: (B, N, 4) float32, XYXY, px of the network's input; zeros where there is none; N is at least 1.
        is_truth: (B, N) bool.
        high, low: IoU.

    Returns:
        The labels, (B, A) int8: 1 on an instance, 0 on background, -1 on neither; and the truth that each overlaps
        most, (B, A) int64.

    Source: torchvision, ``models/detection/_utils.py``, ``Matcher`` with ``allow_low_quality_matches``.
    """
    num_images, num_truths, _ = truths.shape
    num_anchors = len(anchors.boxes)
    best = truths.new_zeros(num_images, num_anchors)
    matched = torch.zeros(num_images, num_anchors, dtype=torch.int64, device=truths.device)
    is_nearest = torch.zeros(num_images, num_anchors, dtype=torch.bool, device=truths.device)
    shares = _shares_of_levels(anchors, truths)
    at_once = max(1, _MAX_PAIRS // (num_images * num_anchors))
    for begin in range(0, num_truths, at_once):
        some = slice(begin, begin + at_once)
        overlaps = _grid_iou(anchors, shares, some)
        value, index = overlaps.max(1)
        matched = torch.where(value > best, index + begin, matched)
        best = torch.maximum(best, value)
        is_top = overlaps == overlaps.amax(2, keepdim=True)
        is_nearest |= (is_top & is_truth[:, some, None]).any(1)
    is_positive = (best >= high) | is_nearest
    labels = is_positive.to(torch.int8) - (~is_positive & (best >= low)).to(torch.int8)
    return labels, matched


def _shares_of_levels(anchors: Anchors, truths: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Give what truths (B, N, 4) share with the columns of each level (B, N, 1, W, a), and with its rows, px.

    The third is the area of truth and anchor together, counted twice where they overlap, (B, N, 1, 1, a).
    """
    left, top, right, bottom = (edge[..., None, None] for edge in truths.unbind(-1))
    area = ((right - left) * (bottom - top))[..., None]
    shares = []
    for boxes, shape in zip(torch.split(anchors.boxes, anchors.num_of_level), anchors.level_shapes, strict=True):
        grid = boxes.view(*shape, 4)
        x0, x1 = grid[0, :, :, 0], grid[0, :, :, 2]
        y0, y1 = grid[:, 0, :, 1], grid[:, 0, :, 3]
        across = (torch.minimum(right, x1) - torch.maximum(left, x0)).clamp(min=0)
        down = (torch.minimum(bottom, y1) - torch.maximum(top, y0)).clamp(min=0)
        shares.append((across[:, :, None], down[:, :, :, None], area + (x1[0] - x0[0]) * (y1[0] - y0[0])))
    return shares


def _grid_iou(anchors: Anchors, shares: list[tuple[Tensor, Tensor, Tensor]], some: slice) -> Tensor:
    """Give the IoU of some truths with all anchors, (B, N, A)."""
    num_truths = shares[0][0][:, some].shape[:2]
    overlaps = anchors.boxes.new_empty(*num_truths, len(anchors.boxes))
    for piece, (across, down, both) in zip(torch.split(overlaps, anchors.num_of_level, 2), shares, strict=True):
        shared = across[:, some] * down[:, some]
        torch.div(shared, both[:, some] - shared, out=piece.view(shared.shape))
    return overlaps


def pairwise_iou(truths: Tensor, boxes: Tensor) -> Tensor:
    """Give the IoU of truths (B, N, 4) with boxes (B, R, 4), (B, N, R); 0 for boxes without an area."""
    left_top = torch.maximum(truths[:, :, None, :2], boxes[:, None, :, :2])
    right_bottom = torch.minimum(truths[:, :, None, 2:], boxes[:, None, :, 2:])
    shared = (right_bottom - left_top).clamp(min=0).prod(-1)
    area_of_truth, area_of_box = ((each[..., 2:] - each[..., :2]).prod(-1) for each in (truths, boxes))
    return shared / (area_of_truth[:, :, None] + area_of_box[:, None] - shared).clamp(min=1e-9)
