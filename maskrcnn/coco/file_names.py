"""The file names of a COCO file, which come from outside: they must not lead out of the folder of images."""

from __future__ import annotations

import os
from typing import NoReturn

from maskrcnn import storage
from maskrcnn.errors import AnnotationError
from maskrcnn.redaction import has_credentials, redact
from maskrcnn.storage.outside import broken_rule_of_name


def safe_join(root_uri: str, file_name: str) -> str:
    """Give the URI of an image below a folder, whatever the annotation file says.

    Args:
        root_uri: the folder of the images.
        file_name: relative to it, with `/` between folders.

    Returns:
        The normalised URI.

    Raises:
        AnnotationError: a name that leaves the folder: `..`, an absolute path, another scheme, a backslash, a NUL, or,
            on this machine, a symbolic link that leads out; or one that carries credentials.
    """
    segments = check_file_name(file_name, root_uri)
    root = storage.normalise(root_uri)
    joined = storage.join(root, *segments)
    if storage.is_local(root):
        real_root = os.path.realpath(storage.local_path(root))
        if os.path.commonpath([real_root, os.path.realpath(storage.local_path(joined))]) != real_root:
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
    rule = broken_rule_of_name(file_name)
    if rule is not None:
        _refuse_file_name(file_name, rule, root_uri)
    if has_credentials(file_name):
        _refuse_file_name(file_name, "must hold no credentials: a signed URL is another every day", root_uri)
    segments = [segment for segment in file_name.split("/") if segment not in ("", ".")]
    if not segments:
        _refuse_file_name(file_name, "must name a file", root_uri)
    return segments


def _refuse_file_name(file_name: str, rule: str, root_uri: str) -> NoReturn:
    raise AnnotationError(f"file_name {redact(file_name)!r:.200}", rule, root_uri)
