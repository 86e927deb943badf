"""The five losses of Mask R-CNN as sums an image and counts, so that any number of workers can share a global batch.

torchvision's modules compute the features and the answers; what is matched, chosen and compared is done here for the
whole micro-batch at once, in slots whose number does not depend on what is on the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maskrcnn.model.boxes import encode_boxes
from maskrcnn.model.proposals import Proposals
from maskrcnn.training.anchors import Anchors, match_anchors, pairwise_iou
from maskrcnn.training.choices import choose, draw_priorities
from maskrcnn.training.roi_pooling import PooledFeatures, join_levels
from maskrcnn.training.targets import Targets

LOSS_NAMES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
"""torchvision's."""
COUNT_NAMES = ("anchors", "rois", "mask_cells")
COUNT_OF_LOSS = (1, 1, 2, 0, 0)
"""Which of the counts each loss is a mean over."""
FIRST_TRUTH_ID = 1 << 40
"""Where the ids of true boxes begin among an image's RoIs; those of proposals begin at 0."""

_SMOOTH_L1_BETA = 1 / 9


@dataclass(frozen=True)
class LossSums:
    """The losses of B images before they are divided by counts over the global batch."""

    sums: Tensor
    """(5, B) with gradient, in the order of LOSS_NAMES."""
    counts: Tensor
    """(3,) float32, in the order of COUNT_NAMES."""

    def total(self, global_counts: Tensor) -> Tensor:
        """Give the (5,) share that these images have in the losses of a global batch with these counts (3,)."""
        denominators = torch.stack([global_counts[number] for number in COUNT_OF_LOSS])
        return self.sums.sum(1) / denominators.clamp(min=1)


def compute_losses(network: Any, images: Tensor, targets: Targets, *, counts_only: bool = False) -> LossSums:
    """Run a network over a micro-batch and sum its losses.

    Args:
        network: from ``prepare_network``, in training mode.
        images: (B, 3, H, W) float32, normalised and padded.
        targets: of the B images.
        counts_only: leave out what follows the choice of RoIs; the sums are then zeros.

    Source: torchvision, ``models/detection/rpn.py`` and ``roi_heads.py``, ``forward`` of both in training.
    """
    features = network.backbone(images)
    levels = list(features.values())
    objectness, deltas = network.rpn.head(levels)
    anchors = network.anchors.anchors_of(images, levels)
    rpn_sums, num_anchors = _rpn_losses(network.rpn, _flat(objectness, 1)[..., 0], _flat(deltas, 4), anchors, targets)
    proposals = network.propose(objectness, deltas, targets, (images.shape[2], images.shape[3]))
    heads = network.roi_heads
    rois = _choose_rois(heads, proposals, targets)
    side = heads.mask_roi_pool.output_size[0] * 2
    counts = torch.stack([num_anchors, rois.is_chosen.sum(), rois.is_positive.sum() * side**2]).float()
    if counts_only:
        return LossSums(images.new_zeros(len(LOSS_NAMES), len(images)), counts)
    pooled_levels = [features[name] for name in heads.box_roi_pool.featmap_names]
    pyramid = join_levels(pooled_levels, (images.shape[2], images.shape[3]), is_table=network.pools_from_table)
    box_sums = _box_losses(heads, pyramid, rois, is_every=network.uses_every_slot)
    mask_sums = _mask_losses(heads, pyramid, rois, targets, is_every=network.uses_every_slot)
    return LossSums(torch.stack([*box_sums, mask_sums, *rpn_sums]), counts)


def _flat(answers: list[Tensor], size: int) -> Tensor:
    """Lay what a head says of each level, B of (anchors of a cell * size, H, W), out as (B, A, size)."""
    return torch.cat([each.permute(0, 2, 3, 1).reshape(len(each), -1, size) for each in answers], 1)


