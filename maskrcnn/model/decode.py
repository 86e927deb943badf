"""Encoded images to torch tensors. What a bad image is, `maskrcnn.images` decides."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from maskrcnn import images
from maskrcnn.images import DEFAULT_MAX_PIXELS, BadImage


def decode_image(body: bytes, *, apply_exif: bool = True, max_pixels: int = DEFAULT_MAX_PIXELS) -> Tensor | BadImage:
    """Decode a file to an RGB tensor.

    Args:
        body: the whole file; its content decides the format.
        apply_exif: turn the image upright, as its EXIF orientation says.
        max_pixels: larger images are bad.

    Returns:
        (3, H, W) uint8 RGB, contiguous; or why not.
    """
    pixels = images.decode(body, apply_exif=apply_exif, max_pixels=max_pixels)
    if isinstance(pixels, BadImage):
        return pixels
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
