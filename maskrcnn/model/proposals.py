"""Region proposals for a whole batch, from what the RPN head gave; nothing here makes the host wait.

Only the best anchors of each level are decoded: their places follow from their index, so no grid of anchors is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maskrcnn.model.boxes import are_at_least, clip_boxes, decode_boxes
from maskrcnn.model.nms import find_survivors


@dataclass(frozen=True)
class Proposals:
    """P places for each of B images, best first."""

    boxes: Tensor
    """(B, P, 4) float32, XYXY, px of the network's input; zeros where there is none."""
    is_real: Tensor
    """(B, P) bool."""
    is_settled: Tensor
    """() bool, from `find_survivors`."""

    def without_tail(self) -> Proposals:
        """Leave out the places that no image uses, but for one; the host waits for their number."""
        num_used = max(1, int(self.is_real.sum(1).max()))
        return replace(self, boxes=self.boxes[:, :num_used], is_real=self.is_real[:, :num_used])


@dataclass(frozen=True)
class ProposalRule:
    """Which proposals are made, as an RPN of torchvision's in eval mode says."""

    cell_anchors: tuple[Tensor, ...]
    """For each level (A, 4) float32, XYXY round its cell's corner, px."""
    box_weights: tuple[float, float, float, float]
    num_per_level: int
    num_per_image: int
    nms_threshold: float
    min_side_px: float
    min_score: float

    @classmethod
    def of(cls, rpn: Any, device: torch.device) -> ProposalRule:
        """Take the rule of a ``RegionProposalNetwork`` in eval mode."""
        return cls(
            cell_anchors=tuple(cells.to(device, torch.float32) for cells in rpn.anchor_generator.cell_anchors),
            box_weights=rpn.box_coder.weights,
            num_per_level=rpn.pre_nms_top_n(),
            num_per_image=rpn.post_nms_top_n(),
            nms_threshold=rpn.nms_thresh,
            min_side_px=rpn.min_size,
            min_score=rpn.score_thresh,
        )


def propose(
    objectness: Sequence[Tensor],
    deltas: Sequence[Tensor],
    sizes: Tensor,
    input_shape: tuple[int, int],
    rule: ProposalRule,
    *,
    is_patient: bool = False,
) -> Proposals:
    """Choose the places that the box head looks at.

    Args:
        objectness: for each level (B, A, H, W), logits.
        deltas: for each level (B, 4 x A, H, W).
        sizes: (B, 2) float32, (height, width) of each image in the network, px.
        input_shape: (height, width) of the network's input, px.
        rule: how many, and which.
        is_patient: as for `find_survivors`.

    Source: torchvision, ``models/detection/rpn.py``, ``RegionProposalNetwork.filter_proposals``.
    """
    num_images = len(sizes)
    found = [
        _best_of_level(scores, moves, anchors, input_shape, rule)
        for scores, moves, anchors in zip(objectness, deltas, rule.cell_anchors, strict=True)
    ]
    width = max(scores.shape[1] for scores, _ in found)
    logits = torch.stack([_pad(scores, width, -torch.inf) for scores, _ in found], 1)  # (B, L, K)
    boxes = torch.stack([_pad(boxes.transpose(1, 2), width, 0).transpose(1, 2) for _, boxes in found], 1)
    boxes = clip_boxes(boxes, sizes)
    is_candidate = are_at_least(boxes, rule.min_side_px) & (logits.sigmoid() >= rule.min_score) & logits.isfinite()
    survivors = find_survivors(
        boxes.flatten(0, 1), is_candidate.flatten(0, 1), rule.nms_threshold, is_patient=is_patient
    )
    logits = logits.flatten(1).masked_fill(~survivors.is_kept.view(num_images, -1), -torch.inf)
    best, places = logits.topk(min(rule.num_per_image, logits.shape[1]))
    is_real = best > -torch.inf
    chosen = boxes.flatten(1, 2).gather(1, places[:, :, None].expand(-1, -1, 4))
    return Proposals(chosen.masked_fill(~is_real[:, :, None], 0), is_real, survivors.is_settled)


def _best_of_level(
    objectness: Tensor, deltas: Tensor, cell_anchors: Tensor, input_shape: tuple[int, int], rule: ProposalRule
) -> tuple[Tensor, Tensor]:
    """Give the logits (B, K), best first, and boxes (B, K, 4) of a level's best anchors."""
    num_images, num_anchors, height, width = objectness.shape
    logits = objectness.permute(0, 2, 3, 1).flatten(1).float()
    best, index = logits.topk(min(rule.num_per_level, logits.shape[1]))
    deltas = deltas.view(num_images, num_anchors, 4, height, width).permute(0, 3, 4, 1, 2)
    image = torch.arange(num_images, device=index.device)[:, None]
    cell, anchor = index // num_anchors, index % num_anchors
    row, column = cell // width, cell % width
    corners = torch.stack([column * (input_shape[1] // width), row * (input_shape[0] // height)], dim=-1)
    anchors = cell_anchors[anchor] + corners.repeat(1, 1, 2)
    moves = deltas[image, row, column, anchor].float()
    return best, decode_boxes(moves, anchors, rule.box_weights)


def _pad(values: Tensor, width: int, fill: float) -> Tensor:
    """Lengthen the last side."""
    return F.pad(values, (0, width - values.shape[-1]), value=fill)
