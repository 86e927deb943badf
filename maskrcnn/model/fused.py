"""Layers for prediction on a CPU: what follows a convolution or a linear layer is done while its result is in cache.

They stand on oneDNN's fused operators, to which torch's own compiler lowers, and keep their weights in oneDNN's layout.
Where this torch does not have them, nothing is fused.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

_OPERATORS = ("_convolution_pointwise", "_reorder_convolution_weight", "_linear_pointwise", "_reorder_linear_weight")


def can_fuse(device: torch.device) -> bool:
    """Say whether this torch has the operators, and the device runs them."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)


class FusedConv(nn.Module):
    """A convolution, and then perhaps a sum, and perhaps ReLU.

    Args:
        conv: with zero padding; its weights are copied.
        has_relu: whether ReLU follows.
    """

    def __init__(self, conv: nn.Conv2d, *, has_relu: bool) -> None:
        super().__init__()
        shape = conv.padding, conv.stride, conv.dilation
        self._shape = tuple(list(each) for each in shape)
        self._groups, self._activation = conv.groups, "relu" if has_relu else "none"
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight, *self._shape, conv.groups, None)
        self._bias = conv.bias

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Say whether a module is a convolution that this class can stand for."""
        return isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and isinstance(module.padding, tuple)

    def forward(self, features: Tensor, residual: Tensor | None = None) -> Tensor:
        """Convolve (B, C, H, W); add a residual of the result's shape, where there is one."""
        apply: Any = torch.ops.mkldnn._convolution_pointwise
        weights = self._weight, self._bias, *self._shape, self._groups
        result: Tensor
        if residual is None:
            result = apply(features, *weights, self._activation, [], "")
        else:
            unary = self._activation if self._activation == "relu" else None
            result = apply.binary(features, residual, *weights, "add", 1.0, unary, [], None)
        return result


class FusedLinear(nn.Module):
    """A linear layer; its weights are copied."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight, None)
        self._bias = linear.bias

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows (N, C)."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, "none", [], "")
        return result


class FusedBlock(nn.Module):
    """A residual block of a ResNet whose norms are folded already."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        convs = [block.conv1, block.conv2, *([block.conv3] if isinstance(block, Bottleneck) else [])]
        self._inner = nn.Sequential(*(FusedConv(conv, has_relu=True) for conv in convs[:-1]))
        self._last = FusedConv(convs[-1], has_relu=True)
        self._downsample = nn.Identity() if block.downsample is None else block.downsample

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, H, W)."""
        return self._last(self._inner(features), self._downsample(features))  # type: ignore[no-any-return]


def fuse_layers(module: nn.Module) -> None:
    """Replace everything inside a module that can be fused, in place; its norms are folded already."""
    for name, child in module.named_children():
        if isinstance(child, BasicBlock | Bottleneck):
            child = FusedBlock(child)
            setattr(module, name, child)
        fuse_layers(child)
    follows = _followers(module)
    for name, child in list(module.named_children()):
        if FusedConv.fits(child):
            relu = follows.get(name)
            if relu is not None:
                setattr(module, relu, nn.Identity())
            setattr(module, name, FusedConv(child, has_relu=relu is not None))  # type: ignore[arg-type]
        elif isinstance(child, nn.Linear):
            setattr(module, name, FusedLinear(child))


def _followers(module: nn.Module) -> dict[str, str]:
    """Name, for each child of a sequence that ReLU follows, that ReLU; what does nothing in between is skipped."""
    if not isinstance(module, nn.Sequential | nn.ModuleDict):
        return {}
    names = [name for name, child in module.named_children() if not isinstance(child, nn.Identity)]
    return {name: follower for name, follower in pairwise(names) if isinstance(module.get_submodule(follower), nn.ReLU)}
