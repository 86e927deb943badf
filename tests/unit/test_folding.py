"""A folded network answers as the original, and leaves it alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from maskrcnn.config import Backbone, Heads, ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.errors import InputError
from maskrcnn.model import inference
from maskrcnn.model.folding import fold_network
from maskrcnn.model.inference import InferenceNetwork
from maskrcnn.model.network import build_network
from tests.live_network import build_small_network, noise

NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def build(backbone: Backbone, heads: Heads, norm: str) -> nn.Module:
    """Build a network whose norms are not the identity."""
    torch.manual_seed(0)
    config = ModelConfig(backbone=backbone, heads=heads, num_labels=4, norm=norm)  # type: ignore[arg-type]
    network = build_network(config, PreprocessConfig(), ThresholdConfig())
    for module in network.modules():
        if isinstance(module, NORMS):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5)):
                tensor.data.uniform_(low, low + 1)
            module.running_var.data.uniform_(0.5, 2)
    return network.eval()


@pytest.mark.parametrize(
    ("backbone", "heads", "norm"),
    [("resnet18", "v1", "frozen"), ("resnet50", "v2", "batch"), ("resnet50", "v1", "batch")],
)
def test_a_folded_network_answers_as_the_original(backbone: Backbone, heads: Heads, norm: str) -> None:
    network = build(backbone, heads, norm)
    before = copy.deepcopy(network.state_dict())
    folded = fold_network(network, torch.float32)
    assert not any(isinstance(module, NORMS) for module in folded.modules())
    with torch.inference_mode():
        image = noise(64, 96)[None] / 255
        expected = network.backbone(image)
        for name, feature in folded.backbone(image).items():
            torch.testing.assert_close(feature, expected[name], rtol=1e-3, atol=1e-3 * float(expected[name].std()))
        crops = torch.randn(3, 256, 14, 14)
        expected_masks = network.roi_heads.mask_head(crops)
        torch.testing.assert_close(folded.roi_heads.mask_head(crops), expected_masks, rtol=1e-3, atol=1e-4)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_norms_elsewhere_are_left_alone() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    odd = fold_network(Odd(), torch.float32)
    assert isinstance(odd.norm, nn.BatchNorm2d)


def test_what_is_looked_at_in_haste_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few candidates at first, the answers are those that more of them give."""
    network = build_small_network()
    thresholds = ThresholdConfig(score_threshold=0.05, max_detections=100)
    ours = InferenceNetwork(network, thresholds, torch.float32)
    batch = noise(64, 96)[None] / 255
    expected, _ = ours.find_boxes(batch, [(64, 96)])
    assert len(expected.scores[0]) > 10
    monkeypatch.setattr(inference, "CANDIDATES_PER_IMAGE", 2)
    found, _ = ours.find_boxes(batch, [(64, 96)])
    assert torch.equal(found.boxes[0], expected.boxes[0])
    assert torch.equal(found.scores[0], expected.scores[0])


def test_rois_pooled_by_their_size_are_refused() -> None:
    network = build_small_network()
    network.roi_heads.mask_roi_pool.sampling_ratio = 0
    with pytest.raises(InputError, match=r"mask_roi_pool.sampling_ratio must be 1 or more, got 0"):
        InferenceNetwork(network, ThresholdConfig(), torch.float32)
