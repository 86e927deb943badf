"""What was found in one image; in a notebook, drawn on it."""

from __future__ import annotations

import base64
import html
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from maskrcnn.coco.rle import Rle
from maskrcnn.config import PreprocessConfig
from maskrcnn.drawing import Mark, color_categories, draw_marks
from maskrcnn.model.bundle import Category
from maskrcnn.model.decode import DecodedImage, to_decoded

PICTURE_PX = 1024
"""The longer side of what a notebook shows."""
MOST_KEPT = 8
"""Images of one call that its results keep: as many as a person looks at, and few beside a network."""


@dataclass(frozen=True, eq=False)
class Shown:
    """An image as it was given, and what its detections are called; pickled without the image."""

    image: bytes | Tensor | None
    """The caller's own object, no copy; None where it was one of many."""
    category_names: Mapping[int, str]
    preprocess: PreprocessConfig

    def load_pixels(self) -> NDArray[np.uint8] | None:
        """Give (H, W, 3) uint8 RGB, or None without an image."""
        if self.image is None:
            return None
        decoded = to_decoded(self.image, "image", self.preprocess)
        pixels: NDArray[np.uint8] = decoded.pixels.cpu().permute(1, 2, 0).numpy()
        return pixels

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"image": None}


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image, best score first; everything on the CPU.

    Raises:
        ValueError: when the fields are not of one length.
    """

    size: tuple[int, int]
    """(H, W) of the whole image, px, at whatever scale it was decoded."""
    boxes: Tensor
    """(N, 4) float32, XYXY, absolute px, inside the image."""
    scores: Tensor
    """(N,) float32, in [0, 1]."""
    labels: Tensor
    """(N,) int64, the network's class indices."""
    category_ids: Tensor
    """(N,) int64, as in the annotation file."""
    rles: list[Rle] = field(default_factory=list)
    """N masks of size [H, W]; none where masks were not asked for."""
    shown: Shown | None = field(default=None, repr=False)
    """What a notebook shows it on; None for what a job labels. It holds the image, where a call had few of them:
    `dataclasses.replace(found, shown=None)` lets go of it."""

    def __post_init__(self) -> None:
        num = len(self.scores)
        lengths = {len(self.boxes), len(self.labels), len(self.category_ids), len(self.rles) or num}
        if lengths != {num} or self.boxes.shape != (num, 4):
            found = f"boxes {tuple(self.boxes.shape)}, scores {num}, labels {len(self.labels)}"
            rest = f"category_ids {len(self.category_ids)}, rles {len(self.rles)}"
            raise ValueError(f"detections must be of one length, got {found}, {rest}")

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        height, width = self.size
        counts = self._name_counts()
        return f"Detections({len(self)} in {width} x {height} px{': ' + counts if counts else ''})"

    def _repr_html_(self) -> str:
        """Show the image with its detections, in a notebook; in words alone where it cannot be drawn."""
        text = f"<div>{html.escape(repr(self))}</div>"
        try:
            picture = self._picture()
        except Exception:  # whatever became of the caller's tensor, a notebook goes on
            picture = None
        if picture is None:
            return text
        sink = io.BytesIO()
        picture.save(sink, "JPEG", quality=90)
        source = base64.b64encode(sink.getvalue()).decode()
        return f'<img alt="{html.escape(repr(self))}" src="data:image/jpeg;base64,{source}">{text}'

    def _name_counts(self) -> str:
        counts = Counter(self.category_ids.tolist())
        return ", ".join(f"{count} {self._name(category)}" for category, count in counts.most_common())

    def _name(self, category_id: int) -> str:
        names = self.shown.category_names if self.shown else {}
        return names.get(category_id, f"category {category_id}")

    def _picture(self) -> Image.Image | None:
        pixels = self.shown.load_pixels() if self.shown else None
        if pixels is None or len(self.rles) != len(self):
            return None
        categories = [self._name(category) for category in self.category_ids.tolist()]
        marks = [Mark(*each) for each in zip(self.rles, categories, self.scores.tolist(), strict=True)]
        return draw_marks(pixels, marks[::-1], color_categories(categories), PICTURE_PX)


def show_on(
    images: Sequence[Tensor | bytes | DecodedImage],
    found: Sequence[Detections],
    categories: Sequence[Category],
    preprocess: PreprocessConfig,
) -> list[Detections]:
    """Remember what a notebook shows the results of one call on.

    Args:
        images: of the call; of more than `MOST_KEPT`, none is kept.
        found: one result an image.
        categories: whose names are told.
        preprocess: how a file is decoded.
    """
    names = {category.id: category.name for category in categories}
    is_kept = len(images) <= MOST_KEPT
    return [
        each
        if isinstance(image, DecodedImage)
        else replace(each, shown=Shown(image if is_kept else None, names, preprocess))
        for image, each in zip(images, found, strict=True)
    ]
