"""Globs over any store: a pattern over the URIs of a listing."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from maskrcnn import storage
from maskrcnn.errors import InputError

_MAGIC = re.compile(r"[*?\[]")
_GLOB_TOKEN = re.compile(r"(\*\*/|\*\*|\*|\?|\[(?:!.|[^!])[^\]]*\])")


def looks_like_glob(uri: str) -> bool:
    """Say whether a URI may be a glob; it may be a real name too."""
    return _MAGIC.search(uri) is not None


def list_glob(uri: str) -> Iterator[pa.RecordBatch]:
    """List what matches, and everything under folders that match; ``*`` and ``?`` stop at a slash, ``**`` does not.

    Args:
        uri: normalised, with ``*``, ``?``, ``**`` or characters in brackets.

    Yields:
        As `storage.list_batches`.

    Raises:
        InputError: it is no glob, as ``[z-a]`` is none.
    """
    folder = _GLOB_TOKEN.split(uri)[0].rsplit("/", 1)[0]
    pattern = f"^{_glob_to_regex(uri)}(/.*)?$"
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        raise InputError("--images", f"is neither a place nor a glob: {error}", uri) from error
    for batch in storage.list_batches(folder):
        yield batch.filter(pc.match_substring_regex(batch.column("uri"), pattern))


def _glob_to_regex(glob: str) -> str:
    translations = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = [
        translations.get(piece) or (_class_to_regex(piece) if piece.startswith("[") else re.escape(piece))
        for piece in _GLOB_TOKEN.split(glob)
    ]
    return "".join(pieces)


def _class_to_regex(piece: str) -> str:
    """Give some characters in brackets as a regular expression has them: there backslashes and brackets are more."""
    escaped = re.sub(r"[\\\[\]]", r"\\\g<0>", piece[1:-1])
    return f"[{re.sub('^!', '^', escaped)}]"
