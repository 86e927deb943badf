"""The images that a table names, for pages: read where they lie now, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskrcnn import storage
from maskrcnn.errors import InputError, StorageError
from maskrcnn.images import BadImage, decode
from maskrcnn.report.pictures import find_below
from maskrcnn.storage.outside import check_image_uri


def load_photo(uri: str, table_uri: str) -> NDArray[np.uint8] | None:
    """Read an image; None where it cannot be read or decoded, or must not be opened.

    Args:
        uri: where it lies.
        table_uri: of the table or the folder that names it, normalised, which must not lead to just anything.

    Returns:
        (H, W, 3) uint8 RGB, turned as its EXIF orientation says.
    """
    try:
        check_image_uri(uri, table_uri)
        photo = decode(storage.read_bytes(uri))
    except (StorageError, InputError):
        return None
    return None if isinstance(photo, BadImage) else photo


def locate(uris: Sequence[str], images_uri: str | None) -> list[str | None]:
    """Say where images lie now.

    Args:
        uris: where they lay when they were labelled.
        images_uri: the folder below which they are found by the end of their names; None: they lie where they lay.

    Returns:
        A URI each; None where the folder does not have it.
    """
    if images_uri is None:
        return list(uris)
    found = find_below(images_uri, uris)
    return [found.get(uri) for uri in uris]