def _rpn_losses(
    rpn: Any, objectness: Tensor, deltas: Tensor, anchors: Anchors, targets: Targets
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Give the sums (B,) of objectness and box losses, and the number of chosen anchors, ()."""
    with torch.no_grad():
        matcher, sampler = rpn.proposal_matcher, rpn.fg_bg_sampler
        labels, matched = match_anchors(
            anchors, targets.boxes, targets.labels > 0, matcher.high_threshold, matcher.low_threshold
        )
        labels = targets.without_ignored(labels, anchors.boxes)
        ids = torch.arange(labels.shape[1], device=labels.device)
        priorities = draw_priorities(targets.streams[0], ids)
        num = sampler.batch_size_per_image
        chosen = choose(labels, priorities, num, int(num * sampler.positive_fraction))
        wanted = _encode(
            rpn.box_coder,
            _rows(targets.boxes, matched.gather(1, chosen.places)),
            anchors.boxes[chosen.places],
            chosen.is_positive,
        )
    judged = F.binary_cross_entropy_with_logits(
        objectness.gather(1, chosen.places), chosen.is_positive.to(objectness.dtype), reduction="none"
    )
    placed = _distances(_rows(deltas, chosen.places), wanted)
    sums = _sum_where(chosen.is_chosen, judged), _sum_where(chosen.is_positive, placed)
    return sums, chosen.is_chosen.sum()


@dataclass(frozen=True)
class _Rois:
    """The chosen RoIs, as many slots for each image: instances first, then background, then nothing."""

    boxes: Tensor
    """(B, R, 4)."""
    labels: Tensor
    """(B, R), 0 for background and for nothing."""
    matched: Tensor
    """(B, R), the instance that each overlaps most."""
    true_boxes: Tensor
    """(B, R, 4), that instance's."""
    is_positive: Tensor
    is_chosen: Tensor
    max_positive: int
    """Slots that may hold an instance."""


@torch.no_grad()
def _choose_rois(heads: Any, proposals: Proposals, targets: Targets) -> _Rois:
    is_truth = targets.labels > 0
    boxes = torch.cat([proposals.boxes, targets.boxes], 1)
    is_real = torch.cat([proposals.is_real, is_truth], 1)
    overlap, matched = pairwise_iou(targets.boxes, boxes).max(1)
    is_instance = overlap >= heads.proposal_matcher.high_threshold
    labels = torch.where(is_instance, targets.labels.gather(1, matched), 0)
    labels = targets.without_ignored(torch.where(is_real, labels, -1), boxes)
    # Known by what they are, and not by where they lie: how many there are depends on the batch.
    num_proposals, num_truths = proposals.boxes.shape[1], targets.boxes.shape[1]
    ids = torch.cat([torch.arange(num, device=boxes.device) for num in (num_proposals, num_truths)])
    ids[num_proposals:] += FIRST_TRUTH_ID
    num, share = heads.fg_bg_sampler.batch_size_per_image, heads.fg_bg_sampler.positive_fraction
    max_positive = int(num * share)
    chosen = choose(labels, draw_priorities(targets.streams[1], ids), num, max_positive)
    matched = matched.gather(1, chosen.places)
    return _Rois(
        boxes=_rows(boxes, chosen.places),
        labels=torch.where(chosen.is_positive, labels.gather(1, chosen.places), 0),
        matched=matched,
        true_boxes=_rows(targets.boxes, matched),
        is_positive=chosen.is_positive,
        is_chosen=chosen.is_chosen,
        max_positive=max_positive,
    )


def _box_losses(heads: Any, pyramid: PooledFeatures, rois: _Rois, *, is_every: bool) -> tuple[Tensor, Tensor]:
    """Give the sums (B,) of the classification and the box losses."""
    rows, image_of_each = _slots_of(rois.is_chosen, is_every)
    boxes, labels, is_chosen = (each.flatten(0, 1)[rows] for each in (rois.boxes, rois.labels, rois.is_chosen))
    logits, deltas = heads.box_predictor(heads.box_head(_pool(pyramid, heads.box_roi_pool, boxes, image_of_each)))
    classified = F.cross_entropy(logits, labels, reduction="none")
    is_positive = labels > 0
    with torch.no_grad():
        wanted = _encode(heads.box_coder, rois.true_boxes.flatten(0, 1)[rows], boxes, is_positive)
    predicted = _rows(deltas.view(len(deltas), deltas.shape[1] // 4, 4), labels[:, None])[:, 0]
    placed = _distances(predicted, wanted)
    num_images = len(rois.boxes)
    return (
        _sum_by_image(torch.where(is_chosen, classified, 0), image_of_each, num_images),
        _sum_by_image(torch.where(is_positive, placed, 0), image_of_each, num_images),
    )


def _mask_losses(heads: Any, pyramid: PooledFeatures, rois: _Rois, targets: Targets, *, is_every: bool) -> Tensor:
    """Give the sums (B,) of the mask losses."""
    first = slice(rois.max_positive)
    rows, image_of_each = _slots_of(rois.is_positive[:, first], is_every)
    boxes, labels, matched = (each[:, first].flatten(0, 1)[rows] for each in (rois.boxes, rois.labels, rois.matched))
    logits = heads.mask_predictor(heads.mask_head(_pool(pyramid, heads.mask_roi_pool, boxes, image_of_each)))
    with torch.no_grad():
        wanted = targets.masks.cut(boxes, image_of_each, matched, logits.shape[-1])
    predicted = logits[torch.arange(len(labels), device=labels.device), labels]
    drawn = F.binary_cross_entropy_with_logits(predicted, wanted, reduction="none").sum((1, 2))
    return _sum_by_image(torch.where(labels > 0, drawn, 0), image_of_each, len(rois.boxes))


def _pool(pyramid: PooledFeatures, pooler: Any, boxes: Tensor, image_of_each: Tensor) -> Tensor:
    """Give the features (R, C, side, side) of RoIs, with the numbers of torchvision's ``MultiScaleRoIAlign``."""
    return pyramid.pool(boxes, image_of_each, pooler.output_size[0], pooler.sampling_ratio).permute(0, 3, 1, 2)


def _slots_of(is_filled: Tensor, is_every: bool) -> tuple[Tensor, Tensor]:
    """Give the slots (R,) of (B, S) that go through the heads, every one or only what is filled; and their images."""
    rows = torch.arange(is_filled.numel(), device=is_filled.device) if is_every else is_filled.flatten().nonzero()[:, 0]
    return rows, rows // is_filled.shape[1]


def _rows(table: Tensor, places: Tensor) -> Tensor:
    """Give rows (B, R, 4) of a table (B, N, 4)."""
    return table.gather(1, places[..., None].expand(-1, -1, 4))


def _encode(coder: Any, truths: Tensor, boxes: Tensor, is_positive: Tensor) -> Tensor:
    """Give true boxes (..., 4) relative to others; finite, though without a meaning, where nothing is to be learnt."""
    anything = boxes.new_ones(4).cumsum(0)
    its_truths, its_boxes = (torch.where(is_positive[..., None], each, anything) for each in (truths, boxes))
    return encode_boxes(its_truths, its_boxes, coder.weights)


def _distances(predicted: Tensor, wanted: Tensor) -> Tensor:
    return F.smooth_l1_loss(predicted, wanted, beta=_SMOOTH_L1_BETA, reduction="none").sum(-1)


def _sum_where(counts: Tensor, values: Tensor) -> Tensor:
    return torch.where(counts, values, 0).sum(1)


def _sum_by_image(values: Tensor, image_of_each: Tensor, num_images: int) -> Tensor:
    return values.new_zeros(num_images).index_add(0, image_of_each, values)
