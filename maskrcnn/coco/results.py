"""Predictions as columns, from a COCO results file: what is missing or misshapen gets one line that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn import storage
from maskrcnn.coco import rle
from maskrcnn.coco.records import Records, parse_json
from maskrcnn.errors import AnnotationError


@dataclass(frozen=True)
class CocoResults:
    """N predictions of a model, from whatever source."""

    place: str
    """The file or table, for messages."""
    image_ids: NDArray[np.int64]
    """(N,)"""
    category_ids: NDArray[np.int64]
    """(N,)"""
    scores: NDArray[np.float64]
    """(N,) finite"""
    bboxes: NDArray[np.float64] | None
    """(N, 4) XYWH, absolute px, or None where there are only masks. Where there are boxes, COCO takes the area by which
    an object is small, medium or large from them, else from the masks."""
    segmentations: Sequence[Any] | None
    """N COCO segmentations, not checked yet; or None where there are only boxes."""

    def __len__(self) -> int:
        return len(self.image_ids)

    def describe(self, index: int) -> str:
        """Name a prediction as messages do."""
        return f"predictions[{index}] (image {self.image_ids[index]})"

    def rle(self, index: int, size: tuple[int, int]) -> rle.Rle:
        """Give a prediction's mask; its box, drawn, where it has none, as COCO does.

        Args:
            index: of the prediction.
            size: (height, width) of its image, px.

        Raises:
            AnnotationError: a segmentation that cannot be used.
        """
        segmentation = self.segmentations[index] if self.segmentations is not None else None
        if segmentation is None and self.bboxes is not None:
            x, y, w, h = self.bboxes[index].tolist()
            segmentation = [[x, y, x, y + h, x + w, y + h, x + w, y]]
        thing = f"{self.describe(index)} segmentation"
        return rle.from_segmentation(segmentation, *size, thing=thing, place=self.place)


def merge_results(parts: Sequence[CocoResults]) -> CocoResults:
    """Put the predictions of several workers together; all or none of them have boxes, and masks."""
    boxes = [part.bboxes for part in parts if part.bboxes is not None]
    masks = [part.segmentations for part in parts if part.segmentations is not None]
    return CocoResults(
        place=parts[0].place,
        image_ids=np.concatenate([part.image_ids for part in parts]),
        category_ids=np.concatenate([part.category_ids for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        bboxes=np.concatenate(boxes) if boxes else None,
        segmentations=[mask for each in masks for mask in each] if masks else None,
    )


def load_results(uri: str) -> CocoResults:
    """Read a COCO results file.

    Raises:
        AnnotationError: it is no results file, or one that cannot be used.
        StorageError: it cannot be read.
    """
    return parse_results(storage.read_bytes(uri), uri)


def parse_results(document: bytes | list[dict[str, Any]], place: str) -> CocoResults:
    """Turn COCO results into columns.

    Args:
        document: the file's bytes, or the parsed list.
        place: the file, for messages.

    Raises:
        AnnotationError: naming file, prediction, field and rule.
    """
    rows = parse_json(document, place) if isinstance(document, bytes) else document
    if isinstance(rows, dict):
        rule = "must be a list of predictions, got an object"
        raise AnnotationError("results file", rule, place, "an object is a dataset, given with --annotations")
    predictions = Records(rows, "predictions", "prediction", place)
    image_ids = predictions.whole_numbers("image_id")
    category_ids = predictions.whole_numbers("category_id")
    scores = _numbers(predictions, "score", 1)[:, 0]
    with_boxes = [bool(row.get("bbox")) for row in predictions.rows]
    with_masks = [row.get("segmentation") is not None for row in predictions.rows]
    if any(with_boxes) and not all(with_boxes):
        predictions.refuse(with_boxes.index(False), "bbox", "must be there, since other predictions have one")
    if not any(with_boxes) and not all(with_masks):
        predictions.refuse(with_masks.index(False), "segmentation", "must be there where there is no bbox")
    return CocoResults(
        place=place,
        image_ids=image_ids,
        category_ids=category_ids,
        scores=scores,
        bboxes=_numbers(predictions, "bbox", 4) if any(with_boxes) else None,
        segmentations=[row.get("segmentation") for row in predictions.rows] if any(with_masks) else None,
    )


def _numbers(predictions: Records, field: str, length: int) -> NDArray[np.float64]:
    column = predictions.numbers(field, length)
    is_missing = np.isnan(column).any(axis=1)
    if is_missing.any():
        predictions.refuse(int(is_missing.argmax()), field, "must be there, and finite")
    return column
