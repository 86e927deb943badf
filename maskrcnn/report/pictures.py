"""Photos made small enough for a page: read, decoded at a reduced scale, and saved as JPEG in two sizes."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass

from PIL import Image

from maskrcnn import storage
from maskrcnn.config import DECODE_SCALES
from maskrcnn.errors import InputError, OutageError, StorageError
from maskrcnn.images import DEFAULT_MAX_PIXELS, BadImage, decode, read_header
from maskrcnn.labelling.stages import ByteBudget
from maskrcnn.redaction import redact
from maskrcnn.storage.outside import check_image_uri

LARGE_PX = 1280
THUMBNAIL_PX = 240
"""As wide as a tile; browsers keep up to a thousand decoded pictures, and these would be 300 MB at 320 px."""
DECODED_BYTES_IN_FLIGHT = 3 * DEFAULT_MAX_PIXELS
"""Of all photos that are being made small at once, three bytes a pixel."""
_QUALITY = 80


@dataclass(frozen=True)
class Pictures:
    """One photo in two sizes, JPEG."""

    large: bytes
    """At most LARGE_PX a side."""
    thumbnail: bytes
    """At most THUMBNAIL_PX a side."""


def read_pictures(
    uri: str, size: tuple[int, int], table_uri: str, *, max_pixels: int, decoded: ByteBudget
) -> Pictures | str:
    """Read a photo and make it small.

    Args:
        uri: of the photo, as a table has it.
        size: (height, width) that was labelled, px.
        table_uri: of the table, normalised, which must not lead to just anything.
        max_pixels: of a photo.
        decoded: bounds what is decoded at once, here and elsewhere.

    Returns:
        The pictures, or why there are none, in one line.

    Raises:
        OutageError: a whole store that stays away.
    """
    try:
        check_image_uri(uri, table_uri)
        body = storage.read_bytes(uri)
    except OutageError:
        raise
    except StorageError as error:
        return redact(f"{error.kind}: {error.reason}")
    except InputError as error:
        return redact(str(error))
    made = make_pictures(body, size, max_pixels, decoded)
    return made if isinstance(made, Pictures) else f"{made.kind}: {made.reason}"


def make_pictures(body: bytes, size: tuple[int, int], max_pixels: int, decoded: ByteBudget) -> Pictures | BadImage:
    """Make two small JPEGs of a photo, upright or as stored, whichever was labelled.

    Args:
        body: the whole file.
        size: (height, width) that was labelled, px.
        max_pixels: whatever a table says of the size.
        decoded: bounds what is decoded at once.
    """
    header = read_header(body, max_pixels=max_pixels)
    if isinstance(header, BadImage):
        return header
    apply_exif = (header.height, header.width) == size
    if not apply_exif and (header.orientation < 5 or (header.width, header.height) != size):
        labelled = f"{size[1]} x {size[0]} px when it was labelled"
        return BadImage("integrity", f"is {header.width} x {header.height} px, and was {labelled}")
    scale = max(each for each in DECODE_SCALES if each == 1 or max(size) / each >= LARGE_PX)
    num_bytes = 3 * header.width * header.height
    decoded.acquire(num_bytes)
    try:
        pixels = decode(body, apply_exif=apply_exif, max_pixels=max_pixels, scale=scale)
        if isinstance(pixels, BadImage):
            return pixels
        large = _within(Image.fromarray(pixels), LARGE_PX)
        return Pictures(to_jpeg(large, _QUALITY), to_jpeg(_within(large, THUMBNAIL_PX), _QUALITY))
    finally:
        decoded.release(num_bytes)


def find_below(root_uri: str, uris: Collection[str]) -> dict[str, str]:
    """Find files below a folder that end as some URIs do, by the longest such end.

    Args:
        root_uri: the folder, which is listed.
        uris: of anywhere.

    Returns:
        The file of each URI that has one.
    """
    root = storage.normalise(root_uri)
    last_names = {uri.rsplit("/", 1)[-1] for uri in uris}
    listed: set[str] = set()
    for batch in storage.list_batches(root):
        listed.update(uri for uri in batch.column("uri").to_pylist() if uri.rsplit("/", 1)[-1] in last_names)
    own = listed.intersection(uris)
    found = {}
    for uri in uris:
        segments = uri.split("/")
        ends = (storage.join(root, *segments[start:]) for start in range(len(segments)))
        # A file that is one of the images itself is no other's.
        if (file := next((end for end in ends if end in listed and (end == uri or end not in own)), None)) is not None:
            found[uri] = file
    return found


def _within(image: Image.Image, side_px: int) -> Image.Image:
    scale = side_px / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)


def to_jpeg(image: Image.Image, quality: int) -> bytes:
    """Encode a picture."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()
