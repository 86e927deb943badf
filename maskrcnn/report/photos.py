"""The images that a table names, for pages: read where they lie now, or not at all."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from maskrcnn import storage
from maskrcnn.errors import InputError, StorageError
from maskrcnn.images import BadImage, decode
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


def relocate(uris: Sequence[str], first_uri: str, last_uri: str, images_uri: str | None) -> list[str]:
    """Say where images lie now.

    Args:
        uris: where they lay when they were labelled.
        first_uri, last_uri: of all images of the table, in order of their text.
        images_uri: the folder that now stands for the longest one that all share; None: they lie where they lay.
    """
    if images_uri is None:
        return list(uris)
    # Between two texts that begin with it, all do.
    common = posixpath.commonprefix([first_uri, last_uri])
    root = common[: common.rfind("/") + 1]
    return [storage.join(storage.normalise(images_uri), uri.removeprefix(root)) for uri in uris]
