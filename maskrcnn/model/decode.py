"""Encoded images to torch tensors, JPEGs far larger than the network's input at a reduced scale.

What a bad image is, `maskrcnn.images` decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskrcnn import images
from maskrcnn.config import PreprocessConfig
from maskrcnn.errors import InputError
from maskrcnn.images import DEFAULT_MAX_PIXELS, BadImage, ImageHeader
from maskrcnn.model.shapes import decode_scale_for


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """An image on its way to the network."""

    pixels: Tensor
    """(3, H', W') uint8 RGB, contiguous: the whole image, at 1, 1/2, 1/4 or 1/8 of its size, rounded up."""
    size: tuple[int, int]
    """(H, W) of the image in its file, after the EXIF policy, px: what boxes and masks are measured in."""

    def pinned(self) -> DecodedImage:
        """Copy into page-locked memory, from which a GPU copies without making anybody wait."""
        return DecodedImage(self.pixels.pin_memory(), self.size)


def decode_image(
    body: bytes,
    preprocess: PreprocessConfig,
    *,
    resized: tuple[int, int] | None = None,
    whole_above_px: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> DecodedImage | BadImage:
    """Decode a file to an RGB tensor.

    Args:
        body: the whole file; its content decides the format.
        preprocess: says whether to turn the image upright, and how far a JPEG may be reduced.
        resized: (height, width) that the whole image is resized to, px; none: as `preprocess` says.
        whole_above_px: an image with a longer side is never reduced; None: there is no such length.
        max_pixels: larger images, before any reduction, are bad.

    Returns:
        The image; or why there is none.
    """
    header = images.read_header(body, apply_exif=preprocess.apply_exif, max_pixels=max_pixels)
    if isinstance(header, BadImage):
        return header
    scale = _scale_of(header, preprocess, whole_above_px, resized)
    pixels = images.decode(body, apply_exif=preprocess.apply_exif, max_pixels=max_pixels, scale=scale)
    if isinstance(pixels, BadImage):
        return pixels
    return DecodedImage(
        pixels=torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        size=(header.height, header.width),
    )


def decoded_bytes(header: ImageHeader, preprocess: PreprocessConfig, whole_above_px: int | None = None) -> int:
    """Tell from its header how many bytes an image's pixels take once `decode_image` has decoded it."""
    scale = _scale_of(header, preprocess, whole_above_px)
    return 3 * math.ceil(header.height / scale) * math.ceil(header.width / scale)


def to_decoded(
    image: Tensor | bytes | DecodedImage, thing: str, preprocess: PreprocessConfig, whole_above_px: int | None = None
) -> DecodedImage:
    """Take an image in any form that predictors take.

    Args:
        image: (3, H, W) uint8 RGB on any device, an encoded file, or a decoded image, which is given back.
        thing: what it is, for the message.
        preprocess, whole_above_px: as for `decode_image`.

    Raises:
        InputError: it is no image.
    """
    if isinstance(image, DecodedImage):
        return image
    if isinstance(image, bytes):
        decoded = decode_image(image, preprocess, whole_above_px=whole_above_px)
        if isinstance(decoded, BadImage):
            raise InputError(thing, f"cannot be decoded ({decoded.kind}): {decoded.reason}")
        return decoded
    if not isinstance(image, Tensor) or image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3:
        is_tensor = isinstance(image, Tensor)
        got = f"{tuple(image.shape)} {image.dtype}" if is_tensor else type(image).__name__
        raise InputError(thing, f"must be a (3, H, W) uint8 tensor or the bytes of a file, got {got}")
    if image.numel() == 0:
        raise InputError(thing, f"must have at least one pixel, got {tuple(image.shape)}")
    return DecodedImage(image, (image.shape[1], image.shape[2]))


def _scale_of(
    header: ImageHeader,
    preprocess: PreprocessConfig,
    whole_above_px: int | None,
    resized: tuple[int, int] | None = None,
) -> int:
    is_kept_whole = whole_above_px is not None and max(header.height, header.width) > whole_above_px
    if header.format != "JPEG" or is_kept_whole:
        return 1
    return decode_scale_for(header.height, header.width, preprocess, resized)
