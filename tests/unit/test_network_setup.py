"""A network set up to be trained: choices by key, weights shared with the original, stages that stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.errors import InputError
from maskrcnn.model.network import build_network
from maskrcnn.training.network import describe_frozen, freeze_stages, prepare_network
from tests.learning import CONFIG


def _build() -> torch.nn.Module:
    return build_network(ModelConfig("resnet18", num_labels=5), PreprocessConfig(64, 64), ThresholdConfig())


def test_preparing_shares_the_weights_and_leaves_the_original_as_it_was() -> None:
    network = _build()
    names, samplers = list(network.state_dict()), (network.rpn.fg_bg_sampler, network.roi_heads.fg_bg_sampler)
    prepared = prepare_network(network, replace(CONFIG, precision="bf16", proposals_per_image=77))
    assert list(network.state_dict()) == names
    assert (network.rpn.fg_bg_sampler, network.roi_heads.fg_bg_sampler) == samplers
    assert network.rpn.post_nms_top_n() == 2000
    assert (prepared.proposal_rule.num_per_level, prepared.proposal_rule.num_per_image) == (2000, 77)
    assert prepared.rpn.fg_bg_sampler.batch_size_per_image == CONFIG.anchors_per_image
    assert prepared.roi_heads.fg_bg_sampler.batch_size_per_image == CONFIG.rois_per_image
    assert {id(parameter) for parameter in prepared.parameters()} == {id(p) for p in network.parameters()}


def test_norms_cannot_be_synced_without_gpus() -> None:
    with pytest.raises(InputError, match="--norm must be frozen or batch on cpu, got sync"):
        prepare_network(_build(), replace(CONFIG, norms_are_synced=True))


@pytest.mark.parametrize(
    ("num_stages", "frozen", "description"),
    [
        (0, set(), "nothing"),
        (1, {"conv1"}, "the stem"),
        (2, {"conv1", "layer1"}, "the stem, layer1"),
        (5, {"conv1", "layer1", "layer2", "layer3", "layer4"}, "the stem, layer1, layer2, layer3, layer4"),
    ],
)
def test_stages_freeze_from_the_stem_up(num_stages: int, frozen: set[str], description: str) -> None:
    network = _build()
    freeze_stages(network, num_stages)
    still = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
    assert {name.split(".")[2] for name in still} == frozen
    assert all(name.startswith("backbone.body.") for name in still)
    assert describe_frozen(num_stages) == description
