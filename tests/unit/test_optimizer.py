"""The optimizers: what they decay, and that they skip when they are told so on the device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from maskrcnn.training.optimizer import MovingAverage, build_optimizer
from maskrcnn.training.recipe import TrainConfig
from maskrcnn.training.schedule import ScheduleConfig

KINDS = [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)]


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    return network.eval()  # a norm that takes away what a bias adds would leave it no gradient but rounding errors


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_norms_and_biases_are_not_decayed(name: Any, kind: type) -> None:
    network = _network()
    network[3].bias.requires_grad_(False)
    optimizer = build_optimizer(network, TrainConfig(optimizer=name, schedule=ScheduleConfig(0.001), weight_decay=0.05))
    assert isinstance(optimizer, kind)
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    names = {name: decay_of.get(id(parameter)) for name, parameter in network.named_parameters()}
    expected = {"0.weight": 0.05, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "3.weight": 0.05, "3.bias": None}
    assert names == expected


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_skipped_step_leaves_weights_and_state_and_the_others_are_torchs_own(
    name: Any, kind: Any, momentum: float
) -> None:
    ours, plain = _network(), _network()
    config = TrainConfig(optimizer=name, schedule=ScheduleConfig(0.01), momentum=momentum, weight_decay=0.1)
    optimizer = build_optimizer(ours, config)
    groups = [
        {"params": [p for p in plain.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in plain.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    expected = kind(groups, lr=0.01, **({"momentum": momentum} if name == "sgd" else {}))
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for is_skipped in (True, False, True, False, False):
        for network in (ours, plain):
            network.zero_grad()
            network(images).square().sum().backward()
        if is_skipped:
            for parameter in ours.parameters():
                parameter.grad = torch.full_like(parameter, float("nan"))
        optimizer.found_inf = torch.tensor(float(is_skipped))  # type: ignore[attr-defined]
        optimizer.step()
        if not is_skipped:
            expected.step()
        for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert not torch.equal(ours[0].weight, _network()[0].weight)


def test_the_average_forgets_the_first_weights_soon_and_stands_still_when_a_step_is_skipped() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 0)
    average = MovingAverage(network, 0.5)
    nn.init.constant_(network.weight, 1)
    average.update(torch.tensor(1.0))
    assert average.weights[0].item() == pytest.approx(1 - 2 / 11)
    average.update(torch.tensor(0.0))
    assert average.weights[0].item() == pytest.approx(1 - 2 / 11)
    assert average.num_updates.item() == 1
    for _ in range(20):
        average.update(torch.tensor(1.0))
    before = average.weights[0].item()
    nn.init.constant_(network.weight, 3)
    average.update(torch.tensor(1.0))
    assert average.weights[0].item() == pytest.approx(0.5 * before + 0.5 * 3)
