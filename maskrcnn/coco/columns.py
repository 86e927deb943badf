"""The three lists of a COCO document, batch by batch into columns; what concerns a list as a whole comes at the end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.ids import MAX_CATEGORY_ID, MIN_CATEGORY_ID, repeats
from maskrcnn.coco.packing import SegmentationPacker
from maskrcnn.coco.records import Records
from maskrcnn.coco.runs import MAX_MASK_PIXELS
from maskrcnn.errors import AnnotationError

_MAX_SIDE_PX = 2**31 - 1


class Columns:
    """One of the lists."""

    name: ClassVar[str]
    singular: ClassVar[str]

    def __init__(self, place: str) -> None:
        self.place = place
        self._num_rows = 0
        self._pieces: dict[str, list[NDArray[Any]]] = {}
        self._failure: AnnotationError | None = None

    def collect(self, batches: Iterator[Any]) -> None:
        """Take all rows of the list.

        A row that cannot be used is refused by `check` only: the document may yet turn out to be no JSON, or to hold
        another list of this name, which counts then.
        """
        for batch in batches:
            if self._failure is None:
                try:
                    self._add(batch)
                except AnnotationError as error:
                    self._failure = error

    def check(self) -> None:
        """Refuse a list that cannot be used.

        Raises:
            AnnotationError: naming the first row, its field and the rule; or an id that comes twice.
        """
        if self._failure is not None:
            raise self._failure
        ids = self._pieces["id"] = [self.take("id")]
        is_repeat = repeats(ids[0])
        if is_repeat.any():
            rule = f"must be unique among {self.name}"
            raise AnnotationError(f"{self.singular} id {ids[0][is_repeat.argmax()]}", rule, self.place)

    def take(self, column: str) -> NDArray[Any]:
        """Give a column, which is no longer held here."""
        return np.concatenate(self._pieces.pop(column))

    def _add(self, batch: Any) -> None:
        records = Records(batch, self.name, self.singular, self.place, self._num_rows)
        for column, piece in self._read(records).items():
            self._pieces.setdefault(column, []).append(piece)
        self._num_rows += len(records.rows)

    def _read(self, records: Records) -> dict[str, NDArray[Any]]:
        raise NotImplementedError


class ImageColumns(Columns):
    """The images: id, height, width, and file names."""

    name, singular = "images", "image"

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.file_names: list[str] = []

    def _read(self, records: Records) -> dict[str, NDArray[Any]]:
        columns = {
            "id": records.whole_numbers("id"),
            "height": records.whole_numbers("height", 1, _MAX_SIDE_PX),
            "width": records.whole_numbers("width", 1, _MAX_SIDE_PX),
        }
        is_too_large = columns["height"] * columns["width"] > MAX_MASK_PIXELS
        if is_too_large.any():
            index = int(is_too_large.argmax())
            size = f"{columns['width'][index]} x {columns['height'][index]}"
            records.refuse(index, "width x height", f"must be at most {MAX_MASK_PIXELS} px, got {size}")
        self.file_names += records.texts("file_name")
        return columns


class CategoryColumns(Columns):
    """The categories: id, and names."""

    name, singular = "categories", "category"

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.names: list[str] = []

    def _read(self, records: Records) -> dict[str, NDArray[Any]]:
        ids = records.whole_numbers("id", MIN_CATEGORY_ID, MAX_CATEGORY_ID)
        self.names += records.texts("name")
        return {"id": ids}


class AnnotationColumns(Columns):
    """The annotations: a column a field, `lacks_iscrowd`, and the segmentations."""

    name, singular = "annotations", "annotation"

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.segmentations = SegmentationPacker()

    def _read(self, records: Records) -> dict[str, NDArray[Any]]:
        crowds = [row.get("iscrowd") for row in records.rows]
        columns = {
            "id": records.whole_numbers("id"),
            "image_id": records.whole_numbers("image_id"),
            "category_id": records.whole_numbers("category_id"),
            "bbox": records.numbers("bbox", 4),
            "area": records.numbers("area", 1)[:, 0],
            "iscrowd": np.array([bool(value) for value in crowds], np.bool_),
            "lacks_iscrowd": np.array([value is None for value in crowds], np.bool_),
        }
        self.segmentations.add([row.get("segmentation") for row in records.rows])
        return columns
