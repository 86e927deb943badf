"""A repaired copy of a dataset, row by row: sound rows go through as they are, others are mended or left out."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from maskrcnn import storage
from maskrcnn.coco.document import stream_members
from maskrcnn.coco.ids import find_ids, repeats
from maskrcnn.coco.validate.dataset import Validation
from maskrcnn.coco.validate.geometry import image_sizes, written_sizes
from maskrcnn.coco.validate.lists import RowList
from maskrcnn.coco.validate.mend import Change, UnusableRowError, mend_annotation, mend_numbers
from maskrcnn.coco.validate.relations import find_twins

MOST_EXACT = 2**53
"""Whole numbers from here on are not exact where JSON's are floats."""

_LISTS = ("images", "annotations", "categories")


@dataclass
class Repairs:
    """What was done, counted; the list of it is written as it is made."""

    counts: Counter[str] = field(default_factory=Counter)
    """By what was done, and to what: "annotation bbox taken from the mask"."""
    num_rows: int = 0
    """Rows that were changed or dropped."""


def repair_dataset(validation: Validation, output_uri: str) -> Repairs:
    """Write a copy of a dataset with everything repaired that can be, and a list of what was done.

    Args:
        validation: of the dataset; where its files were looked at, images that cannot be used are left out, and sizes
            that are not written are taken from them.
        output_uri: of the copy, ending in .json; the list lies beside it, ending in .repairs.json.

    Raises:
        ExistsError: something is there already.
        StorageError: it cannot be written, or the dataset not read again.
    """
    mender = _Mender(validation)
    with (
        storage.open_output(output_uri) as output,
        storage.open_output(repairs_uri(output_uri)) as log,
        storage.open_input(validation.scanned.uri) as source,
    ):
        log.write(b"[")
        _copy(validation, source, output, log, mender)
        log.write(b"\n]\n")
    return mender.repairs


def repairs_uri(output_uri: str) -> str:
    """Say where the list of repairs of a copy lies."""
    return output_uri.removesuffix(".json") + ".repairs.json"


def _copy(validation: Validation, source: BinaryIO, output: BinaryIO, log: BinaryIO, mender: _Mender) -> None:
    left = Counter(validation.scanned.num_members)
    output.write(b"{")
    begin = b""
    for name, batches in stream_members(source, validation.scanned.uri):
        left[name] -= 1
        if name in _LISTS and left[name]:
            continue  # of a list that stands there twice the last counts
        output.write(begin + b"\n" + _encode(name) + b": ")
        _copy_member(name, batches, output, log, mender)
        begin = b","
    output.write(b"\n}\n")


def _copy_member(name: str, batches: Iterator[Any], output: BinaryIO, log: BinaryIO, mender: _Mender) -> None:
    is_list, begin = False, b""
    for batch in batches:
        if not isinstance(batch, list):
            output.write(_encode(batch))
            return
        if not is_list:
            output.write(b"[")
            is_list = True
        for row in batch:
            mended, done = mender.mend(name, row) if name in _LISTS else (row, [])
            for entry in done:
                log.write((b"," if mender.num_logged else b"") + b"\n" + _encode(entry))
                mender.num_logged += 1
            if mended is not None:
                output.write(begin + b"\n" + _encode(mended))
                begin = b","
    output.write(b"]")


