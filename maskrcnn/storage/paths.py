"""Paths of this machine and their URIs: any bytes but NUL are a name, and a table holds UTF-8 only."""

from __future__ import annotations

import os
from urllib.parse import quote, unquote_to_bytes


def spell_path(path: str) -> str:
    """Spell a path as a table can hold it: names that are not UTF-8 become percent-encoded ``file://`` URIs."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return "file://" + quote(os.fsencode(path))
    return path


def local_path(uri: str) -> str:
    """Give the absolute path of a path or ``file://`` URI, as the calls of the operating system take it."""
    if not uri.startswith("file://"):
        return os.path.abspath(uri)  # a bare name has no folder to make, or to link into
    return os.fsdecode(unquote_to_bytes(os.fsencode(uri.removeprefix("file://"))))
