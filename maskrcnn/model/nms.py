"""Non-maximum suppression of many groups of boxes at once.

On the CPU torchvision's loop does it, group by group. Elsewhere all groups are settled together by a fixed number of
rounds on matrices, so that nothing waits for the host: a box is kept when no kept box before it overlaps it, which is
asked again of the answer until it stays the same. That answer is the loop's; where the rounds did not suffice, the
result says so, and the caller asks again with patience.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms

NUM_ROUNDS = 12
"""One for each link of a chain of boxes of which each suppresses the next; chains of real boxes are short."""


@dataclass(frozen=True)
class Survivors:
    """Which boxes are kept."""

    is_kept: Tensor
    """(G, K) bool."""
    is_settled: Tensor
    """() bool: whether the rounds sufficed."""


def find_survivors(
    boxes: Tensor, is_candidate: Tensor, threshold: float, labels: Tensor | None = None, *, is_patient: bool = False
) -> Survivors:
    """Drop every box that overlaps a better one of its group too much.

    Args:
        boxes: (G, K, 4) float32, XYXY, best first in each group.
        is_candidate: (G, K) bool; others are neither kept nor drop anything.
        threshold: IoU above which two boxes are one object.
        labels: (G, K) int64; boxes of different labels leave each other alone. None: all are of one.
        is_patient: go on until it is settled; on CUDA the host then waits.

    Source: the fixed point is that of Zheng et al. 2020, "Enhancing Geometric Factors in Model Learning and Inference
    for Object Detection and Instance Segmentation", Cluster-NMS.
    """
    if boxes.device.type == "cpu":
        return _loop(boxes, is_candidate, threshold, labels)
    return settle_together(boxes, is_candidate, threshold, labels, is_patient=is_patient)


def _loop(boxes: Tensor, is_candidate: Tensor, threshold: float, labels: Tensor | None) -> Survivors:
    is_kept = torch.zeros_like(is_candidate)
    ranks = torch.arange(boxes.shape[1], 0, -1, dtype=torch.float32)
    for group in range(len(boxes)):
        places = is_candidate[group].nonzero()[:, 0]
        its_labels = torch.zeros_like(places) if labels is None else labels[group, places]
        kept = batched_nms(boxes[group, places], ranks[places], its_labels, threshold)
        is_kept[group, places[kept]] = True
    return Survivors(is_kept, torch.tensor(True))


def settle_together(
    boxes: Tensor, is_candidate: Tensor, threshold: float, labels: Tensor | None = None, *, is_patient: bool = False
) -> Survivors:
    """Do what ``find_survivors`` does by rounds on matrices, on any device."""
    suppresses = _overlaps(boxes, threshold)
    suppresses &= is_candidate[:, :, None]
    if labels is not None:
        suppresses &= labels[:, :, None] == labels[:, None, :]
    # A product of matrices is the fastest "any": counts up to K are exact in fp16, or are infinite, which is no zero.
    suppresses = suppresses.triu_(1).to(torch.float16 if boxes.is_cuda else torch.float32)
    is_kept = is_candidate
    num_rounds = 0
    while True:
        before = is_kept
        is_kept = is_candidate & (torch.bmm(before[:, None].to(suppresses.dtype), suppresses)[:, 0] == 0)
        num_rounds += 1
        if num_rounds >= NUM_ROUNDS:
            is_settled = (is_kept == before).all()
            if not is_patient or is_settled:
                return Survivors(is_kept, is_settled)


def _overlaps(boxes: Tensor, threshold: float) -> Tensor:
    """Say of every two boxes of a group, (G, K, K) bool, whether their IoU is above a threshold."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    width = (torch.minimum(x1[:, :, None], x1[:, None]) - torch.maximum(x0[:, :, None], x0[:, None])).clamp_(min=0)
    height = (torch.minimum(y1[:, :, None], y1[:, None]) - torch.maximum(y0[:, :, None], y0[:, None])).clamp_(min=0)
    shared = width.mul_(height)
    areas = (x1 - x0) * (y1 - y0)
    return shared / (areas[:, :, None] + areas[:, None] - shared) > threshold
