"""Images whose pixels say which object they belong to, and a predictor that reads them: exact detections for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from maskrcnn.coco.rle import from_mask
from maskrcnn.config import PreprocessConfig, ThresholdConfig
from maskrcnn.model.bundle import Category
from maskrcnn.model.decode import DecodedImage, to_decoded
from maskrcnn.model.detections import Detections
from maskrcnn.model.shapes import resized_shape


def paint(size: tuple[int, int], masks: Sequence[np.ndarray], labels: Sequence[int]) -> np.ndarray:
    """Paint objects (H, W) bool, later ones over earlier ones: (H, W, 3) uint8 of number, number's high byte, label."""
    image = np.zeros((*size, 3), np.uint8)
    for number, (mask, label) in enumerate(zip(masks, labels, strict=True), start=1):
        image[mask] = (number % 256, number // 256, label)
    return image


class BlobPredictor:
    """Finds each painted object exactly, and like a network none that is too small once the image is resized.

    What is smaller scores better, so that a piece of an object beats the whole wherever scores alone decide.

    Args:
        min_side_px: objects of a smaller side (the root of their area, px of the network's input) are not seen.
        max_detections: in an image.
    """

    whole_above_px: int | None = None
    is_on_gpu = False

    def __init__(self, min_side_px: float = 0.0, max_detections: int = 1000) -> None:
        self.preprocess = PreprocessConfig(min_size_px=128, max_size_px=128)
        self.thresholds = ThresholdConfig(max_detections=max_detections)
        self.categories = tuple(Category(10 * label, f"kind {label}", label) for label in (1, 2, 3))
        self.bundle_sha256 = "blobs"
        self.seen: list[DecodedImage] = []
        self.batch_sizes: list[int] = []
        self._min_side_px = min_side_px

    def __call__(self, images: Sequence[Tensor | bytes | DecodedImage], *, with_masks: bool = True) -> list[Detections]:
        decoded = [to_decoded(image, "an image", self.preprocess) for image in images]
        self.seen += decoded
        self.batch_sizes.append(len(decoded))
        return [self._find(image, with_masks) for image in decoded]

    def _find(self, image: DecodedImage, with_masks: bool) -> Detections:
        low, high, label = image.pixels.numpy().astype(np.int64)
        numbers = low + 256 * high
        scale = resized_shape(*image.size, self.preprocess)[0] / image.size[0]
        found = []
        for number in np.unique(numbers[numbers > 0]).tolist():
            mask = numbers == number
            area = int(mask.sum())
            if area**0.5 * scale < self._min_side_px:
                continue
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            found.append((1 - area / 10**6, box, int(label[mask][0]), from_mask(mask)))
        found = sorted(found, key=lambda each: (-each[0], *each[1]))[: self.thresholds.max_detections]
        labels = torch.tensor([each[2] for each in found], dtype=torch.int64)
        return Detections(
            size=image.size,
            boxes=torch.tensor(np.array([each[1] for each in found]), dtype=torch.float32).reshape(-1, 4),
            scores=torch.tensor([each[0] for each in found], dtype=torch.float32),
            labels=labels,
            category_ids=10 * labels,
            rles=[each[3] for each in found] if with_masks else [],
        )


def as_rows(found: Detections) -> list[tuple[object, ...]]:
    """Give detections as plain values, best first; equal scores by label and place."""
    assert (found.scores[:-1] >= found.scores[1:]).all()
    rles = [rle["counts"] for rle in found.rles] or [None] * len(found)
    columns = (found.scores, found.labels, found.category_ids, found.boxes)
    rows = [(*row, rle) for *row, rle in zip(*(column.tolist() for column in columns), rles, strict=True)]
    return sorted(rows, key=lambda row: (-row[0], *row[1:]))
