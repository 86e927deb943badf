"""Encoded bytes to RGB: the pixel cap, the EXIF policy, and every kind of pixel made 8-bit RGB.

Alpha is dropped, not blended: COCO, torchvision's and OpenCV's loaders all do so, and a model should see what those
that trained it saw.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from maskrcnn.config import DECODE_SCALES
from maskrcnn.errors import ErrorKind
from maskrcnn.images.containers import Format, pare, parse_header
from maskrcnn.images.defect import ImageDefectError, corrupt, unsupported

DEFAULT_MAX_PIXELS = 100_000_000
"""Images above this are refused from their header, before any memory is set aside."""

# The allow-list. The plugins themselves, not Image.open, which swallows what they say and knows forty formats more.
_PLUGINS: dict[Format, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_8_BITS_OF_16 = ((np.arange(2**16) + 128) // 257).astype(np.uint8)
_WHITE_IS_ZERO, _PHOTOMETRIC = 0, 262


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used: the kind, as the predictions table names it, and the reason in one line."""

    kind: ErrorKind
    reason: str


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about its image before it is decoded."""

    format: Format
    width: int
    """px, after the EXIF policy."""
    height: int
    """px, after the EXIF policy."""
    orientation: int
    """EXIF's, 1 to 8, whether it is applied or not."""


def read_header(
    body: bytes, *, apply_exif: bool = True, max_pixels: int = DEFAULT_MAX_PIXELS
) -> ImageHeader | BadImage:
    """Read format, size and orientation without decoding.

    Args:
        body: the whole file; its content decides the format.
        apply_exif: give the size after turning the image upright.
        max_pixels: more than this is `too_large`.

    Returns:
        The header, or why there is none.
    """
    try:
        name, width, height, orientation = parse_header(body)
    except ImageDefectError as defect:
        return BadImage(defect.kind, defect.reason)
    except Exception as error:
        return BadImage("corrupt", _one_line(f"header cannot be read: {type(error).__name__}: {error}"))
    if apply_exif and orientation >= 5:
        width, height = height, width
    if width * height > max_pixels:
        reason = f"is {width} x {height} = {width * height} px, more than the cap of {max_pixels} px"
        return BadImage("too_large", reason)
    return ImageHeader(name, width, height, orientation)


def decode(
    body: bytes, *, apply_exif: bool = True, max_pixels: int = DEFAULT_MAX_PIXELS, scale: int = 1
) -> NDArray[np.uint8] | BadImage:
    """Decode a file to RGB. Safe to call from many threads.

    A reduced side is ceil(side / scale) px, and spans the whole side.

    Args:
        body: the whole file; its content decides the format.
        apply_exif: turn the image upright, as its EXIF orientation says.
        max_pixels: more than this is `too_large`, found in the header; the scale does not matter.
        scale: decode a JPEG at 1/this of its size: 1, 2, 4 or 8. Other formats come whole.

    Returns:
        (H, W, 3) uint8, RGB, writable; or why there is none.

    Raises:
        ValueError: for another scale.
    """
    if scale not in DECODE_SCALES:
        raise ValueError(f"scale must be one of {DECODE_SCALES}, got {scale}")
    header = read_header(body, apply_exif=apply_exif, max_pixels=max_pixels)
    if isinstance(header, BadImage):
        return header
    try:
        pared = pare(body, header.format)
        with _pillow_limit.lifted_for(header.width * header.height):
            rgb = _decode_rgb(pared, header, scale)
        if apply_exif and header.orientation in _UPRIGHT:
            rgb = rgb.transpose(_UPRIGHT[header.orientation])
        return np.array(rgb)
    except ImageDefectError as defect:
        return BadImage(defect.kind, defect.reason)
    except Exception as error:  # Pillow raises all sorts: OSError, SyntaxError, struct.error, MemoryError, …
        reason = f"{header.format} cannot be decoded: {type(error).__name__}: {error}"
        return BadImage("corrupt", _one_line(reason))


class _PillowLimit:
    """Pillow's own limit on pixels, lifted only while an image above it that our cap let through is being decoded.

    It is one number for the whole process, and stays in force for everybody else's code.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_lifting = 0
        self._limit: int | None = None

    @contextmanager
    def lifted_for(self, num_pixels: int) -> Iterator[None]:
        with self._lock:
            if not self._num_lifting:
                self._limit = Image.MAX_IMAGE_PIXELS
            must_lift = self._limit is not None and num_pixels > self._limit
            if must_lift:
                self._num_lifting += 1
                Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            if must_lift:
                with self._lock:
                    self._num_lifting -= 1
                    if not self._num_lifting:
                        Image.MAX_IMAGE_PIXELS = self._limit


_pillow_limit = _PillowLimit()


def _decode_rgb(pared: bytes, header: ImageHeader, scale: int) -> Image.Image:
    try:
        image = _PLUGINS[header.format](io.BytesIO(pared))
    except (SyntaxError, OSError, KeyError) as error:
        if header.format in ("TIFF", "BMP"):  # their structure was read, so it is a kind that Pillow does not know
            raise unsupported(f"is a kind of {header.format} that cannot be read: {_one_line(str(error))}") from None
        raise
    # The cap was checked against our reading of the header; the decoder must not have another.
    if sorted(image.size) != sorted((header.width, header.height)):
        raise corrupt(f"{header.format} is damaged: its sizes contradict each other")
    if scale == 1 or header.format != "JPEG":
        image.load()
        return _to_rgb(image)
    # Pillow takes the largest of 1, 2, 4, 8 not above side // wanted. That is `scale`: these quotients are exact.
    width, height = image.width / scale, image.height / scale
    image.draft(None, (width, height))  # type: ignore[arg-type]
    image.load()
    rgb = _to_rgb(image)
    if image.size == (width, height):
        return rgb
    # The last pixels stand in part for what is not there, and would move all others by up to `scale` px of the file.
    return rgb.resize(image.size, Image.Resampling.BILINEAR, box=(0, 0, width, height))


def _to_rgb(image: ImageFile.ImageFile) -> Image.Image:
    image.info.pop("transparency", None)
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        return Image.fromarray(_scale_grey_16(image)).convert("RGB")
    if image.mode in ("La", "RGBa"):
        return image.convert("LA" if image.mode == "La" else "RGBA").convert("RGB")
    if image.mode in ("F", "LAB"):
        kind = "32-bit float" if image.mode == "F" else "CIE Lab"
        raise unsupported(f"has {kind} pixels; save it as 8-bit or 16-bit grey or RGB")
    return image.convert("RGB")


def _scale_grey_16(image: ImageFile.ImageFile) -> NDArray[np.uint8]:
    grey = np.asarray(image)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        low, high = int(grey.min()), int(grey.max())
        if image.mode == "I" and not (low >= 0 and 0xFF < high <= 0xFFFF):
            reason = f"has 32-bit pixels of {low} to {high}, which are not 16-bit values; save it as 8-bit or 16-bit"
            raise unsupported(reason)
        if image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            grey = 0xFFFF - grey  # Pillow turns the 8-bit kind, not this one
    scaled: NDArray[np.uint8] = _8_BITS_OF_16[grey]
    return scaled


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
