"""The backlog of a run: which listed images no plan holds yet, handed out in lots of a plan each.

Holds one lot and two bytes a listed image; what is planned and what has failed is known by digests, on disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from maskrcnn.labelling.digests import Records, build_records, digest
from maskrcnn.labelling.manifest import Manifest
from maskrcnn.labelling.plan import cut_plan, next_attempts
from maskrcnn.labelling.spill import RecordSpill, in_groups

MAX_ROWS_PER_PLAN = 1_000_000

_Rows = np.ndarray[Any, np.dtype[np.int64]]


class Backlog:
    """What is left to plan.

    Args:
        manifest: what there is.
        rows_per_part: images in a part, at most; a part has one date.
        max_rows: images in a plan, at most, in whole parts.
    """

    def __init__(self, manifest: Manifest, rows_per_part: int, max_rows: int = MAX_ROWS_PER_PLAN) -> None:
        self._manifest = manifest
        self._rows_per_part = rows_per_part
        self._max_rows = max(max_rows // rows_per_part, 1) * rows_per_part
        self._planned, self._failed = RecordSpill(), RecordSpill()
        self._listed: RecordSpill | None = None
        self._attempts: np.ndarray[Any, np.dtype[np.int16]] | None = None
        self._unread = manifest.batches()
        self._num_read = 0
        self._read: list[tuple[pa.RecordBatch, _Rows]] = []
        """Rows that are perhaps still to be planned, each batch with the places of its rows in the manifest."""

    @property
    def num_planned(self) -> int:
        """How many rows plans hold, as far as they were subtracted."""
        return len(self._planned)

    def subtract(self, planned: Iterable[Records]) -> None:
        """Take what other plans hold off the backlog.

        Args:
            planned: digests of keys and their attempts, for the manifest's dates at least.
        """
        for records in planned:
            self._planned.add(records)
        self._attempts = None

    def retry(self, failed: Iterable[Records]) -> None:
        """Put what failed on the backlog, unless it is planned again already or no longer listed.

        Args:
            failed: digests of keys and their attempts.
        """
        for records in failed:
            self._failed.add(records)
        self._attempts = None

    def next_plan(self) -> pa.Table | None:
        """Give the next plan's rows: the manifest's columns, attempt (int16) and part (int32), in part order.

        The same rows again, less what was subtracted since, until ``advance``. None: nothing is left.
        """
        if self._attempts is None:
            self._attempts = self._decide()
        attempts = self._attempts
        self._read = [due for batch, rows in self._read if (due := _due(batch, rows, attempts))]
        num_due = sum(len(rows) for _, rows in self._read)
        while num_due < self._max_rows and (batch := next(self._unread, None)) is not None:
            rows = np.arange(self._num_read, self._num_read + len(batch))
            self._num_read += len(batch)
            if due := _due(batch, rows, attempts):
                self._read.append(due)
                num_due += len(due[1])
        if num_due == 0:
            return None
        lot = pa.Table.from_batches([batch for batch, _ in self._read]).slice(0, self._max_rows).unify_dictionaries()
        places = np.concatenate([rows for _, rows in self._read])[: self._max_rows]
        return cut_plan(lot.append_column("attempt", pa.array(attempts[places])), self._rows_per_part)

    def advance(self) -> None:
        """Take the plan that ``next_plan`` gave off the backlog: it is appended."""
        num_planned = self._max_rows
        left: list[tuple[pa.RecordBatch, _Rows]] = []
        for batch, rows in self._read:
            if len(rows) > num_planned:
                left.append((batch.slice(num_planned), rows[num_planned:]))
            num_planned = max(num_planned - len(rows), 0)
        self._read = left

    def _decide(self) -> np.ndarray[Any, np.dtype[np.int16]]:
        """Say which attempt at each listed image is to be planned now, 0 for none."""
        attempts = np.ones(self._manifest.num_images, np.int16)
        if len(self._planned) == 0:
            return attempts
        if self._listed is None:
            self._listed = _digest_manifest(self._manifest)
        for listed, planned, failed in in_groups(self._listed, self._planned, self._failed):
            attempts[listed["number"]] = next_attempts(listed["digest"], planned, failed)
        return attempts


def _digest_manifest(manifest: Manifest) -> RecordSpill:
    spill, num_read = RecordSpill(), 0
    for batch in manifest.batches():
        numbers = np.arange(num_read, num_read + len(batch))
        spill.add(build_records(digest(batch["image_uri"], batch["etag"]), numbers))
        num_read += len(batch)
    return spill


def _due(
    batch: pa.RecordBatch, rows: _Rows, attempts: np.ndarray[Any, np.dtype[np.int16]]
) -> tuple[pa.RecordBatch, _Rows] | None:
    is_due = attempts[rows] > 0
    if is_due.all():
        return batch, rows
    return (batch.filter(pa.array(is_due)), rows[is_due]) if is_due.any() else None
