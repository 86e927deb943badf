"""The five losses of Mask R-CNN as sums an image and counts, so that any number of workers can share a global batch.

torchvision's modules do the work; what differs is written here: sums instead of means, areas that are ignored, mask
targets from grids, and coordinates computed only for what was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import concat_box_prediction_layers

from maskrcnn.training.mask_grids import covered_shares, mask_targets
from maskrcnn.training.samples import Sample

LOSS_NAMES = ("loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg")
"""torchvision's."""
COUNT_NAMES = ("anchors", "rois", "mask_cells")
COUNT_OF_LOSS = (1, 1, 2, 0, 0)
"""Which of the counts each loss is a mean over."""

_IGNORED_SHARE = 0.5
_SMOOTH_L1_BETA = 1 / 9
_IGNORED = -1


class Masks(Protocol):
    """The masks of one image's instances."""

    def cut(self, boxes: Tensor, matched: Tensor, side: int) -> Tensor:
        """Give targets (P, side, side) for boxes (P, 4) and the instances (P,) that they belong to."""
        ...


@dataclass(frozen=True)
class GridMasks:
    """Masks as grids."""

    grids: Tensor
    frames: Tensor

    def cut(self, boxes: Tensor, matched: Tensor, side: int) -> Tensor:
        """Cut from the grids."""
        return mask_targets(self.grids, self.frames, boxes, matched, side)


@dataclass(frozen=True)
class Target:
    """What is on one image, on the device; px of the network's input."""

    boxes: Tensor
    """(N, 4) float32, XYXY."""
    labels: Tensor
    """(N,) int64."""
    masks: Masks
    ignored: Tensor | None = None
    """(H', W') bool, in px of any size of the same image."""
    size: tuple[int, int] = (0, 0)
    """(h, w) of the image in the network, before padding."""

    @classmethod
    def of(cls, sample: Sample, device: torch.device) -> Target:
        """Bring a sample's target to a device."""
        ignored = sample.ignored
        return cls(
            boxes=sample.boxes.to(device, non_blocking=True),
            labels=sample.labels.to(device, non_blocking=True),
            masks=GridMasks(sample.grids.to(device, non_blocking=True), sample.frames.to(device, non_blocking=True)),
            ignored=None if ignored is None else ignored.to(device, non_blocking=True),
            size=sample.size,
        )

    def is_ignored(self, boxes: Tensor) -> Tensor:
        """Say of boxes (P, 4) whether half of their own area or more is ignored."""
        if self.ignored is None:
            return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
        across, down = self.ignored.shape[1] / self.size[1], self.ignored.shape[0] / self.size[0]
        return covered_shares(self.ignored, boxes * boxes.new_tensor([across, down, across, down])) >= _IGNORED_SHARE


@dataclass(frozen=True)
class LossSums:
    """The losses of B images before they are divided by counts over the global batch."""

    sums: Tensor
    """(5, B) with gradient, in the order of LOSS_NAMES."""
    counts: Tensor
    """(3,) float32, in the order of COUNT_NAMES."""

    def total(self, global_counts: Tensor) -> Tensor:
        """Give the (5,) share that these images have in the losses of a global batch with these counts (3,)."""
        return self.sums.sum(1) / global_counts[list(COUNT_OF_LOSS)].clamp(min=1)


def compute_losses(network: Any, images: Tensor, targets: Sequence[Target], *, counts_only: bool = False) -> LossSums:
    """Run a network over a micro-batch and sum its losses.

    Args:
        network: from ``prepare_network``, in training mode.
        images: (B, 3, H, W) float32, normalised and padded.
        targets: B.
        counts_only: leave out what follows the choice of RoIs; the sums are then zeros.

    Source: torchvision, ``models/detection/rpn.py`` and ``roi_heads.py``, ``forward`` of both in training.
    """
    sizes = [target.size for target in targets]
    features = network.backbone(images)
    proposals, rpn_sums, num_anchors = _propose(network.rpn, images, features, targets, sizes)
    rois = _choose_rois(network.roi_heads, proposals, targets)
    side = network.roi_heads.mask_roi_pool.output_size[0] * 2
    num_positive = sum(int((labels > 0).sum()) for labels in rois.labels)
    counts = [num_anchors, sum(len(boxes) for boxes in rois.boxes), num_positive * side * side]
    counted = torch.tensor(counts, dtype=torch.float32, device=images.device)
    if counts_only:
        return LossSums(images.new_zeros(len(LOSS_NAMES), len(targets)), counted)
    box_sums = _box_losses(network.roi_heads, features, rois, targets, sizes)
    mask_sums = _mask_losses(network.roi_heads, features, rois, targets, sizes)
    return LossSums(torch.stack([*box_sums, mask_sums, *rpn_sums]), counted)


