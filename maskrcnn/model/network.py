"""The network: torchvision's Mask R-CNN on a ResNet feature pyramid, built from configs. Never downloads anything.

Module and tensor names are torchvision's own, so that a state dict of ``maskrcnn_resnet50_fpn`` or
``maskrcnn_resnet50_fpn_v2`` fits as it is.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import get_model
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
from torchvision.models.detection.mask_rcnn import MaskRCNN, MaskRCNNHeads
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig

PYRAMID_CHANNELS = 256
BOX_ROI_SIZE = 7
"""Side of the feature crop that the box head sees, cells."""


def build_network(config: ModelConfig, preprocess: PreprocessConfig, thresholds: ThresholdConfig) -> MaskRCNN:
    """Build a Mask R-CNN with random weights, in training mode, on the CPU.

    Every parameter is trainable. Its own ``transform`` takes images (3, H, W) float32 RGB in [0, 1], and resizes,
    normalises and pads as ``preprocess`` says.

    Args:
        config: backbone, heads, number of labels, norms, anchors.
        preprocess: sizes in px, mean and std of RGB in [0, 1].
        thresholds: which detections the network returns in eval mode.

    Returns:
        The network, with torchvision's names for every tensor.

    Source: torchvision, ``models/detection/mask_rcnn.py``, ``maskrcnn_resnet50_fpn`` and ``maskrcnn_resnet50_fpn_v2``.
    """
    anchors = AnchorGenerator(config.anchor_sizes_px, (config.anchor_aspect_ratios,) * len(config.anchor_sizes_px))
    return MaskRCNN(
        _build_backbone(config),
        num_classes=config.num_labels,
        min_size=preprocess.min_size_px,
        max_size=preprocess.max_size_px,
        image_mean=list(preprocess.mean),
        image_std=list(preprocess.std),
        size_divisible=preprocess.pad_multiple_px,
        rpn_anchor_generator=anchors,
        rpn_post_nms_top_n_test=config.max_proposals,
        box_score_thresh=thresholds.score_threshold,
        box_nms_thresh=thresholds.nms_threshold,
        box_detections_per_img=thresholds.max_detections,
        **_build_heads(config, anchors),
    )


def num_rows_of(config: ModelConfig) -> dict[str, int]:
    """Give the rows of the tensors that grow with the labels and the anchors, by name."""
    num_anchors = len(config.anchor_sizes_px[0]) * len(config.anchor_aspect_ratios)
    return {"roi_heads.box_predictor.cls_score.weight": config.num_labels, "rpn.head.cls_logits.weight": num_anchors}


def _build_backbone(config: ModelConfig) -> BackboneWithFPN:
    norm_layer = FrozenBatchNorm2d if config.norm == "frozen" else nn.BatchNorm2d
    body = get_model(config.backbone, weights=None, norm_layer=norm_layer)
    top_channels: int = body.inplanes
    return BackboneWithFPN(
        body,
        return_layers={"layer1": "0", "layer2": "1", "layer3": "2", "layer4": "3"},
        in_channels_list=[top_channels // 8, top_channels // 4, top_channels // 2, top_channels],
        out_channels=PYRAMID_CHANNELS,
        extra_blocks=LastLevelMaxPool(),
        norm_layer=nn.BatchNorm2d if config.heads == "v2" else None,
    )


def _build_heads(config: ModelConfig, anchors: AnchorGenerator) -> dict[str, Any]:
    num_anchors = anchors.num_anchors_per_location()[0]
    if config.heads == "v1":
        return {"rpn_head": RPNHead(PYRAMID_CHANNELS, num_anchors)}
    convolutions = [PYRAMID_CHANNELS] * 4
    return {
        "rpn_head": RPNHead(PYRAMID_CHANNELS, num_anchors, conv_depth=2),
        "box_head": FastRCNNConvFCHead(
            (PYRAMID_CHANNELS, BOX_ROI_SIZE, BOX_ROI_SIZE), convolutions, [1024], norm_layer=nn.BatchNorm2d
        ),
        "mask_head": MaskRCNNHeads(PYRAMID_CHANNELS, convolutions, 1, norm_layer=nn.BatchNorm2d),
    }
