"""The optimizer of a training, and the moving average of its weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn.training.recipe import TrainConfig


def build_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build the optimizer of a network's trainable parameters, with its state, as before the first step.

    Norms and biases are not decayed. One fused pass updates all weights, and skips when ``found_inf`` is set.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    learning_rate = config.schedule.learning_rate
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, learning_rate, fused=True)
    else:
        optimizer = torch.optim.SGD(groups, learning_rate, momentum=config.momentum, fused=True)
    _build_state(optimizer, config)
    return optimizer


def _build_state(optimizer: torch.optim.Optimizer, config: TrainConfig) -> None:
    """Give every parameter its state now: a first step that is skipped would leave momentum undefined."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if config.optimizer == "adamw":
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            elif config.momentum:
                state["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)


class MovingAverage:
    """A network whose weights are the moving average of another's.

    Args:
        network: the one that learns.
        decay: what is kept of the average in a step; early on less is, so that the first weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._followed: list[Tensor] = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.weights: list[Tensor] = [parameter.detach().clone() for parameter in self._followed]
        self.num_updates = torch.zeros((), device=self.weights[0].device)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew with the weights as they are."""
        torch._foreach_copy_(self.weights, self._followed)
        self.num_updates.zero_()

    @torch.no_grad()
    def update(self, share: Tensor) -> None:
        """Follow one step; ``share`` is 1, or 0 for a step that was skipped."""
        self.num_updates += share
        decay = torch.clamp((1 + self.num_updates) / (10 + self.num_updates), max=self._decay)
        moved = torch._foreach_sub(self._followed, self.weights)
        torch._foreach_mul_(moved, (1 - decay) * share)
        torch._foreach_add_(self.weights, moved)

    def averaged(self, network: Any) -> Any:
        """Copy a network that shares its parameters with the one that learns, with the average in their place."""
        place = {id(parameter): weight for parameter, weight in zip(self._followed, self.weights, strict=True)}
        twin = copy.deepcopy(network)
        with torch.no_grad():
            for original, parameter in zip(network.parameters(), twin.parameters(), strict=True):
                if id(original) in place:
                    parameter.copy_(place[id(original)])
        return twin
