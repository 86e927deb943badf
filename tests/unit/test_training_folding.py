"""Frozen norms folded into convolutions: the same features and gradients, and weights that stay everybody's."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.ops import FrozenBatchNorm2d

from maskrcnn.training.folding import FoldedConv, fold_frozen_norms


def _network(norm: Any = FrozenBatchNorm2d) -> nn.Module:
    torch.manual_seed(0)
    network = resnet18(weights=None, norm_layer=norm)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return network


def _features_and_gradients(network: nn.Module) -> list[torch.Tensor]:
    network.zero_grad()
    answers = network(torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1)))
    answers.square().sum().backward()
    return [answers.detach(), *(parameter.grad.clone() for parameter in network.parameters())]  # type: ignore[union-attr]


def test_features_and_gradients_are_the_same_and_weights_are_shared() -> None:
    network = _network()
    names, expected = list(network.state_dict()), _features_and_gradients(network)
    folded = fold_frozen_norms(network)
    assert sum(isinstance(module, FoldedConv) for module in folded.modules()) == 20
    assert [id(each) for each in folded.parameters()] == [id(each) for each in network.parameters()]
    assert [name for name, _ in folded.named_parameters()] == [name for name, _ in network.named_parameters()]
    for one, other in zip(_features_and_gradients(folded), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))
    assert list(network.state_dict()) == names
    assert not any(isinstance(module, FoldedConv) for module in network.modules())


def test_norms_that_are_loaded_later_are_taken_up() -> None:
    network, images = _network(), torch.randn(1, 3, 48, 48)
    folded = fold_frozen_norms(network)
    other = {name: value * 1.25 for name, value in network.state_dict().items()}
    before = folded(images).detach()
    network.load_state_dict(other)
    for module in folded.modules():
        if isinstance(module, FoldedConv):
            module.refresh()
    after, expected = folded(images).detach(), network(images).detach()
    torch.testing.assert_close(after, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    assert not torch.allclose(after, before, rtol=0.1)


def test_norms_that_learn_are_left_alone() -> None:
    folded = fold_frozen_norms(_network(nn.BatchNorm2d))
    assert not any(isinstance(module, FoldedConv) for module in folded.modules())
