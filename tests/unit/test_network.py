"""The network is torchvision's own, tensor by tensor, and takes its numbers from the configs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN, maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2
from torchvision.ops import FrozenBatchNorm2d

from maskrcnn.config import BACKBONES, Backbone, Heads, ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.model.network import build_network


def tensor_shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(("heads", "build_theirs"), [("v1", maskrcnn_resnet50_fpn), ("v2", maskrcnn_resnet50_fpn_v2)])
def test_a_torchvision_state_dict_loads_unchanged(heads: Heads, build_theirs: Callable[..., MaskRCNN]) -> None:
    theirs = build_theirs(weights=None, weights_backbone=None)
    trained_norms = build_network(ModelConfig(heads=heads, norm="batch"), PreprocessConfig(), ThresholdConfig())
    assert tensor_shapes(trained_norms) == tensor_shapes(theirs)
    assert str(trained_norms.rpn) == str(theirs.rpn)
    assert str(trained_norms.roi_heads) == str(theirs.roi_heads)

    frozen_norms = build_network(ModelConfig(heads=heads), PreprocessConfig(), ThresholdConfig())
    frozen_norms.load_state_dict(theirs.state_dict(), strict=True)
    for name, tensor in frozen_norms.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_trains_and_predicts(backbone: Backbone) -> None:
    torch.manual_seed(0)
    config = ModelConfig(backbone=backbone, num_labels=3, norm="batch")
    network = build_network(config, PreprocessConfig(min_size_px=64, max_size_px=96), ThresholdConfig())
    image = torch.rand(3, 48, 64)
    masks = torch.zeros(1, 48, 64, dtype=torch.uint8)
    masks[0, 10:30, 10:40] = 1
    target = {"boxes": torch.tensor([[10.0, 10.0, 40.0, 30.0]]), "labels": torch.tensor([2]), "masks": masks}
    losses = network([image, image], [target, target])
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert set(network.eval()([image])[0]) == {"boxes", "labels", "scores", "masks"}


def test_norms_are_frozen_in_the_backbone_only() -> None:
    network = build_network(ModelConfig(backbone="resnet18", heads="v2"), PreprocessConfig(), ThresholdConfig())
    body_norms = [m for m in network.backbone.body.modules() if isinstance(m, (FrozenBatchNorm2d, nn.BatchNorm2d))]
    assert body_norms
    assert all(isinstance(norm, FrozenBatchNorm2d) for norm in body_norms)
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.backbone.fpn.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_sizes_thresholds_and_anchors_come_from_the_configs() -> None:
    config = ModelConfig(
        backbone="resnet18",
        num_labels=5,
        anchor_sizes_px=((8,), (16,), (32,), (64,), (128,)),
        anchor_aspect_ratios=(1.0, 2.0),
    )
    preprocess = PreprocessConfig(
        min_size_px=160, max_size_px=256, pad_multiple_px=64, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
    )
    thresholds = ThresholdConfig(score_threshold=0.25, nms_threshold=0.4, max_detections=17)
    network = build_network(config, preprocess, thresholds)
    transform, roi_heads = network.transform, network.roi_heads
    assert (transform.min_size, transform.max_size, transform.size_divisible) == ((160,), 256, 64)
    assert (transform.image_mean, transform.image_std) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert (roi_heads.score_thresh, roi_heads.nms_thresh, roi_heads.detections_per_img) == (0.25, 0.4, 17)
    assert network.rpn.head.cls_logits.out_channels == 2
    assert network.rpn.anchor_generator.sizes == ((8,), (16,), (32,), (64,), (128,))
    assert roi_heads.box_predictor.cls_score.out_features == 5
    assert roi_heads.mask_predictor.mask_fcn_logits.out_channels == 5
