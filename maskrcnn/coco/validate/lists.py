"""The lists of a document, read leniently: a row that is wrong is reported, and takes no part in what cannot be said.

Of each row only a few numbers are kept, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.file_names import check_file_name
from maskrcnn.coco.ids import MAX_CATEGORY_ID, MIN_CATEGORY_ID
from maskrcnn.coco.records import flatten_lists, int64s
from maskrcnn.coco.runs import MAX_MASK_PIXELS
from maskrcnn.coco.validate.comparisons import find_odd_areas
from maskrcnn.coco.validate.fields import LARGEST, as_whole_number, name_area_problem, name_bbox_problem
from maskrcnn.coco.validate.findings import Findings, Subject
from maskrcnn.coco.validate.segmentations import MISSING, Measured, draw_areas, measure
from maskrcnn.errors import AnnotationError

MAX_SIDE_PX = 2**31 - 1
MOST_DRAWN = 20_000
"""Polygons of a file that are drawn since their area seems odd; of more it is believed."""

_UNKNOWN = -1


class RowList:
    """One of the lists: its columns, and what is wrong with its rows."""

    name: ClassVar[str]
    subject: ClassVar[Subject]

    def __init__(self, file: str) -> None:
        self.findings = Findings(file)
        self.num_rows = 0
        self.is_faulty = bytearray()
        """Of each row that is an object, whether anything is wrong with it."""
        self._pieces: dict[str, list[NDArray[Any]]] = {}
        self._positions: NDArray[np.int64] = np.zeros(0, np.int64)
        self._batch_ids: list[Any] = []

    def collect(self, batches: Iterator[Any]) -> None:
        """Take all rows of the list."""
        for batch in batches:
            if not isinstance(batch, list):
                self.findings.add("list_type", "file", self.name, type(batch).__name__)
                continue
            is_row = np.array([isinstance(row, dict) for row in batch], np.bool_)
            for place in np.flatnonzero(~is_row).tolist():
                kind = type(batch[place]).__name__
                self.findings.add("row_type", self.subject, self.name, kind, index=self.num_rows + place)
            rows = batch if is_row.all() else [row for row in batch if isinstance(row, dict)]
            self._positions = self.num_rows + np.flatnonzero(is_row)
            self._batch_ids = [row.get("id") for row in rows]
            self.is_faulty.extend(bytes(len(rows)))
            self._keep("position", self._positions)
            self._keep_whole_numbers(rows, "id")
            self._read(rows)
            self.num_rows += len(batch)

    def column(self, name: str) -> NDArray[Any]:
        """Give a column of all rows that are objects; whole."""
        pieces = self._pieces[name]
        if len(pieces) > 1:
            self._pieces[name] = pieces = [np.concatenate(pieces)]
        return pieces[0]

    def __len__(self) -> int:
        return sum(map(len, self._pieces.get("id", ())))

    def id_of(self, index: int) -> int | None:
        """Give a row's id, None where it has none that can be used."""
        return int(self.column("id")[index]) if self.column("has_id")[index] else None

    def report_row(self, index: int, code: str, field: str, value: Any) -> None:
        """Report a row of the whole list, by its place among those that are objects."""
        place = int(self.column("position")[index])
        self.is_faulty[index] = 1
        self.findings.add(code, self.subject, field, value, id=self.id_of(index), index=place)

    def report_where(
        self, code: str, is_found: NDArray[np.bool_], field: str, value_of: Callable[[int], Any] = lambda _: ""
    ) -> None:
        """Report every row of the whole list where the condition holds."""
        for index in np.flatnonzero(is_found).tolist():
            self.report_row(index, code, field, value_of(index) if self.findings.has_room(code) else "")

    def _report(self, place: int, code: str, field: str, value: Any) -> None:
        """Report a row of the batch that is being read."""
        number = self._batch_ids[place]
        known = number if type(number) is int else None
        self.is_faulty[len(self.is_faulty) - len(self._batch_ids) + place] = 1
        self.findings.add(code, self.subject, field, value, id=known, index=int(self._positions[place]))

    def _read(self, rows: list[dict[str, Any]]) -> None:
        raise NotImplementedError

    def _keep(self, name: str, values: NDArray[Any]) -> None:
        self._pieces.setdefault(name, []).append(values)

    def _keep_whole_numbers(self, rows: Sequence[dict[str, Any]], field: str) -> None:
        """Keep a column of int64, and which of them are there."""
        values = [row.get(field, MISSING) for row in rows]
        numbers = int64s(values)
        if numbers is not None:
            self._keep(field, numbers)
            self._keep(f"has_{field}", np.ones(len(values), np.bool_))
            return
        understood = [as_whole_number(value) for value in values]
        for place, value in enumerate(values):
            if understood[place] is None or type(value) is not int:
                self._report_absence(place, field, value)
        self._keep(field, np.array([_UNKNOWN if number is None else number for number in understood], np.int64))
        self._keep(f"has_{field}", np.array([number is not None for number in understood], np.bool_))

    def _report_absence(self, place: int, field: str, value: Any) -> None:
        if value is MISSING:
            self._report(place, "missing_field", field, "")
        else:
            self._report(place, "field_type", field, value)

    def _texts(self, rows: Sequence[dict[str, Any]], field: str) -> list[str]:
        """Give a column of texts; empty where there is none."""
        texts = []
        for place, row in enumerate(rows):
            text = row.get(field, MISSING)
            if not isinstance(text, str) or not text.strip():
                self._report_absence(place, field, text)
                text = ""
            texts.append(text)
        return texts


