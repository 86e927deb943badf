"""An image's shapes on its way into the network; each follows from that image's size and the config alone.

Training, labelling and scoring all ask here, so that a network is fed as it was trained.
"""

from __future__ import annotations

import math

from maskrcnn.config import DECODE_SCALES, PreprocessConfig


def resized_shape(height: int, width: int, preprocess: PreprocessConfig) -> tuple[int, int]:
    """Give the (height, width) that an image is resized to, px.

    Source: torchvision `models/detection/transform.py`, `_resize_image_and_masks`; and never below 1 px.
    """
    scale = min(preprocess.min_size_px / min(height, width), preprocess.max_size_px / max(height, width))
    return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))


def bucket_shape(height: int, width: int, preprocess: PreprocessConfig) -> tuple[int, int]:
    """Give the (height, width) of the network's input for an image, px: resized, then padded to whole multiples."""
    multiple = preprocess.pad_multiple_px
    resized_height, resized_width = resized_shape(height, width, preprocess)
    return math.ceil(resized_height / multiple) * multiple, math.ceil(resized_width / multiple) * multiple


def decode_scale_for(
    height: int, width: int, preprocess: PreprocessConfig, resized: tuple[int, int] | None = None
) -> int:
    """Give the scale at which a JPEG is decoded, so that resizing never has to enlarge what decoding reduced.

    Args:
        height: of the whole image, px.
        width: of the whole image, px.
        preprocess: `decode_scale` is the most that is allowed.
        resized: (height, width) that the whole image is resized to, px; none: as `preprocess` says.

    Returns:
        1, 2, 4 or 8: decode at 1/this.
    """
    resized_height, resized_width = resized or resized_shape(height, width, preprocess)
    fitting = (
        scale
        for scale in DECODE_SCALES
        if scale <= preprocess.decode_scale
        and math.ceil(height / scale) >= resized_height
        and math.ceil(width / scale) >= resized_width
    )
    return max(fitting, default=1)
