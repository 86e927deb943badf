"""The network's input, made on its device: training and prediction resize, normalise and pad in this one place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def build_input(
    images: Sequence[Tensor], sizes: Sequence[tuple[int, int]], shape: tuple[int, int], mean: Tensor, std: Tensor
) -> Tensor:
    """Normalise images, resize each to its own size, and pad them to one shape.

    Args:
        images: B of (3, H, W) uint8 RGB, of any sizes, on any device.
        sizes: B of (height, width), px of the network's input.
        shape: (height, width) of the input, px; zeros beyond an image.
        mean, std: (3, 1, 1) float32 of RGB in [0, 1], on the network's device.

    Returns:
        (B, 3, *shape) float32 on that device.
    """
    batch = torch.zeros(len(images), 3, *shape, device=mean.device)
    for slot, image, size in zip(batch, images, sizes, strict=True):
        pixels = (image.to(mean.device, non_blocking=True).contiguous().float() / 255 - mean) / std
        slot[:, : size[0], : size[1]] = F.interpolate(pixels[None], size, mode="bilinear", align_corners=False)[0]
    return batch
