"""Random networks that answer variously and quickly, for tests of what is done with answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.models.detection.rpn import RegionProposalNetwork

from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.model.bundle import Category, save_bundle
from maskrcnn.model.network import build_network

PREPROCESS = PreprocessConfig(min_size_px=64, max_size_px=96)
SMALL = ModelConfig(
    backbone="resnet18", num_labels=6, norm="batch", anchor_sizes_px=((8,), (16,), (32,), (64,), (128,))
)
CATEGORIES = tuple(Category(id=100 + label, name=f"kind {label}", label=label) for label in (1, 2, 4, 5))


@contextmanager
def quick_networks() -> Iterator[None]:
    """Use one thread, and few proposals in every network."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RegionProposalNetwork, "pre_nms_top_n", lambda self: 200)
        patch.setattr(RegionProposalNetwork, "post_nms_top_n", lambda self: 30)
        yield
    torch.set_num_threads(threads)


def noise(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def liven(network: MaskRCNN) -> MaskRCNN:
    """Make a random network answer variously: settle its norms, then scale its last layers."""
    image = noise(100, 150, seed=50) / 255
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.train()
    wanted = {
        "rpn.head.cls_logits": 3.0,
        "rpn.head.bbox_pred": 0.5,
        "roi_heads.box_predictor.cls_score": 4.0,
        "roi_heads.box_predictor.bbox_pred": 2.0,
        "roi_heads.mask_predictor.mask_fcn_logits": 4.0,
    }
    with torch.no_grad():
        network([image])
        network.eval()
        for name, spread in wanted.items():
            layer, seen = network.get_submodule(name), []
            hook = layer.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(output.flatten()))
            network([image])
            hook.remove()
            layer.weight.mul_(spread / torch.cat(seen).std())
    return network


def build_small_network() -> MaskRCNN:
    """Build a ResNet-18 network of five kinds of object, in eval mode."""
    torch.manual_seed(1)
    return liven(build_network(SMALL, PREPROCESS, ThresholdConfig(score_threshold=0.05, max_detections=10)))


def save_small_bundle(folder: Path, network: MaskRCNN) -> str:
    """Save it as a bundle that knows four of its kinds."""
    thresholds = ThresholdConfig(score_threshold=0.05, max_detections=12)
    bundle = save_bundle(
        str(folder),
        network,
        model=SMALL,
        preprocess=PREPROCESS,
        thresholds=thresholds,
        categories=CATEGORIES,
        provenance={},
    )
    return bundle.uri
