"""Random networks that answer as variously as trained ones, for benchmarks of what is done with answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNN

from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.model.bundle import Category, save_bundle
from maskrcnn.model.network import build_network
from maskrcnn.synthetic import CATEGORIES

MAX_DETECTIONS = 100
SPREADS = {
    "rpn.head.cls_logits": 3.0,
    "rpn.head.bbox_pred": 0.5,
    "roi_heads.box_predictor.cls_score": 4.0,
    "roi_heads.box_predictor.bbox_pred": 2.0,
    "roi_heads.mask_predictor.mask_fcn_logits": 4.0,
}
"""Standard deviations of what the last layers give, about those of a trained network."""


def write_bundle(folder: Path, backbone: Any, preprocess: PreprocessConfig, image: Tensor) -> str:
    """Save a random network whose answers vary enough to fill the maximum of detections."""
    torch.manual_seed(0)
    model = ModelConfig(backbone=backbone, num_labels=len(CATEGORIES) + 1, norm="batch")
    thresholds = ThresholdConfig(score_threshold=0.05, max_detections=MAX_DETECTIONS)
    # On a small input, since it takes many passes; the weights are the same for any size.
    quick = PreprocessConfig(min_size_px=320, max_size_px=533)
    network = enliven(build_network(model, quick, thresholds), image)
    save_bundle(
        str(folder),
        network,
        model=model,
        preprocess=preprocess,
        thresholds=thresholds,
        categories=[Category(id, name, label) for label, (id, name) in enumerate(CATEGORIES.items(), start=1)],
        provenance={"training_set": "none: random weights"},
    )
    return str(folder)


@torch.no_grad()
def enliven(network: MaskRCNN, image: Tensor) -> MaskRCNN:
    """Settle a random network's norms on an image, then scale its last layers."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.train()
    network([image / 255])
    network.eval()
    for name, spread in SPREADS.items():
        layer, seen = network.get_submodule(name), []
        hook = layer.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output.flatten()))
        network([image / 255])
        hook.remove()
        layer.weight.mul_(spread / torch.cat(seen).std())
    return network
