"""The file names of a COCO file, which come from outside: they must not lead out of the folder of images."""

from __future__ import annotations

import os
import re
from typing import NoReturn
from urllib.parse import unquote

from maskrcnn import storage
from maskrcnn.errors import AnnotationError


def safe_join(root_uri: str, file_name: str) -> str:
    """Give the URI of an image below a folder, whatever the annotation file says.

    Args:
        root_uri: the folder of the images.
        file_name: relative to it, with `/` between folders.

    Returns:
        The normalised URI.

    Raises:
        AnnotationError: a name that leaves the folder: `..`, an absolute path, another scheme, a backslash, a NUL, or,
            on this machine, a symbolic link that leads out.
    """
    segments = check_file_name(file_name, root_uri)
    root = storage.normalise(root_uri)
    joined = storage.join(root, *segments)
    if storage.is_local(root):
        real_root = os.path.realpath(root)
        if os.path.commonpath([real_root, os.path.realpath(joined)]) != real_root:
            _refuse_file_name(file_name, "must not lead out of the folder of images by a symbolic link", root_uri)
    return joined


def check_file_name(file_name: str, root_uri: str = "") -> list[str]:
    """Check a file name without looking at any folder.

    Args:
        file_name: relative to the folder of images, with `/` between folders.
        root_uri: that folder, for messages.

    Returns:
        Its segments: the folders, and the file.

    Raises:
        AnnotationError: as `safe_join`, but for symbolic links.
    """
    decoded = unquote(file_name)
    if "\0" in decoded:
        _refuse_file_name(file_name, "must not hold a NUL", root_uri)
    if "\\" in decoded:
        _refuse_file_name(file_name, "must have / between folders, not a backslash", root_uri)
    if decoded.startswith("/") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", decoded):
        _refuse_file_name(file_name, "must be relative to the folder of images", root_uri)
    if ".." in decoded.split("/"):
        _refuse_file_name(file_name, "must not leave the folder of images", root_uri)
    segments = [segment for segment in file_name.split("/") if segment not in ("", ".")]
    if not segments:
        _refuse_file_name(file_name, "must name a file", root_uri)
    return segments


def _refuse_file_name(file_name: str, rule: str, root_uri: str) -> NoReturn:
    raise AnnotationError(f"file_name {file_name!r:.200}", rule, root_uri)
