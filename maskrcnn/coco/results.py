"""Predictions as columns, from a COCO results file: what is missing or misshapen gets one line that says so."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn import storage
from maskrcnn.coco import rle
from maskrcnn.coco.annotations import CocoDataset
from maskrcnn.coco.document import batches_of, stream_batches
from maskrcnn.coco.packed import POLYGONS, RLE, SizedSegmentations
from maskrcnn.coco.packing import SegmentationPacker
from maskrcnn.coco.records import Records
from maskrcnn.errors import InputError, StorageError


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
    segmentations: SizedSegmentations | None
    """N, some perhaps none; or None where there are only boxes."""

    def __len__(self) -> int:
        return len(self.image_ids)

    def describe(self, index: int) -> str:
        """Name a prediction as messages do."""
        return f"predictions[{index}] (image {self.image_ids[index]})"

    def check_sizes(self, indices: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        """Refuse masks that are not of their image's size.

        Args:
            indices: (K,) of the predictions.
            sizes: (K, 2) height and width of each one's image, px.

        Raises:
            AnnotationError: naming the first one.
        """
        if self.segmentations is None:
            return
        is_strange = (self.segmentations.sizes[indices] != sizes).any(axis=1)
        is_strange &= self.segmentations.packed.kinds[indices] == RLE
        if is_strange.any():
            place = int(is_strange.argmax())
            index, size = int(indices[place]), (int(sizes[place, 0]), int(sizes[place, 1]))
            written = {"size": self.segmentations.sizes[index].tolist()}
            rle.checked_size(written, size, f"{self.describe(index)} segmentation", self.place)

    def rle(self, index: int, size: tuple[int, int]) -> rle.Rle:
        """Give a prediction's mask; its box, drawn, where it has none, as COCO does.

        Args:
            index: of the prediction.
            size: (height, width) of its image, px, as `check_sizes` has seen it.

        Raises:
            AnnotationError: polygons or a box that cannot be drawn.
        """
        if self.segmentations is not None:
            packed = self.segmentations.packed
            if packed.kinds[index] == RLE:
                return {"size": list(size), "counts": packed.counts[index]}
            if packed.kinds[index] == POLYGONS:
                return packed.rle(index, size, thing=self.describe(index), place=self.place)
        assert self.bboxes is not None
        x, y, w, h = self.bboxes[index].tolist()
        drawn = [[x, y, x, y + h, x + w, y + h, x + w, y]]
        return rle.from_polygons(drawn, *size, thing=f"{self.describe(index)} segmentation", place=self.place)


def check_images(results: CocoResults, dataset: CocoDataset) -> None:
    """Refuse predictions none of which is of one of the dataset's images.

    Raises:
        InputError: naming the first one.
    """
    if len(results) and not np.isin(results.image_ids, dataset.image_ids).any():
        rule = f"must be of images in {dataset.place}, by image_id, and none is, as {results.image_ids[0]}"
        raise InputError("--predictions", rule, results.place)


def check_categories(results: CocoResults, dataset: CocoDataset) -> None:
    """Refuse predictions of the dataset's images none of which is of one of its categories.

    Raises:
        InputError: naming the first one.
    """
    category_ids = results.category_ids[np.isin(results.image_ids, dataset.image_ids)]
    if len(category_ids) and not np.isin(category_ids, np.array(dataset.categories.ids)).any():
        known = ", ".join(map(str, dataset.categories.ids[:5])) + (", …" if len(dataset.categories) > 5 else "")
        rule = f"must be of categories in {dataset.place} ({known}), and none is, as {category_ids[0]}"
        raise InputError("predictions' category_id", rule, results.place)


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
        segmentations=SizedSegmentations.concatenate(masks) if masks else None,
    )


def load_results(uri: str, *, with_masks: bool = True) -> CocoResults:
    """Read a COCO results file, without ever holding all of it.

    Args:
        uri: the file.
        with_masks: without, the masks of predictions that have boxes are passed over, unchecked.

    Raises:
        AnnotationError: it is no results file, or one that cannot be used.
        StorageError: it cannot be read.
    """
    with storage.open_input(uri) as file:
        try:
            return _collect(stream_batches(file, uri), uri, with_masks)
        except OSError as error:  # after it was opened
            raise StorageError(uri, error.strerror or str(error)) from error


def parse_results(document: bytes | list[dict[str, Any]], place: str) -> CocoResults:
    """Turn COCO results into columns.

    Args:
        document: the file's bytes, or the parsed list.
        place: the file, for messages.

    Raises:
        AnnotationError: naming file, prediction, field and rule.
    """
    if isinstance(document, bytes):
        return _collect(stream_batches(io.BytesIO(document), place), place, True)
    return _collect(batches_of(document, place), place, True)


def _collect(batches: Iterable[list[Any]], place: str, with_masks: bool) -> CocoResults:
    columns = _ResultColumns(place, with_masks)
    for rows in batches:
        columns.add(rows)
    return columns.build()


class _ResultColumns:
    """The columns of a results file, batch by batch."""

    def __init__(self, place: str, with_masks: bool) -> None:
        self._place, self._with_masks = place, with_masks
        self._num_rows = 0
        self._pieces: dict[str, list[NDArray[Any]]] = {}
        self._masks = SegmentationPacker()
        self._first: dict[str, Any] | None = None
        self._has_masks = False

    def add(self, rows: list[Any]) -> None:
        """Take the next rows."""
        predictions = Records(rows, "predictions", "prediction", self._place, self._num_rows)
        if self._first is None and rows:
            self._first = rows[0]
        columns = {
            "image_ids": predictions.whole_numbers("image_id"),
            "category_ids": predictions.whole_numbers("category_id"),
            "scores": _numbers(predictions, "score", 1)[:, 0],
        }
        masks = [row.get("segmentation") for row in rows]
        if self._check_shapes(predictions, masks):
            columns["bboxes"] = _numbers(predictions, "bbox", 4)
            masks = masks if self._with_masks else [None] * len(rows)
        for name, piece in columns.items():
            self._pieces.setdefault(name, []).append(piece)
        self._masks.add(masks)
        self._has_masks |= any(mask is not None for mask in masks)
        self._num_rows += len(rows)

    def build(self) -> CocoResults:
        """Put the batches together."""
        columns: dict[str, Any] = {name: np.concatenate(pieces) for name, pieces in self._pieces.items()}
        results = CocoResults(self._place, **{"bboxes": None, **columns}, segmentations=None)
        if not self._has_masks:
            return results
        return replace(results, segmentations=self._masks.finish_as_written(results.describe, self._place))

    def _check_shapes(self, predictions: Records, masks: list[Any]) -> bool:
        """Say whether the predictions have boxes: all must, or none, and then all must have masks."""
        must_have_boxes = self._first is None or bool(self._first.get("bbox"))
        with_boxes = [bool(row.get("bbox")) for row in predictions.rows]
        rule = "must be there, since other predictions have one"
        if must_have_boxes and not all(with_boxes):
            predictions.refuse(with_boxes.index(False), "bbox", rule)
        if not must_have_boxes and any(with_boxes):
            Records([self._first], "predictions", "prediction", self._place).refuse(0, "bbox", rule)
        with_masks = [mask is not None and mask != [] for mask in masks]
        if not must_have_boxes and not all(with_masks):
            predictions.refuse(with_masks.index(False), "segmentation", "must be there where there is no bbox")
        return must_have_boxes


def _numbers(predictions: Records, field: str, length: int) -> NDArray[np.float64]:
    column = predictions.numbers(field, length)
    is_missing = np.isnan(column).any(axis=1)
    if is_missing.any():
        predictions.refuse(int(is_missing.argmax()), field, "must be there, and finite")
    return column
