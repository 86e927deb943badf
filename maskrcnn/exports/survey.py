"""A first look over the table, without masks: what is exported, under which numbers, and what there is to say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskrcnn.exports.selection import Selection, draw_sample, mean_scores, number_rows
from maskrcnn.exports.settings import ExportConfig
from maskrcnn.labelling.current import CurrentRows

COLUMNS = ("image_uri", "image_id", "status", "instances", "score_threshold")
BATCH_SIZE = 256


@dataclass(frozen=True)
class Survey:
    """What a table holds and what of it is exported; a few bytes an image."""

    numbers: NDArray[np.int64]
    """(num_rows,) of the table's current rows: the exported image's number from 0, -1 where it is not exported."""
    table_ids: NDArray[np.int64] | None
    """(num_rows,) image ids of the table, where every labelled image has one and no two share one."""
    num_failed: int
    """Images that the job could not label."""
    categories: dict[int, str]
    """That occur, name by id."""
    first_uri: str
    last_uri: str
    """Of the labelled images, in order of their text."""
    lowest_score_threshold: float
    """That any part was labelled with."""

    @property
    def num_images(self) -> int:
        """How many images are exported."""
        return int((self.numbers >= 0).sum())


def survey_rows(rows: CurrentRows, config: ExportConfig, selection: Selection) -> Survey:
    """Read everything but masks, once."""
    look = _Look(selection)
    for _, batch in rows.batches(COLUMNS, batch_size=BATCH_SIZE):
        look.add(batch)
    certainties = np.concatenate([np.zeros(0), *look.certainties])
    is_ok = np.concatenate([np.zeros(0, np.bool_), *look.is_ok])
    ids = np.concatenate([np.zeros(0, np.int64), *look.ids])
    has_ids = look.every_has_id and len(np.unique(ids[is_ok])) == is_ok.sum()
    sample = None if config.sample is None else draw_sample(certainties, config.sample, config.sample_by, config.seed)
    return Survey(
        numbers=number_rows(is_ok, sample),
        table_ids=ids if has_ids else None,
        num_failed=int((~is_ok).sum()),
        categories=look.categories,
        first_uri=look.first_uri or "",
        last_uri=look.last_uri or "",
        lowest_score_threshold=look.lowest_score_threshold,
    )


class _Look:
    """What was seen so far."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self.is_ok: list[NDArray[np.bool_]] = []
        self.ids: list[NDArray[np.int64]] = []
        self.certainties: list[NDArray[np.float64]] = []
        self.categories: dict[int, str] = {}
        self.every_has_id = True
        self.first_uri: str | None = None
        self.last_uri: str | None = None
        self.lowest_score_threshold = 1.0

    def add(self, batch: pa.Table) -> None:
        is_ok = pc.equal(batch["status"], "ok").to_numpy()
        self.is_ok.append(is_ok)
        self.ids.append(pc.fill_null(batch["image_id"], -1).to_numpy())
        labelled = batch.filter(pa.array(is_ok))
        if not len(labelled):
            return
        self.every_has_id &= labelled["image_id"].null_count == 0
        uris = pc.min_max(labelled["image_uri"]).as_py()
        self.first_uri = min(self.first_uri or uris["min"], uris["min"])
        self.last_uri = max(self.last_uri or uris["max"], uris["max"])
        threshold = pc.min(labelled["score_threshold"]).as_py()
        self.lowest_score_threshold = min(self.lowest_score_threshold, threshold)
        instances = pc.list_flatten(labelled["instances"])
        scores, category_ids = (pc.struct_field(instances, name).to_numpy() for name in ("score", "category_id"))
        add_categories(self.categories, instances, category_ids)
        is_selected = self._selection.marks(scores, category_ids, self.categories)
        counts = pc.list_value_length(labelled["instances"]).to_numpy()
        self.certainties.append(mean_scores(scores, is_selected, counts))


def add_categories(categories: dict[int, str], instances: pa.ChunkedArray, category_ids: NDArray[Any]) -> None:
    """Note the names of categories that were not seen before."""
    found, places = np.unique(category_ids, return_index=True)
    for category_id, place in zip(found.tolist(), places.tolist(), strict=True):
        if category_id not in categories:
            categories[category_id] = instances[place]["category"].as_py()
