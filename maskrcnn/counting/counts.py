"""Instances by night, group and category, added up while the table streams by, without its masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskrcnn.errors import InputError
from maskrcnn.labelling.current import CurrentRows
from maskrcnn.labelling.dates import iso_dates
from maskrcnn.labelling.groups import DATE, Group, Grouping, groups_of

Cell = tuple[str | None, Group]
"""A night and a group, without the date."""

COUNT_FIELDS = (
    pa.field("category_id", pa.int32()),
    pa.field("category", pa.string()),
    pa.field("num_images", pa.int64()),
    pa.field("num_failed", pa.int64()),
    pa.field("num_instances", pa.int64()),
    pa.field("num_images_with", pa.int64()),
    pa.field("mean_per_image", pa.float64()),
    pa.field("mean_score", pa.float64()),
)
FAILED = -1

_ROWS_AT_ONCE = 1024
_NUM_INSTANCES, _NUM_IMAGES_WITH, _SUM_SCORES = range(3)


@dataclass(frozen=True)
class Counts:
    """What a table holds; a few bytes an image, and more for each night, group and category."""

    group_names: tuple[str, ...]
    cells: list[Cell]
    num_images: NDArray[np.int64]
    """(num_cells,) labelled ones."""
    num_failed: NDArray[np.int64]
    """(num_cells,)"""
    categories: dict[int, str]
    """That occur, name by id, in order of the id."""
    sums: NDArray[np.float64]
    """(num_cells, num_categories, 3) instances, images with any, and summed scores."""
    image_cells: NDArray[np.int32]
    """(N,) of the table's current rows: the image's cell."""
    image_counts: NDArray[np.int32]
    """(N,) its instances, `FAILED` where it could not be labelled."""

    @property
    def dates(self) -> list[str]:
        """Give the nights that the table knows, in order."""
        return sorted({date for date, _ in self.cells if date is not None})

    @property
    def num_undated(self) -> int:
        """Count the images that are in no night, where there are nights."""
        is_undated = np.array([date is None for date, _ in self.cells], np.bool_)
        return int((self.num_images + self.num_failed)[is_undated].sum()) if self.dates else 0

    def to_table(self) -> pa.Table:
        """Give one row a night, group and category: of every category that occurs anywhere, so that 0 is a row too.

        Where no category occurs, each night and group has one row with a null category.
        """
        order = sorted(range(len(self.cells)), key=lambda place: _sort_key(self.cells[place]))
        ids: list[int | None] = list(self.categories) or [None]
        names = [None if one is None else self.categories[one] for one in ids]
        repeated = np.repeat(order, len(ids))
        columns: dict[str, Any] = {DATE: [self.cells[place][0] for place in repeated]}
        for index, name in enumerate(self.group_names):
            columns[name] = [self.cells[place][1][index] for place in repeated]
        sums = self.sums if self.categories else np.zeros((len(self.cells), 1, 3))
        num_instances, num_with, scores = sums[order].reshape(-1, 3).T
        num_images = self.num_images[repeated]
        values = {
            "category_id": ids * len(order),
            "category": names * len(order),
            "num_images": num_images,
            "num_failed": self.num_failed[repeated],
            "num_instances": num_instances.astype(np.int64),
            "num_images_with": num_with.astype(np.int64),
            "mean_per_image": _mean(num_instances, num_images),
            "mean_score": _mean(scores, num_instances),
        }
        texts = [pa.field(name, pa.string()) for name in columns]
        return pa.table(columns | values, schema=pa.schema([*texts, *COUNT_FIELDS]))


def count_instances(
    rows: CurrentRows, grouping: Grouping, on_progress: Callable[[int, int], None] = lambda num_done, num_images: None
) -> Counts:
    """Count the instances of a table.

    Args:
        rows: the table.
        grouping: of its images; a group named date stands for the table's folders by date.
        on_progress: told the images read so far, and all there are.

    Raises:
        InputError: a group named date that finds what is no date.
    """
    tally = _Tally(grouping)
    columns = tuple(dict.fromkeys((*grouping.columns_read, "status", "instances", DATE)))
    for places, batch in rows.batches(columns, batch_size=_ROWS_AT_ONCE):
        tally.add(batch)
        on_progress(int(places[-1]) + 1, len(rows))
    return tally.counts()


class _Tally:
    def __init__(self, grouping: Grouping) -> None:
        self._grouping = grouping
        self._names = tuple(name for name in grouping.names if name != DATE)
        self._cells: dict[Cell, int] = {}
        self._categories: dict[int, str] = {}
        self._sums: dict[tuple[int, int], NDArray[np.float64]] = {}
        self._image_cells: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
        self._image_counts: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]

    def add(self, batch: pa.Table) -> None:
        cells = self._cells_of(batch)
        is_ok = pc.equal(batch["status"], "ok").to_numpy()
        counts = pc.fill_null(pc.list_value_length(batch["instances"]), 0).to_numpy()
        self._image_cells.append(cells)
        self._image_counts.append(np.where(is_ok, counts, FAILED).astype(np.int32))
        instances = pc.list_flatten(batch["instances"]).combine_chunks()
        ids = instances.field("category_id").to_numpy().astype(np.int64)
        for category_id, place in zip(*(found.tolist() for found in np.unique(ids, return_index=True)), strict=True):
            self._categories.setdefault(category_id, instances.field("category")[place].as_py())
        of_image = np.repeat(np.arange(len(batch)), counts)
        images_and_ids, places, repeats = np.unique(
            np.stack([of_image, ids], axis=1), axis=0, return_inverse=True, return_counts=True
        )
        scores = np.bincount(places.reshape(-1), instances.field("score").to_numpy(), minlength=len(images_and_ids))
        keys = np.stack([cells[images_and_ids[:, 0]], images_and_ids[:, 1]], axis=1)
        found, places = np.unique(keys, axis=0, return_inverse=True)
        sums = np.zeros((len(found), 3))
        np.add.at(sums, places.reshape(-1), np.stack([repeats, np.ones(len(repeats)), scores], axis=1))
        for (cell, category_id), numbers in zip(found.tolist(), sums, strict=True):
            key = (cell, category_id)
            self._sums[key] = self._sums[key] + numbers if key in self._sums else numbers

    def _cells_of(self, batch: pa.Table) -> NDArray[np.int32]:
        labels = self._grouping.label(batch)
        dates = (_read_dates(labels[DATE]) if DATE in labels.column_names else batch[DATE]).to_pylist()
        groups = groups_of(labels, self._names)
        cells = [self._cells.setdefault(cell, len(self._cells)) for cell in zip(dates, groups, strict=True)]
        return np.array(cells, np.int32)

    def counts(self) -> Counts:
        image_cells, image_counts = np.concatenate(self._image_cells), np.concatenate(self._image_counts)
        categories = dict(sorted(self._categories.items()))
        numbers = {category_id: number for number, category_id in enumerate(categories)}
        sums = np.zeros((len(self._cells), len(categories), 3))
        for (cell, category_id), some in self._sums.items():
            sums[cell, numbers[category_id]] = some
        is_failed = image_counts == FAILED
        return Counts(
            self._names,
            list(self._cells),
            np.bincount(image_cells[~is_failed], minlength=len(self._cells)),
            np.bincount(image_cells[is_failed], minlength=len(self._cells)),
            categories,
            sums,
            image_cells,
            image_counts,
        )


def _read_dates(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give dates one form, so that their text has the order of time."""
    dates = iso_dates(texts)
    wrong = texts.filter(pc.and_(pc.is_valid(texts), pc.is_null(dates)))
    if len(wrong):
        raise InputError("--by", f"must find dates as 2026-11-22 or 20261122 in its group date, and finds {wrong[0]}")
    return dates


def _mean(sums: NDArray[np.float64], counts: NDArray[Any]) -> pa.Array:
    """Divide; null where there is nothing to divide by."""
    return pa.array(sums / np.maximum(counts, 1), mask=counts == 0)


def _sort_key(cell: Cell) -> tuple[Any, ...]:
    date, group = cell
    return (date is not None, date or "", *((value is not None, value or "") for value in group))
