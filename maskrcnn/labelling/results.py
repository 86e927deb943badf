"""An image as it was planned, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from maskrcnn.errors import ErrorKind

if TYPE_CHECKING:  # whoever reads a table needs no torch
    from maskrcnn.model.detections import Detections


@dataclass(frozen=True)
class ListedImage:
    """An image as it was planned."""

    uri: str
    etag: str
    size: int


@dataclass(frozen=True)
class ImageResult:
    """Detections, or why there are none."""

    width: int | None = None
    """px, after the EXIF policy."""
    height: int | None = None
    detections: Detections | None = None
    error_kind: ErrorKind | None = None
    error_message: str | None = None
    labelled_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def num_instances(self) -> int:
        """How many instances were found; 0 for an image that failed."""
        return 0 if self.detections is None else len(self.detections.scores)
