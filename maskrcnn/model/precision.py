"""Where and in how many bits a network computes. bf16 is used inside modules only, and float32 between them."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn.config import Device, Precision, check, check_choice


def resolve_device(device: Device) -> torch.device:
    """Choose the device: auto takes CUDA where there is any.

    Raises:
        InputError: when CUDA is asked for and there is none.
    """
    check_choice("device", device, ("auto", "cpu", "cuda"))
    has_cuda = torch.cuda.is_available()
    check(device != "cuda" or has_cuda, "device", device, "auto or cpu: there is no CUDA device here")
    return torch.device("cuda" if has_cuda and device != "cpu" else "cpu")


def uses_bf16(precision: Precision, device: torch.device) -> bool:
    """Say whether to compute in bf16: auto does on CUDA devices that can.

    Raises:
        InputError: when it is no precision.
    """
    check_choice("precision", precision, ("auto", "fp32", "bf16"))
    return precision == "bf16" or (precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())


class InBf16(nn.Module):
    """Runs a module in bf16 and gives float32.

    torchvision takes the dtype of anchors and boxes from the features, and bf16 has 8 bits: 1000 px would be rounded
    to multiples of 4.

    Args:
        module: what runs in bf16.
        gives_float32: else what it gives stays as it is, for whoever goes on in bf16 and takes no anchors from it.
    """

    def __init__(self, module: nn.Module, *, gives_float32: bool = True) -> None:
        super().__init__()
        self.module, self._gives_float32 = module, gives_float32

    def forward(self, tensors: Any) -> Any:
        """Call the module on a tensor or a list of tensors."""
        first = tensors[0] if isinstance(tensors, list) else tensors
        with torch.autocast(first.device.type, torch.bfloat16):
            outputs = self.module(tensors)
        return _as_float32(outputs) if self._gives_float32 else outputs


def variant_of(module: nn.Module, in_bf16: Collection[str] = ()) -> Any:
    """Copy a module, sharing its weights, so that it can be set up otherwise than the original.

    Args:
        module: it stays as it is.
        in_bf16: the names of children that compute in bf16 in the copy.
    """
    variant = copy.copy(module)
    variant._modules = {
        name: InBf16(child) if name in in_bf16 and child is not None else child
        for name, child in module._modules.items()
    }
    return variant


def _as_float32(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs.float()
    if isinstance(outputs, dict):
        return {name: _as_float32(output) for name, output in outputs.items()}
    return type(outputs)(_as_float32(output) for output in outputs)


def fastest_precision() -> Precision:
    """Try both on a small convolution: bf16 is faster on some processors, and much slower on others."""
    if torch.cuda.is_available():
        return "auto"
    layer, images = nn.Conv2d(256, 256, 3, padding=1), torch.rand(16, 256, 14, 14)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    seconds: dict[Precision, float] = {}
    for precision in precisions * 2:  # the first round only warms up
        begin = time.perf_counter()
        for _ in range(3):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = layer(images).sum()
            loss.backward()
        seconds[precision] = time.perf_counter() - begin
    return min(precisions, key=seconds.__getitem__)
