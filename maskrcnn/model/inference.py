"""The network as prediction runs it: all images of a batch together, and the host waits as rarely as it can.

The weights are a copy of their own: norms are folded into convolutions, channels are last, and all is in one precision.
Boxes and scores are float32 either way. The host waits for the device when the boxes are known, since the mask head
runs over as many as there are, and then for the edges of the masks (`masks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNN

from maskrcnn.config import ThresholdConfig
from maskrcnn.errors import InputError
from maskrcnn.model.box_head import CANDIDATES_PER_IMAGE, BoxRule, FoundBoxes, find_boxes
from maskrcnn.model.folding import fold_network
from maskrcnn.model.inputs import send
from maskrcnn.model.proposals import ProposalRule, Proposals, propose
from maskrcnn.model.roi_align import FeatureTable


@dataclass(frozen=True)
class BatchBoxes:
    """What was found in B images, best first in each; on the host, px of the network's input."""

    boxes: list[Tensor]
    """B of (N, 4) float32, XYXY."""
    scores: list[Tensor]
    """B of (N,) float32."""
    labels: list[Tensor]
    """B of (N,) int64."""

    def with_labels(self, known: Tensor) -> BatchBoxes:
        """Leave out boxes of other labels than these, (L,) int64."""
        kept = [torch.isin(labels, known) for labels in self.labels]
        columns = (self.boxes, self.scores, self.labels)
        return BatchBoxes(*([each[is_kept] for each, is_kept in zip(column, kept, strict=True)] for column in columns))


class InferenceNetwork:
    """A torchvision Mask R-CNN, copied for prediction.

    Args:
        network: in eval mode; it stays as it is.
        thresholds: which detections are given.
        dtype: float32, or bfloat16.
        compiles: let torch compile backbone and RPN head, once for every shape of the input.

    Raises:
        InputError: RoIs that are pooled otherwise than torchvision's ``MaskRCNN`` pools them.
    """

    def __init__(
        self, network: MaskRCNN, thresholds: ThresholdConfig, dtype: torch.dtype, *, compiles: bool = False
    ) -> None:
        folded = fold_network(network, dtype)
        heads = folded.roi_heads
        _check_pools(heads.box_roi_pool, heads.mask_roi_pool)
        self.dtype = dtype
        self.device: torch.device = next(folded.parameters()).device
        self._proposal_rule = ProposalRule.of(folded.rpn, self.device)
        self._box_rule = BoxRule(
            box_weights=heads.box_coder.weights,
            score_threshold=thresholds.score_threshold,
            nms_threshold=thresholds.nms_threshold,
            max_detections=thresholds.max_detections,
        )
        heads.box_predictor.float()  # the last layer of boxes and scores is small, and its digits are the answer's
        self._heads = heads
        self._flattens = isinstance(heads.box_head, TwoMLPHead)
        if self._flattens:
            _take_channels_last(heads.box_head.fc6, heads.box_roi_pool.output_size[0])
        self._dense: Any = _DensePart(folded.backbone, folded.rpn.head)
        if compiles:
            self._dense = torch.compile(self._dense)

    def find_boxes(self, batch: Tensor, sizes: Sequence[tuple[int, int]]) -> tuple[BatchBoxes, FeatureTable]:
        """Detect boxes; the host waits for them.

        Args:
            batch: (B, 3, H, W) from `build_input`, of this network's dtype.
            sizes: B of (height, width) of the images in it, px.

        Returns:
            The boxes, and the features for `predict_masks`.
        """
        shape = batch.shape[2], batch.shape[3]
        features, objectness, deltas = self._dense(batch)
        table = FeatureTable([features[name] for name in self._heads.box_roi_pool.featmap_names], shape)
        limits = send(torch.tensor(sizes, dtype=torch.float32), self.device)
        proposals = self._propose(objectness, deltas, limits, shape)
        logits, moves = self._judge(table, proposals)
        num_candidates, is_patient = CANDIDATES_PER_IMAGE, False
        while True:
            found = find_boxes(
                logits, moves, proposals, limits, self._box_rule, num_candidates=num_candidates, is_patient=is_patient
            )
            boxes, is_settled, is_whole = _to_host(found, proposals)
            if is_whole:
                return boxes, table
            # Rare: a long chain of overlaps, or more candidates than were looked at.
            num_candidates, is_patient = 4 * num_candidates, True
            if not is_settled:
                proposals = self._propose(objectness, deltas, limits, shape, is_patient=True)
                logits, moves = self._judge(table, proposals)

    def _propose(
        self, objectness: list[Tensor], deltas: list[Tensor], limits: Tensor, shape: tuple[int, int], **how: bool
    ) -> Proposals:
        proposals = propose(objectness, deltas, limits, shape, self._proposal_rule, **how)
        return proposals.without_tail() if self.device.type == "cpu" else proposals

    def predict_masks(self, table: FeatureTable, boxes: Tensor, image_of_box: Tensor, labels: Tensor) -> Tensor:
        """Run the mask head; boxes, image and label of each are on the host.

        Args:
            table: from `find_boxes`.
            boxes: (N, 4) float32, XYXY, px of the input.
            image_of_box: (N,) int64.
            labels: (N,) int64.

        Returns:
            (N, M, M) float32 in [0, 1] on the device, of each box's label.
        """
        boxes, image_of_box, labels = (send(each, self.device) for each in (boxes, image_of_box, labels))
        pool = self._heads.mask_roi_pool
        pooled = table.pool(boxes, image_of_box, pool.output_size[0], pool.sampling_ratio)
        logits = self._heads.mask_predictor(self._heads.mask_head(pooled.permute(0, 3, 1, 2)))
        chosen: Tensor = logits[torch.arange(len(labels), device=self.device), labels].float().sigmoid()
        return chosen

    def _judge(self, table: FeatureTable, proposals: Proposals) -> tuple[Tensor, Tensor]:
        """Give class logits (B x P, C) and box deltas (B x P, 4 x C)."""
        num_images, num_places = proposals.is_real.shape
        image_of_box = torch.arange(num_images, device=self.device).repeat_interleave(num_places)
        pool = self._heads.box_roi_pool
        pooled = table.pool(proposals.boxes.flatten(0, 1), image_of_box, pool.output_size[0], pool.sampling_ratio)
        seen = self._heads.box_head(pooled if self._flattens else pooled.permute(0, 3, 1, 2))
        logits, moves = self._heads.box_predictor(seen.float())
        return logits, moves


