"""A network set up to predict, and nothing else: norms folded into convolutions, channels last, in one precision."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d

_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)
_ORDERED = (nn.Sequential, nn.ModuleDict, BasicBlock, Bottleneck, ResNet)
"""Modules in which a norm that stands behind a convolution also follows it. A ResNet's body is a ModuleDict."""


def fold_network(network: nn.Module, dtype: torch.dtype) -> Any:
    """Copy a network for prediction only.

    Args:
        network: in eval mode; it stays as it is.
        dtype: of the copy's weights, and so of its features.

    Returns:
        The copy, on the same device; its answers are the original's but for rounding.
    """
    folded = copy.deepcopy(network).requires_grad_(False)
    for module in list(folded.modules()):
        if isinstance(module, _ORDERED):
            _fold_norms(module)
    return folded.to(memory_format=torch.channels_last).to(dtype)


def _fold_norms(module: nn.Module) -> None:
    for (_, conv), (name, norm) in pairwise(list(module.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, _NORMS):
            mean: Any = norm.running_mean
            variance: Any = norm.running_var
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight, conv.bias, mean, variance, norm.eps, norm.weight, norm.bias
            )
            setattr(module, name, nn.Identity())
