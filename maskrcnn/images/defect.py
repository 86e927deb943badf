"""How the readers of image structure tell one another that a file cannot be used; never leaves the package."""

from __future__ import annotations

from maskrcnn.errors import ErrorKind


class ImageDefectError(Exception):
    """A file that cannot be used: why, as the predictions table names it, and in words."""

    def __init__(self, kind: ErrorKind, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind: ErrorKind = kind
        self.reason = reason


def corrupt(reason: str) -> ImageDefectError:
    """Say that a file is truncated or damaged."""
    return ImageDefectError("corrupt", reason)


def unsupported(reason: str) -> ImageDefectError:
    """Say that a file may be sound, but is nothing that can be read here."""
    return ImageDefectError("unsupported", reason)
