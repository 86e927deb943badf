"""The network's input, made on its device: training and prediction resize, normalise and pad in this one place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def build_input(
    images: Sequence[Tensor],
    sizes: Sequence[tuple[int, int]],
    shape: tuple[int, int],
    mean: Tensor,
    std: Tensor,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Normalise images, resize each to its own size, and pad them to one shape.

    Bytes travel to the device, without waiting where they are in page-locked memory; images of one size, as a camera
    makes them, are resized together.

    Args:
        images: B of (3, H, W) uint8 RGB, of any sizes, on any device.
        sizes: B of (height, width), px of the network's input.
        shape: (height, width) of the input, px; zeros beyond an image.
        mean, std: (3, 1, 1) float32 of RGB in [0, 1], on the network's device.
        dtype: of the result; the arithmetic is float32's.

    Returns:
        (B, 3, *shape) on that device, channels last.
    """
    batch = torch.empty(len(images), 3, *shape, dtype=dtype, device=mean.device, memory_format=torch.channels_last)
    batch.zero_()
    groups: dict[tuple[torch.Size, tuple[int, int]], list[int]] = {}
    for place, (image, size) in enumerate(zip(images, sizes, strict=True)):
        groups.setdefault((image.shape, size), []).append(place)
    for (_, (height, width)), places in groups.items():
        pixels = torch.stack([images[place].to(mean.device, non_blocking=mean.is_cuda) for place in places])
        # In torchvision's order: a random network makes a difference of a pixel's tenth out of another rounding.
        normalised = pixels.float().div_(255).sub_(mean).div_(std)
        resized = F.interpolate(normalised, (height, width), mode="bilinear", align_corners=False)
        for place, one in zip(places, resized, strict=True):
            batch[place, :, :height, :width] = one
    return batch


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Bring a tensor of the host to a device, without waiting for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