class ImageList(RowList):
    """The images: id, file_name, and width and height, 0 where they are not known."""

    name, subject = "images", "image"

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.file_names: list[str] = []
        """Empty where there is none that can be used."""

    def _read(self, rows: list[dict[str, Any]]) -> None:
        names = self._texts(rows, "file_name")
        for place, name in enumerate(names):
            try:
                if name:
                    check_file_name(name)
            except AnnotationError:
                self._report(place, "file_name_leaves_root", "file_name", name)
                names[place] = ""
        self.file_names += names
        heights, widths = (self._sides(rows, side) for side in ("height", "width"))
        for place in np.flatnonzero(heights * widths > MAX_MASK_PIXELS).tolist():
            self._report(place, "image_size_value", "width, height", [int(widths[place]), int(heights[place])])
            heights[place] = widths[place] = 0
        self._keep("height", heights)
        self._keep("width", widths)

    def _sides(self, rows: list[dict[str, Any]], side: str) -> NDArray[np.int64]:
        values = [row.get(side, MISSING) for row in rows]
        numbers = int64s(values)
        if numbers is not None and (not len(numbers) or (numbers.min() >= 1 and numbers.max() <= MAX_SIDE_PX)):
            return numbers
        for place, value in enumerate(values):
            if value is MISSING or value is None:
                self._report(place, "size_missing", side, "")
                values[place] = 0
            elif type(value) is not int or not 1 <= value <= MAX_SIDE_PX:
                self._report(place, "image_size_value", side, value)
                values[place] = 0
        return np.array(values, np.int64)


class CategoryList(RowList):
    """The categories: id and name."""

    name, subject = "categories", "category"

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.names: list[str] = []
        """Empty where there is none that can be used."""

    def _read(self, rows: list[dict[str, Any]]) -> None:
        self.names += self._texts(rows, "name")
        ids = self._pieces["id"][-1]
        for place in np.flatnonzero((ids < MIN_CATEGORY_ID) | (ids > MAX_CATEGORY_ID)).tolist():
            self._report(place, "category_id_value", "id", int(ids[place]))


class AnnotationList(RowList):
    """The annotations: their fields as columns, and their shapes measured.

    Columns: image_id and category_id with has_…; bbox (NaN where there is none), area (NaN), iscrowd; and what
    `segmentations.Measured` has.
    """

    name, subject = "annotations", "annotation"

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self._num_to_draw = MOST_DRAWN

    def _read(self, rows: list[dict[str, Any]]) -> None:
        self._keep_whole_numbers(rows, "image_id")
        self._keep_whole_numbers(rows, "category_id")
        bboxes, areas = self._bboxes(rows), self._areas(rows)
        self._keep("bbox", bboxes)
        self._keep("area", areas)
        self._keep("iscrowd", self._crowds(rows))
        segmentations = [row.get("segmentation", MISSING) for row in rows]
        measured = measure(segmentations, lambda place, code, value: self._report(place, code, "segmentation", value))
        self._draw_odd(segmentations, bboxes, areas, measured)
        for name, values in vars(measured).items():
            self._keep(name, values)

    def _draw_odd(
        self,
        segmentations: list[Any],
        bboxes: NDArray[np.float64],
        areas: NDArray[np.float64],
        measured: Measured,
    ) -> None:
        """Look at the pixels of polygons whose area seems odd: parts may cover each other, or outlines themselves."""
        for is_odd in find_odd_areas(areas, measured.areas, bboxes):
            if self._num_to_draw > 0:
                self._num_to_draw -= draw_areas(segmentations, is_odd, measured)

    def _bboxes(self, rows: list[dict[str, Any]]) -> NDArray[np.float64]:
        values = [row.get("bbox") for row in rows]
        flat = flatten_lists(values)
        if flat is not None and (flat[1] == 4).all():
            boxes = flat[0].reshape(-1, 4)
            if (boxes[:, 2:] > 0).all() and (np.abs(boxes) < LARGEST).all():
                return boxes
        boxes = np.full((len(rows), 4), np.nan)
        for place, value in enumerate(values):
            if value is None:
                self._report(place, "bbox_missing", "bbox", "")
            elif code := name_bbox_problem(value):
                self._report(place, code, "bbox", value)
            else:
                boxes[place] = value
        return boxes

    def _areas(self, rows: list[dict[str, Any]]) -> NDArray[np.float64]:
        values = [row.get("area") for row in rows]
        flat = flatten_lists([values])
        if flat is not None and (flat[0] < LARGEST).all() and (flat[0] >= 0).all():
            return flat[0]
        areas = np.full(len(rows), np.nan)
        for place, value in enumerate(values):
            if value is None:
                self._report(place, "area_missing", "area", "")
            elif code := name_area_problem(value):
                self._report(place, code, "area", value)
            else:
                areas[place] = value
        return areas

    def _crowds(self, rows: list[dict[str, Any]]) -> NDArray[np.bool_]:
        values = [row.get("iscrowd") for row in rows]
        for place, value in enumerate(values):
            if value is None:
                self._report(place, "iscrowd_missing", "iscrowd", "")
            elif value not in (0, 1):
                self._report(place, "iscrowd_value", "iscrowd", value)
        return np.array([value == 1 for value in values], np.bool_)
