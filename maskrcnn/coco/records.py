"""JSON from outside to columns: one place where a missing or misshapen field gets its message."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from maskrcnn.errors import AnnotationError

_LARGEST = 2**63
_NUMBERS = {int, float}


class Records:
    """Rows of one of a document's lists of objects, with the checks that give their columns.

    Args:
        rows: as parsed; anything but a list of objects is refused.
        name: of the list.
        singular: of one row.
        place: the file, for messages.
        first_index: where in the list these rows begin.
    """

    def __init__(self, rows: Any, name: str, singular: str, place: str, first_index: int = 0) -> None:
        if not isinstance(rows, list):
            raise AnnotationError(name, f"must be a list, got {type(rows).__name__}", place)
        for index, row in enumerate(rows, first_index):
            if not isinstance(row, dict):
                raise AnnotationError(f"{name}[{index}]", f"must be an object, got {type(row).__name__}", place)
        self.rows: list[dict[str, Any]] = rows
        self.name, self.singular, self.place, self._first_index = name, singular, place, first_index

    def refuse(self, index: int, field: str, rule: str) -> NoReturn:
        """Raise the error that names a row, a field and the rule it breaks."""
        row = self.rows[index]
        number = row.get("id")
        position = f"{self.name}[{self._first_index + index}]"
        thing = position if number is None or field == "id" else f"{self.singular} {number!r:.40}"
        if field != "image_id" and "image_id" in row and field != "id":
            thing += f" (image {row['image_id']!r:.40})"
        raise AnnotationError(f"{thing} {field}", rule, self.place)

    def whole_numbers(self, field: str, low: int = -_LARGEST, high: int = _LARGEST - 1) -> NDArray[np.int64]:
        """Give a column of int64."""
        column: list[Any] = [row.get(field) for row in self.rows]
        numbers = int64s(column)
        if numbers is not None and (not len(numbers) or (low <= numbers.min() and numbers.max() <= high)):
            return numbers
        for index, value in enumerate(column):
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            if not is_whole or not low <= value <= high:
                is_bounded = low <= 0 and high < _LARGEST - 1
                bounds = f" of {low} or more" if low > 0 else f" in [{low}, {high}]" if is_bounded else ""
                self.refuse(index, field, f"must be a whole number{bounds}, got {value!r:.40}")
        return np.array(column, np.int64)

    def texts(self, field: str) -> list[str]:
        """Give a column of texts, none empty."""
        for index, row in enumerate(self.rows):
            if not isinstance(row.get(field), str) or not row[field]:
                self.refuse(index, field, f"must be a text, got {row.get(field)!r:.40}")
        return [row[field] for row in self.rows]

    def numbers(self, field: str, length: int) -> NDArray[np.float64]:
        """Give a column of (rows, length) numbers; a row is all NaN where it has none, or one that is not finite."""
        column: list[Any] = [row.get(field) for row in self.rows]
        flat = flatten_lists([column] if length == 1 else column)
        if flat is not None and (length == 1 or (flat[1] == length).all()) and (np.abs(flat[0]) < _LARGEST).all():
            return flat[0].reshape(-1, length)
        checked = [self._numbers_of(index, field, length) for index in range(len(self.rows))]
        return np.array(checked, np.float64).reshape(-1, length)

    def _numbers_of(self, index: int, field: str, length: int) -> Sequence[float]:
        value = self.rows[index].get(field)
        if value is None:
            return [math.nan] * length
        values = [value] if length == 1 else value
        if not isinstance(values, list) or len(values) != length or not all(map(_is_number, values)):
            shape = "[x, y, width, height] in px" if length == 4 else "a number"
            self.refuse(index, field, f"must be {shape}, got {value!r:.80}")
        return values if all(map(math.isfinite, values)) else [math.nan] * length


def flatten_lists(lists: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Put lists of numbers one after the other, fast.

    Returns:
        The numbers, and how many each list has; None where one is no list, or holds what may not be a number.
    """
    flat = array("d")
    try:
        for numbers in lists:
            if type(numbers) is not list or not set(map(type, numbers)) <= _NUMBERS:
                return None
            flat.fromlist(numbers)
    except OverflowError:  # for whole numbers of hundreds of digits
        return None
    return np.array(flat), np.fromiter(map(len, lists), np.int64, len(lists))


def int64s(values: list[Any]) -> NDArray[np.int64] | None:
    """Give whole numbers as an array, fast; None where one is anything else, or too large."""
    if not set(map(type, values)) <= {int}:
        return None
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (type(value) is int and abs(value) < _LARGEST)