class _DensePart(nn.Module):
    """What runs over whole images, whatever is on them."""

    def __init__(self, backbone: nn.Module, rpn_head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.rpn_head = backbone, rpn_head

    def forward(self, batch: Tensor) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor]]:
        features = self.backbone(batch)
        if isinstance(features, Tensor):  # a backbone of one level
            features = {"0": features}
        objectness, deltas = self.rpn_head(list(features.values()))
        return features, objectness, deltas


def _check_pools(box_pool: Any, mask_pool: Any) -> None:
    for name, pool in (("box", box_pool), ("mask", mask_pool)):
        place = f"model.roi_heads.{name}_roi_pool"
        if pool.sampling_ratio < 1:
            raise InputError(f"{place}.sampling_ratio", f"must be 1 or more, got {pool.sampling_ratio}")
        if pool.output_size[0] != pool.output_size[1]:
            raise InputError(f"{place}.output_size", f"must be square, got {pool.output_size}")
    if box_pool.featmap_names != mask_pool.featmap_names:
        rule = f"must pool from the box head's features {box_pool.featmap_names}, got {mask_pool.featmap_names}"
        raise InputError("model.roi_heads.mask_roi_pool", rule)


def _take_channels_last(layer: nn.Linear, side: int) -> None:
    """Let a layer over flattened (C, side, side) features take (side, side, C) instead."""
    weight = layer.weight.view(len(layer.weight), -1, side, side).permute(0, 2, 3, 1)
    layer.weight = nn.Parameter(weight.flatten(1).contiguous(), requires_grad=False)


def _to_host(found: FoundBoxes, proposals: Proposals) -> tuple[BatchBoxes, bool, bool]:
    """Copy everything in one piece: the boxes, without places where nothing was found, and the two verdicts."""
    columns = torch.cat([found.boxes, found.scores[:, :, None], found.labels[:, :, None].float()], dim=2)
    verdicts = torch.stack([proposals.is_settled, proposals.is_settled & found.is_whole])
    on_host = torch.cat([columns.flatten(), found.num_found.float(), verdicts.float()]).cpu()
    num_images = len(found.num_found)
    *counts, is_settled, is_whole = on_host[-num_images - 2 :].long().tolist()
    rows = on_host[: -num_images - 2].view(num_images, -1, 6)
    real = [its[:count] for its, count in zip(rows, counts, strict=True)]
    boxes = BatchBoxes(
        boxes=[its[:, :4].contiguous() for its in real],
        scores=[its[:, 4].contiguous() for its in real],
        labels=[its[:, 5].long() for its in real],
    )
    return boxes, bool(is_settled), bool(is_whole)
