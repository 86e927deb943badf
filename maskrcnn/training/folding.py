"""Frozen norms folded into the convolutions before them, while both go on to be what they are for everybody else.

A frozen norm multiplies and shifts channels by constants. torchvision does so in eight passes, half of them over whole
feature maps, and in float32 even where the network computes in bf16. Multiplying the weights gives the same.
"""

from __future__ import annotations

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d


class FoldedConv(nn.Conv2d):
    """A convolution without a bias and the frozen norm that follows it, in one.

    Args:
        conv: its weight is shared, and trained as before.
        norm: its buffers may be loaded anew; ``refresh`` then takes them up.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> None:
        super().__init__(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.groups,
            bias=False,
            device="meta",
        )
        self.weight, self.norm = conv.weight, norm
        self.register_buffer("scale", torch.ones_like(norm.weight)[:, None, None, None], persistent=False)
        self.register_buffer("shift", torch.zeros_like(norm.bias), persistent=False)
        self._versions: tuple[int, ...] = ()
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take up the norm's buffers as they are now; costs nothing while they are as they were."""
        norm = self.norm
        versions = tuple(each._version for each in (norm.weight, norm.bias, norm.running_mean, norm.running_var))
        if versions != self._versions:
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            self.scale.copy_(scale[:, None, None, None])
            self.shift.copy_(norm.bias - norm.running_mean * scale)
            self._versions = versions

    def forward(self, inputs: Tensor) -> Tensor:
        """Convolve and normalise (B, C, H, W)."""
        weight = self.weight * self.scale
        return F.conv2d(inputs, weight, self.shift, self.stride, self.padding, self.dilation, self.groups)


def fold_frozen_norms(module: nn.Module) -> nn.Module:
    """Copy a module, sharing its weights, with every frozen norm folded into the convolution right before it."""
    folded = copy.copy(module)
    children = {name: fold_frozen_norms(child) for name, child in module._modules.items() if child is not None}
    names = list(children)
    for name, following in itertools.pairwise(names):
        conv, norm = children[name], children[following]
        if isinstance(conv, nn.Conv2d) and conv.bias is None and isinstance(norm, FrozenBatchNorm2d):
            children[name], children[following] = FoldedConv(conv, norm), nn.Identity()
    folded._modules = {**module._modules, **children}
    return folded
