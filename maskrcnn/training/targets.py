"""What is on the images of a micro-batch, on the device: padded to as many instances for each, in a few copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from maskrcnn.model.inputs import send
from maskrcnn.training.choices import open_stream
from maskrcnn.training.mask_grids import covered_shares, mask_targets
from maskrcnn.training.samples import Sample
from maskrcnn.training.transforms import Purpose

_IGNORED_SHARE = 0.5
_PURPOSES = (Purpose.ANCHORS, Purpose.ROIS)


class Masks(Protocol):
    """The masks of a batch's instances."""

    def cut(self, boxes: Tensor, image_of_each: Tensor, matched: Tensor, side: int) -> Tensor:
        """Give targets (R, side, side) for boxes (R, 4), their images (R,) and instances (R,) within the image."""
        ...


@dataclass(frozen=True)
class GridMasks:
    """Masks as grids, those of all images in a row."""

    grids: Tensor
    frames: Tensor
    firsts: Tensor
    """(B,) int64, where each image's begin."""

    def cut(self, boxes: Tensor, image_of_each: Tensor, matched: Tensor, side: int) -> Tensor:
        """Cut from the grids; where there are none at all, targets are empty."""
        if not len(self.grids):
            return boxes.new_zeros(len(boxes), side, side)
        # Slots without an instance may point beyond the last one.
        places = (self.firsts[image_of_each] + matched).clamp(max=len(self.grids) - 1)
        return mask_targets(self.grids, self.frames, boxes, places, side)


@dataclass(frozen=True)
class Targets:
    """What is on B images; px of the network's input."""

    boxes: Tensor
    """(B, N, 4) float32, XYXY; zeros where there is no instance; N is at least 1."""
    labels: Tensor
    """(B, N) int64; 0 where there is no instance."""
    masks: Masks
    extents: Tensor
    """(B, 2) float32, width and height of each image in the network, before padding."""
    ignored: tuple[Tensor | None, ...]
    """B of (H', W') bool, in px of any size of the same image."""
    sizes: tuple[tuple[int, int], ...]
    """B of (height, width) before padding."""
    streams: Tensor
    """(2, B) int64, from which anchors and RoIs are drawn."""

    @classmethod
    def of(cls, samples: Sequence[Sample], device: torch.device, seed: int) -> Targets:
        """Bring the targets of a micro-batch to a device.

        Args:
            samples: B.
            device: of the network.
            seed: of the training.
        """
        num_instances = [len(sample.boxes) for sample in samples]
        table = torch.zeros(len(samples), max(1, *num_instances), 5)
        for row, sample, num in zip(table, samples, num_instances, strict=True):
            row[:num, :4], row[:num, 4] = sample.boxes, sample.labels
        firsts = [sum(num_instances[:place]) for place in range(len(samples))]
        streams = [[open_stream(seed, purpose, sample.key) for sample in samples] for purpose in _PURPOSES]
        numbers = send(
            torch.tensor([*streams, firsts, *zip(*(sample.size for sample in samples), strict=True)]), device
        )
        table = send(table, device)
        grids = torch.cat([sample.grids.to(device, non_blocking=True) for sample in samples])
        frames = torch.cat([sample.frames.to(device, non_blocking=True) for sample in samples])
        return cls(
            boxes=table[..., :4],
            labels=table[..., 4].long(),
            masks=GridMasks(grids, frames, numbers[2]),
            extents=numbers[3:].flip(0).T.float(),
            ignored=tuple(
                None if sample.ignored is None else sample.ignored.to(device, non_blocking=True) for sample in samples
            ),
            sizes=tuple(sample.size for sample in samples),
            streams=numbers[:2],
        )

    def without_ignored(self, labels: Tensor, boxes: Tensor) -> Tensor:
        """Take out candidates that lie in an ignored area with half of their own area or more.

        Args:
            labels: (B, R) of candidates.
            boxes: (B, R, 4) or (R, 4), XYXY.

        Returns:
            The labels, -1 where the candidate is to teach nothing.
        """
        if all(area is None for area in self.ignored):
            return labels
        rows = []
        for place, (area, size) in enumerate(zip(self.ignored, self.sizes, strict=True)):
            its_boxes = boxes if boxes.ndim == 2 else boxes[place]
            rows.append(
                labels[place] if area is None else labels[place].masked_fill(_lie_in(area, its_boxes, size), -1)
            )
        return torch.stack(rows)


def _lie_in(area: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    across, down = area.shape[1] / size[1], area.shape[0] / size[0]
    x0, y0, x1, y1 = boxes.unbind(1)
    in_area = torch.stack([x0 * across, y0 * down, x1 * across, y1 * down], 1)
    return covered_shares(area, in_area) >= _IGNORED_SHARE
