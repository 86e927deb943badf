"""Boxes that may hold an instance, for the heads to learn from; only the best anchors of each level are decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import batched_nms, nms

from maskrcnn.training.anchors import Anchors
from maskrcnn.training.box_coding import decode_boxes
from maskrcnn.training.targets import Targets


@dataclass(frozen=True)
class Proposals:
    """Boxes of B images, in as many slots for each."""

    boxes: Tensor
    """(B, P, 4) float32, XYXY, px of the network's input, inside the image; zeros where there is none."""
    is_real: Tensor
    """(B, P) bool."""


@torch.no_grad()
def propose(rpn: Any, objectness: Tensor, deltas: Tensor, anchors: Anchors, targets: Targets) -> Proposals:
    """Decode the best anchors, and leave out those that mostly repeat a better one of their level.

    Args:
        rpn: torchvision's, for its numbers.
        objectness: (B, A) logits.
        deltas: (B, A, 4), the boxes relative to their anchors.
        anchors: A.
        targets: of the B images, for their sizes before padding.

    Source: torchvision, ``models/detection/rpn.py``, ``filter_proposals``.
    """
    places, levels = _best_of_levels(rpn, objectness, anchors)
    chosen_deltas, coder = deltas.gather(1, places[..., None].expand(-1, -1, 4)), rpn.box_coder
    boxes = decode_boxes(chosen_deltas, anchors.boxes[places], coder.weights, coder.bbox_xform_clip)
    boxes = boxes.clamp(min=0).minimum(targets.extents.repeat(1, 2)[:, None])
    is_large = (boxes[..., 2:] - boxes[..., :2] >= rpn.min_size).all(-1)
    scores = torch.where(is_large, objectness.gather(1, places).sigmoid(), -1)
    num = rpn.post_nms_top_n()
    kept_boxes, is_real = boxes.new_zeros(len(boxes), num, 4), is_large.new_zeros(len(boxes), num)
    for image in range(len(boxes)):
        kept = _suppress(boxes[image], scores[image], levels, rpn.nms_thresh)[:num]
        kept_boxes[image, : len(kept)] = boxes[image][kept]
        is_real[image, : len(kept)] = is_large[image][kept]
    return Proposals(kept_boxes * is_real[..., None], is_real)


def _best_of_levels(rpn: Any, objectness: Tensor, anchors: Anchors) -> tuple[Tensor, Tensor]:
    """Give the places (B, K) of the best anchors of each level, and their levels (K,)."""
    places, levels, begin = [], [], 0
    for level, of_level in enumerate(torch.split(objectness, anchors.num_of_level, 1)):
        best = of_level.topk(min(rpn.pre_nms_top_n(), of_level.shape[1]), dim=1).indices
        places.append(best + begin)
        levels.append(torch.full(best.shape[1:], level, device=objectness.device))
        begin += of_level.shape[1]
    return torch.cat(places, 1), torch.cat(levels)


def _suppress(boxes: Tensor, scores: Tensor, levels: Tensor, max_iou: float) -> Tensor:
    """Give the places of the boxes that stay, best first."""
    if boxes.device.type == "cpu":
        return batched_nms(boxes, scores, levels, max_iou)  # type: ignore[no-any-return]
    return _suppress_apart(boxes, scores, levels, max_iou)


def _suppress_apart(boxes: Tensor, scores: Tensor, levels: Tensor, max_iou: float) -> Tensor:
    """Suppress in one call, with levels moved far apart: the host waits once for how many stay."""
    apart = levels.to(boxes) * (boxes.amax() + 1)
    return nms(boxes + apart[:, None], scores, max_iou)  # type: ignore[no-any-return]
