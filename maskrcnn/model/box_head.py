"""From the box head's answers to the detections of a whole batch; nothing here makes the host wait."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from maskrcnn.model.boxes import are_at_least, clip_boxes, decode_boxes
from maskrcnn.model.nms import find_survivors
from maskrcnn.model.proposals import Proposals

MIN_SIDE_PX = 1e-2
"""torchvision's."""
CANDIDATES_PER_IMAGE = 1024


@dataclass(frozen=True)
class BoxRule:
    """Which boxes are detections."""

    box_weights: tuple[float, float, float, float]
    score_threshold: float
    nms_threshold: float
    max_detections: int


@dataclass(frozen=True)
class FoundBoxes:
    """D places for each of B images, best first; the first ``num_found`` of an image are real."""

    boxes: Tensor
    """(B, D, 4) float32, XYXY, px of the network's input."""
    scores: Tensor
    """(B, D) float32; negative where there is none."""
    labels: Tensor
    """(B, D) int64."""
    num_found: Tensor
    """(B,) int64."""
    is_whole: Tensor
    """() bool: whether no candidate that was left out could be among them, and NMS was settled."""


def find_boxes(
    class_logits: Tensor,
    deltas: Tensor,
    proposals: Proposals,
    sizes: Tensor,
    rule: BoxRule,
    *,
    num_candidates: int = CANDIDATES_PER_IMAGE,
    is_patient: bool = False,
) -> FoundBoxes:
    """Turn the box head's answers into detections.

    NMS looks at the best candidates of an image only. What it keeps of these is what it would keep of all, so that the
    detections are the right ones if there are enough, or no candidates were left out.

    Args:
        class_logits: (B x P, C), background first.
        deltas: (B x P, 4 x C).
        proposals: what the head looked at.
        sizes: (B, 2) float32, (height, width) of each image in the network, px.
        rule: thresholds, and how many.
        num_candidates: an image, that NMS looks at.
        is_patient: as for `find_survivors`.

    Source: torchvision, ``models/detection/roi_heads.py``, ``RoIHeads.postprocess_detections``.
    """
    num_images, num_proposals = proposals.is_real.shape
    num_labels = class_logits.shape[1]
    scores = class_logits.float().softmax(-1)[:, 1:].view(num_images, num_proposals, num_labels - 1)
    is_candidate = proposals.is_real[:, :, None] & (scores > rule.score_threshold)
    scores = scores.masked_fill(~is_candidate, -1).flatten(1)
    best, index = scores.topk(min(num_candidates, scores.shape[1]))
    place, labels = index // (num_labels - 1), index % (num_labels - 1) + 1
    image = torch.arange(num_images, device=index.device)[:, None]
    moves = deltas.view(num_images, num_proposals, num_labels, 4)[image, place, labels].float()
    boxes = clip_boxes(decode_boxes(moves, proposals.boxes[image, place], rule.box_weights), sizes)
    is_sound = (best >= 0) & are_at_least(boxes, MIN_SIDE_PX)
    survivors = find_survivors(boxes, is_sound, rule.nms_threshold, labels, is_patient=is_patient)
    kept, order = best.masked_fill(~survivors.is_kept, -1).topk(min(rule.max_detections, best.shape[1]))
    num_found = (kept >= 0).sum(1)
    is_enough = (is_candidate.flatten(1).sum(1) <= num_candidates) | (num_found >= rule.max_detections)
    return FoundBoxes(
        boxes=boxes[image, order].masked_fill((kept < 0)[:, :, None], 0),
        scores=kept,
        labels=labels.gather(1, order),
        num_found=num_found,
        is_whole=is_enough.all() & survivors.is_settled,
    )
