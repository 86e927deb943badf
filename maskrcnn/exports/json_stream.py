"""A JSON file that is larger than memory, written list by list."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, BinaryIO

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def write_value(file: BinaryIO, value: Any) -> None:
    """Write a value that fits in memory."""
    file.write(_encode(value).encode())


def write_list(file: BinaryIO, batches: Iterable[list[dict[str, Any]]]) -> int:
    """Write one list from batches of its items, a line an item, and count them."""
    num_items = 0
    file.write(b"[")
    for batch in batches:
        if batch:
            file.write(b",\n" if num_items else b"\n")
            file.write(",\n".join(map(_encode, batch)).encode())
            num_items += len(batch)
    file.write(b"\n]")
    return num_items
