"""JSON from outside to columns: one place where a missing or misshapen field gets its message."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from maskrcnn.errors import AnnotationError


def parse_json(body: bytes, place: str) -> Any:
    """Parse the JSON of an annotations or results file.

    Raises:
        AnnotationError: saying where it breaks off.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AnnotationError("file", f"must be JSON: {error}", place) from None


class Records:
    """One of a document's lists of objects, with the checks that give its columns."""

    def __init__(self, root: dict[str, Any], name: str, singular: str, place: str) -> None:
        self.singular, self.place = singular, place
        rows = root.get(name)
        if not isinstance(rows, list):
            raise AnnotationError(name, f"must be a list, got {type(rows).__name__}", place)
        for index, row in enumerate(rows):
            if not isinstance(row, dict):
                raise AnnotationError(f"{name}[{index}]", f"must be an object, got {type(row).__name__}", place)
        self.rows: list[dict[str, Any]] = rows
        self.name = name

    def sort(self, order: NDArray[np.int64]) -> None:
        """Put the rows into another order."""
        self.rows = [self.rows[index] for index in order.tolist()]

    def refuse(self, index: int, field: str, rule: str) -> NoReturn:
        """Raise the error that names a row, a field and the rule it breaks."""
        row = self.rows[index]
        number = row.get("id")
        thing = f"{self.name}[{index}]" if number is None or field == "id" else f"{self.singular} {number!r:.40}"
        if field != "image_id" and "image_id" in row and field != "id":
            thing += f" (image {row['image_id']!r:.40})"
        raise AnnotationError(f"{thing} {field}", rule, self.place)

    def whole_numbers(self, field: str, low: int = -(2**63), high: int = 2**63 - 1) -> NDArray[np.int64]:
        """Give a column of int64."""
        column = [row.get(field) for row in self.rows]
        for index, value in enumerate(column):
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            if not is_whole or not low <= value <= high:  # type: ignore[operator]
                bounds = f" of {low} or more" if low > 0 else ""
                self.refuse(index, field, f"must be a whole number{bounds}, got {value!r:.40}")
        return np.array(column, np.int64)

    def unique_ids(self) -> NDArray[np.int64]:
        """Give the column of ids, none twice."""
        ids = self.whole_numbers("id")
        _, firsts = np.unique(ids, return_index=True)
        if len(firsts) != len(ids):
            repeat = int(np.setdiff1d(np.arange(len(ids)), firsts)[0])
            raise AnnotationError(f"{self.singular} id {ids[repeat]}", f"must be unique among {self.name}", self.place)
        return ids

    def references(self, field: str, ids: NDArray[np.int64], target: str) -> NDArray[np.int64]:
        """Find each row's place in `ids`."""
        wanted = self.whole_numbers(field)
        is_known = np.isin(wanted, ids)
        if not is_known.all():
            index = int(is_known.argmin())
            self.refuse(index, field, f"must be the id of one of the {target}, got {wanted[index]}")
        order = np.argsort(ids)
        return order[np.searchsorted(ids, wanted, sorter=order)] if len(wanted) else wanted

    def texts(self, field: str) -> list[str]:
        """Give a column of texts, none empty."""
        for index, row in enumerate(self.rows):
            if not isinstance(row.get(field), str) or not row[field]:
                self.refuse(index, field, f"must be a text, got {row.get(field)!r:.40}")
        return [row[field] for row in self.rows]

    def numbers(self, index: int, field: str, length: int) -> Sequence[float]:
        """Give one row's numbers; all NaN where the field is missing or one is not finite."""
        value = self.rows[index].get(field)
        if value is None:
            return [math.nan] * length
        values = [value] if length == 1 else value
        if not isinstance(values, list) or len(values) != length or not all(map(_is_number, values)):
            shape = "[x, y, width, height] in px" if length == 4 else "a number"
            self.refuse(index, field, f"must be {shape}, got {value!r:.80}")
        return values if all(map(math.isfinite, values)) else [math.nan] * length


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)