def _propose(
    rpn: Any, images: Tensor, features: dict[str, Tensor], targets: Sequence[Target], sizes: list[tuple[int, int]]
) -> tuple[list[Tensor], tuple[Tensor, Tensor], int]:
    """Give proposals for each image, the sums (B,) of objectness and box losses, and the number of chosen anchors."""
    levels = list(features.values())
    objectness_of_level, deltas_of_level = rpn.head(levels)
    anchors = rpn.anchor_generator(ImageList(images, sizes), levels)
    num_of_level = [level[0].numel() for level in objectness_of_level]
    objectness, deltas = concat_box_prediction_layers(objectness_of_level, deltas_of_level)
    with torch.no_grad():
        decoded = rpn.box_coder.decode(deltas.detach(), anchors).view(len(sizes), -1, 4)
        proposals, _ = rpn.filter_proposals(decoded, objectness, sizes, num_of_level)
        labels, matched_boxes = rpn.assign_targets_to_anchors(anchors, [{"boxes": t.boxes} for t in targets])
        for target, its_anchors, its_labels in zip(targets, anchors, labels, strict=True):
            if target.ignored is not None:
                its_labels[target.is_ignored(its_anchors)] = _IGNORED
        positive, negative = (torch.cat(marks).bool() for marks in rpn.fg_bg_sampler(labels))
        chosen, on_instances = torch.where(positive | negative)[0], torch.where(positive)[0]
        wanted = rpn.box_coder.encode_single(torch.cat(matched_boxes)[on_instances], torch.cat(anchors)[on_instances])
    per_image = len(anchors[0])
    is_instance = positive[chosen].to(objectness.dtype)
    judged = F.binary_cross_entropy_with_logits(objectness.flatten()[chosen], is_instance, reduction="none")
    placed = F.smooth_l1_loss(deltas[on_instances], wanted, beta=_SMOOTH_L1_BETA, reduction="none").sum(1)
    sums = _sum_by_image(judged, chosen // per_image, sizes), _sum_by_image(placed, on_instances // per_image, sizes)
    return proposals, sums, len(chosen)


@dataclass(frozen=True)
class _Rois:
    """The chosen RoIs of each image, and what they lie on."""

    boxes: list[Tensor]
    labels: list[Tensor]
    matched: list[Tensor]

    def image_of_each(self) -> Tensor:
        device = self.boxes[0].device
        numbers = torch.arange(len(self.boxes), device=device)
        return numbers.repeat_interleave(torch.tensor([len(boxes) for boxes in self.boxes], device=device))


@torch.no_grad()
def _choose_rois(heads: Any, proposals: list[Tensor], targets: Sequence[Target]) -> _Rois:
    boxes = heads.add_gt_proposals(proposals, [target.boxes for target in targets])
    matched, labels = heads.assign_targets_to_proposals(
        boxes, [target.boxes for target in targets], [target.labels for target in targets]
    )
    for target, its_boxes, its_labels in zip(targets, boxes, labels, strict=True):
        if target.ignored is not None:
            its_labels[target.is_ignored(its_boxes)] = _IGNORED
    chosen = heads.subsample(labels)
    columns = (boxes, labels, matched)
    return _Rois(*([each[places] for each, places in zip(column, chosen, strict=True)] for column in columns))


def _box_losses(
    heads: Any, features: dict[str, Tensor], rois: _Rois, targets: Sequence[Target], sizes: list[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Give the sums (B,) of the classification and the box losses."""
    logits, deltas = heads.box_predictor(heads.box_head(heads.box_roi_pool(features, rois.boxes, sizes)))
    labels, image_of_each = torch.cat(rois.labels), rois.image_of_each()
    classified = F.cross_entropy(logits, labels, reduction="none")
    on_instances = torch.where(labels > 0)[0]
    with torch.no_grad():
        true_boxes = [
            target.boxes[matched] if len(target.boxes) else target.boxes.new_zeros(len(matched), 4)
            for target, matched in zip(targets, rois.matched, strict=True)
        ]
        wanted = heads.box_coder.encode_single(torch.cat(true_boxes)[on_instances], torch.cat(rois.boxes)[on_instances])
    predicted = deltas.unflatten(1, (-1, 4))[on_instances, labels[on_instances]]
    placed = F.smooth_l1_loss(predicted, wanted, beta=_SMOOTH_L1_BETA, reduction="none").sum(1)
    return _sum_by_image(classified, image_of_each, sizes), _sum_by_image(placed, image_of_each[on_instances], sizes)


def _mask_losses(
    heads: Any, features: dict[str, Tensor], rois: _Rois, targets: Sequence[Target], sizes: list[tuple[int, int]]
) -> Tensor:
    """Give the sums (B,) of the mask losses."""
    on_instances = [torch.where(labels > 0)[0] for labels in rois.labels]
    boxes = [its_boxes[places] for its_boxes, places in zip(rois.boxes, on_instances, strict=True)]
    logits = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(features, boxes, sizes)))
    labels = torch.cat([its[places] for its, places in zip(rois.labels, on_instances, strict=True)])
    with torch.no_grad():
        wanted = torch.cat(
            [
                target.masks.cut(its_boxes, matched[places], logits.shape[-1])
                for target, its_boxes, matched, places in zip(targets, boxes, rois.matched, on_instances, strict=True)
            ]
        )
    predicted = logits[torch.arange(len(labels), device=labels.device), labels]
    drawn = F.binary_cross_entropy_with_logits(predicted, wanted, reduction="none").sum((1, 2))
    return _sum_by_image(drawn, _Rois(boxes, [], []).image_of_each(), sizes)


def _sum_by_image(values: Tensor, image_of_each: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    return values.new_zeros(len(sizes)).index_add(0, image_of_each, values)
