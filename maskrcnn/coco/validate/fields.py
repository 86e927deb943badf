"""Single values of a row: whether they are numbers, boxes, areas, and what is wrong with those that are not."""

from __future__ import annotations

import math
import re
from typing import Any

LARGEST = 2**63
"""Whole numbers from here on are not read."""


def is_number(value: Any) -> bool:
    """Say whether a value is a number of JSON, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_whole_number(value: Any) -> int | None:
    """Give a whole number that fits int64, also where it is written as a text or a float; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,19}", value.strip(), re.ASCII):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def name_bbox_problem(bbox: Any) -> str | None:
    """Give the code of what is wrong with a bounding box, None where nothing is."""
    if not isinstance(bbox, list) or not all(map(is_number, bbox)):
        return "field_type"
    if len(bbox) != 4:
        return "bbox_length"
    if not all(map(_is_finite, bbox)):
        return "bbox_not_finite"
    return None if bbox[2] > 0 and bbox[3] > 0 else "bbox_not_positive"


def name_area_problem(area: Any) -> str | None:
    """Give the code of what is wrong with an area, None where nothing is."""
    if not is_number(area):
        return "field_type"
    return None if _is_finite(area) and area >= 0 else "area_not_positive"


def _is_finite(value: float) -> bool:
    return math.isfinite(value) if isinstance(value, float) else abs(value) < LARGEST
