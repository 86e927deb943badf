"""A network set up to be trained: choices by key, weights shared with the original, stages that stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.errors import InputError
from maskrcnn.model.network import build_network
from maskrcnn.training.network import KeyedSampler, describe_frozen, freeze_stages, prepare_network
from maskrcnn.training.transforms import Purpose, SampleKey
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
    assert prepared.rpn.post_nms_top_n() == 77
    assert isinstance(prepared.rpn.fg_bg_sampler, KeyedSampler)
    assert isinstance(prepared.roi_heads.fg_bg_sampler, KeyedSampler)
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


def test_the_sampler_keeps_torchvisions_counts() -> None:
    matched = torch.tensor([-1] * 5 + [0] * 60 + [1, 2, 2] * 5)
    sampler = KeyedSampler(32, 0.25, seed=0, purpose=Purpose.ROIS)
    sampler.keys = [SampleKey(0, 0), SampleKey(0, 1), SampleKey(0, 2)]
    few_positive, few_negative = matched[:-13], matched[60:]
    positive, negative = sampler([matched, few_positive, few_negative])
    assert [int(p.sum()) for p in positive] == [8, 2, 8]
    assert [int(n.sum()) for n in negative] == [24, 30, 5]
    for mark, is_candidate in ((positive[0], matched >= 1), (negative[0], matched == 0)):
        assert mark.dtype == torch.uint8
        assert not (mark.bool() & ~is_candidate).any()


def test_the_sampler_reaches_every_candidate_and_depends_on_the_image_alone() -> None:
    matched = torch.tensor([0] * 30 + [1] * 10)
    sampler = KeyedSampler(8, 0.5, seed=0, purpose=Purpose.ANCHORS)
    drawn = torch.zeros(40)
    for epoch in range(60):
        sampler.keys = [SampleKey(epoch, 0)]
        alone = sampler([matched])
        sampler.keys = [SampleKey(epoch, 5), SampleKey(epoch, 0)]
        together = sampler([matched, matched])
        assert alone[0][0].equal(together[0][1])
        assert alone[1][0].equal(together[1][1])
        drawn += alone[0][0] + alone[1][0]
    assert (drawn > 0).all()


def test_the_sampler_takes_what_there_is() -> None:
    sampler = KeyedSampler(8, 0.5, seed=0, purpose=Purpose.ANCHORS)
    sampler.keys = [SampleKey(0, 0)] * 3
    positive, negative = sampler([torch.full((4,), -1.0), torch.zeros(0), torch.tensor([1.0, 0.0])])
    assert [mark.tolist() for mark in positive] == [[0] * 4, [], [1, 0]]
    assert [mark.tolist() for mark in negative] == [[0] * 4, [], [0, 1]]
