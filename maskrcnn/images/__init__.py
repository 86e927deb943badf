"""Image files to RGB: JPEG, PNG, WebP, BMP, TIFF and GIF, whatever they are called and whatever state they are in.

`containers` and the readers of each format walk the bytes: size, orientation, whole or damaged. `decode` applies the
pixel cap and the EXIF policy and has Pillow decode. A bad image is a value, never an exception, so that one file cannot
stop a batch. Knows nothing of storage, tables or torch.
"""

from __future__ import annotations

from maskrcnn.images.decode import DEFAULT_MAX_PIXELS, BadImage, ImageHeader, decode, read_header

__all__ = ["DEFAULT_MAX_PIXELS", "BadImage", "ImageHeader", "decode", "read_header"]