def _encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class _Mender:
    """Decides what becomes of each row, in the order of the file."""

    def __init__(self, validation: Validation) -> None:
        scanned = validation.scanned
        self.repairs = Repairs()
        self.num_logged = 0
        self._lists: dict[str, RowList] = {rows.name: rows for rows in scanned.lists}
        self._next_row = dict.fromkeys(_LISTS, 0)
        self._next_position = dict.fromkeys(_LISTS, 0)
        files = validation.files
        self._file_sizes = {} if files is None else files.sizes
        self._unusable = set() if files is None else files.unusable
        self._unusable |= {index for index, name in enumerate(scanned.images.file_names) if not name}
        self._first_names: dict[tuple[str, int], Any] = {}
        self._repeated = {rows.name: set(_repeated_ids(rows)) for rows in scanned.lists}
        annotations = scanned.annotations
        self._is_twin = find_twins(annotations)
        self._is_repeat = repeats(annotations.column("id")) & annotations.column("has_id")
        self._new_ids = _unused_ids(annotations)
        self._orphan_of = {
            f"{rows.subject}_id": ~_known(annotations, f"{rows.subject}_id", rows, gone)
            for rows, gone in ((scanned.images, self._unusable), (scanned.categories, set()))
        }
        sizes = written_sizes(scanned.images)
        self._has_size: NDArray[np.bool_] = np.asarray((sizes > 0).all(axis=1))
        for index, size in self._file_sizes.items():
            if not self._has_size[index]:
                sizes[index] = size
        self._sizes = image_sizes(annotations, scanned.images, sizes)

    def mend(self, name: str, row: Any) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Give a row as it goes into the copy, None where it does not; and what was done to it."""
        rows, position = self._lists[name], self._next_position[name]
        self._next_position[name] += 1
        if not isinstance(row, dict):
            return None, self._log(rows, row, position, [Change("", "dropped: no object")])
        index = self._next_row[name]
        self._next_row[name] += 1
        original_id = row.get("id")
        changes: list[Change] = []
        kept: dict[str, Any] | None = row
        try:
            match name:
                case "annotations":
                    self._mend_annotation(row, index, changes)
                case "images":
                    self._mend_image(row, index, changes)
                case _:
                    self._mend_category(row, index, changes)
        except UnusableRowError as error:
            changes.append(Change("", f"dropped: {error}"))
            kept = None
        return kept, self._log(rows, original_id, position, changes)

    def _mend_annotation(self, row: dict[str, Any], index: int, changes: list[Change]) -> None:
        for name, is_orphan in self._orphan_of.items():
            if is_orphan[index]:
                raise UnusableRowError(f"its {name} leads nowhere")
        if self._is_twin[index]:
            raise UnusableRowError("the same instance as one before")
        mend_numbers(row, ("id", "image_id", "category_id"), changes)
        if not self._lists["annotations"].column("has_id")[index] or self._is_repeat[index]:
            number = row.get("id")
            row["id"] = next(self._new_ids)
            changes.append(Change("id", f"set to {row['id']}", number))
        if self._lists["annotations"].is_faulty[index]:
            height, width = self._sizes[index].tolist()
            changes += mend_annotation(row, (height, width) if height and width else None)

    def _mend_image(self, row: dict[str, Any], index: int, changes: list[Change]) -> None:
        if index in self._unusable:
            raise UnusableRowError("its file cannot be used")
        self._drop_copy("images", row, index)
        mend_numbers(row, ("id", "height", "width"), changes)
        if index in self._file_sizes and not self._has_size[index]:
            changes.append(Change("width, height", "taken from the file", [row.get("width"), row.get("height")]))
            row["height"], row["width"] = self._file_sizes[index]

    def _mend_category(self, row: dict[str, Any], index: int, changes: list[Change]) -> None:
        self._drop_copy("categories", row, index)
        mend_numbers(row, ("id",), changes)
        if not isinstance(row.get("name"), str) or not row["name"].strip():
            changes.append(Change("name", f"set to category {row['id']}", row.get("name")))
            row["name"] = f"category {row['id']}"

    def _drop_copy(self, name: str, row: dict[str, Any], index: int) -> None:
        """Drop a row without an id, and one that stands there for the second time; others of its id are left alone."""
        rows = self._lists[name]
        number = rows.id_of(index)
        if number is None:
            raise UnusableRowError("no id")
        if number in self._repeated[name]:
            known = row.get("file_name" if name == "images" else "name")
            if (name, number) not in self._first_names:
                self._first_names[name, number] = known
            elif self._first_names[name, number] == known:
                raise UnusableRowError("the same as one before")

    def _log(self, rows: RowList, number: Any, position: int, changes: list[Change]) -> list[dict[str, Any]]:
        self.repairs.num_rows += bool(changes)
        for change in changes:
            kind = change.action.split(": ")[0] if not change.field else f"{change.field} {change.action}"
            self.repairs.counts[f"{rows.subject} {kind}"] += 1
        where = {"subject": rows.subject, "id": number if isinstance(number, int | str | float) else None}
        return [{**where, "index": position, **vars(change)} for change in changes]


def _unused_ids(rows: RowList) -> Iterator[int]:
    """Count up from the largest id, or, where that is too large for others' JSON readers, through the gaps."""
    largest = int(rows.column("id").max(initial=0))
    if largest + len(rows) < MOST_EXACT:
        return itertools.count(largest + 1)
    used = set(rows.column("id").tolist())
    return (number for number in itertools.count(1) if number not in used)


def _repeated_ids(rows: RowList) -> list[int]:
    ids = rows.column("id")[rows.column("has_id")]
    return [int(number) for number in np.unique(ids[repeats(ids)])]


def _known(annotations: RowList, name: str, rows: RowList, gone: set[int]) -> NDArray[np.bool_]:
    """Say of each annotation whether what it refers to will be there."""
    is_there = rows.column("has_id").copy()
    is_there[list(gone)] = False
    _, is_known = find_ids(annotations.column(name), rows.column("id")[is_there])
    return np.asarray(is_known & annotations.column(f"has_{name}"), np.bool_)
