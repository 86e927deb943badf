"""The OUTPUT folder of a labelling job: where everything lies, and the reads and puts that the protocol asks for.

    OUTPUT/plans/000001.parquet                                  one row group a part; a header says whose it is
    OUTPUT/table/[date=2026-11-22/]part-000001-00042.parquet     the predictions
    OUTPUT/errors/transient|permanent/[date=…/]part-000001-00042 empty: this part holds such errors, come and read it
    OUTPUT/complete/<date or "all">.json                         every planned part of that date exists
    OUTPUT/complete/<date or "all">.sample.json                  the same, where only a sample of that date was planned
    OUTPUT/runs/<run id>.json                                    what a run did

Nothing in plans/, table/ and errors/ is ever overwritten or deleted.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from maskrcnn import storage
from maskrcnn.errors import TRANSIENT_KINDS, AccessError, NotFoundError, OutputError
from maskrcnn.labelling.digests import RECORD, Records, digest_attempts
from maskrcnn.labelling.plan import PLANNED_COLUMNS, PartId, PlannedPart, parse_part_id
from maskrcnn.labelling.plan_files import PlanFile, PlanHeader, plan_to_parquet, read_plan
from maskrcnn.redaction import redact_values
from maskrcnn.storage import PutAnswer

FILES_AT_ONCE = 16
ROWS_A_READER = 1 << 18
"""Of a plan; more of them are read by several threads."""
ROWS_AT_ONCE = 1 << 14
"""That a thread holds as text."""

_PLAN_FILE = re.compile(r"/plans/(\d{6,})\.parquet$")
_MARKER_FILE = re.compile(r"/(?:date=([^/]+)/)?(part-\d{6}-\d{5,})$")

_T = TypeVar("_T")
_R = TypeVar("_R")


class Output:
    """One OUTPUT folder on any URI."""

    def __init__(self, uri: str) -> None:
        self.uri = storage.normalise(uri)
        self._headers: dict[int, PlanHeader] = {}

    def plan_uri(self, number: int) -> str:
        """Where a plan lies."""
        return storage.join(self.uri, "plans", f"{number:06d}.parquet")

    def part_uri(self, part: PlannedPart) -> str:
        """Where a part of the table lies."""
        return storage.join(self.uri, "table", *_date_folder(part.date), part.id.file_name)

    def list_plans(self) -> list[int]:
        """List the numbers of the plans."""
        uris = storage.list_uris(storage.join(self.uri, "plans"))
        return [int(match[1]) for uri in uris if (match := _PLAN_FILE.search(uri))]

    def put_plan(self, number: int, rows: pa.Table, header: PlanHeader) -> PutAnswer:
        """Create a plan if absent."""
        return storage.put_if_absent(self.plan_uri(number), plan_to_parquet(rows, header))

    def header(self, number: int) -> PlanHeader:
        """Read a plan's header; plans never change, so each is read once."""
        if number not in self._headers:
            self._headers[number] = read_plan(self.plan_uri(number), lambda plan: plan.header)
        return self._headers[number]

    def read_token(self, number: int) -> str | None:
        """Say whose plan this is; None when it is not there."""
        try:
            return self.header(number).token
        except NotFoundError:
            return None

    def read_planned(self, numbers: Sequence[int], dates: Collection[str | None]) -> Iterator[Records]:
        """Read the keys and attempts that plans hold for some dates, as digests, a bounded number at a time."""
        slices = (
            slice_
            for number, header in zip(numbers, _in_parallel(self.header, numbers), strict=True)
            for slice_ in _slices([part for part in header.parts(number) if part.date in dates], ROWS_A_READER)
        )
        return _in_parallel(self._read_planned, slices)

    def _read_planned(self, parts: list[PlannedPart]) -> Records:
        def read(plan: PlanFile) -> Records:
            some_at_once = _slices(parts, ROWS_AT_ONCE)
            rows = (plan.read([part.id.part for part in some], PLANNED_COLUMNS) for some in some_at_once)
            return np.concatenate([digest_attempts(some) for some in rows])

        return read_plan(self.plan_uri(parts[0].id.plan), read)

    def read_uris(self, parts: Collection[PlannedPart]) -> set[str]:
        """Read which images some parts are planned to hold."""

        def read(number: int) -> list[str]:
            places = [part.id.part for part in parts if part.id.plan == number]
            rows = read_plan(self.plan_uri(number), lambda plan: plan.read(places, ["image_uri"]))
            return list(rows["image_uri"].to_pylist())

        return {uri for number in sorted({part.id.plan for part in parts}) for uri in read(number)}

    def read_parts(self, numbers: Sequence[int]) -> list[PlannedPart]:
        """List the parts of some plans."""
        headers = _in_parallel(self.header, numbers)
        return [part for number, header in zip(numbers, headers, strict=True) for part in header.parts(number)]

    def list_parts(self) -> set[PartId]:
        """List the parts that the table holds."""
        found: set[PartId] = set()
        for batch in storage.list_batches(storage.join(self.uri, "table")):
            found.update(part_id for uri in batch.column("uri").to_pylist() if (part_id := parse_part_id(uri)))
        return found

    def put_marker(self, part: PlannedPart, *, is_transient: bool) -> PutAnswer:
        """Note that a part holds errors of a kind."""
        return storage.put_if_absent(self._marker_uri(part, is_transient), b"")

    def _marker_uri(self, part: PlannedPart, is_transient: bool) -> str:
        name = part.id.file_name.removesuffix(".parquet")
        return storage.join(self.uri, "errors", _persistence(is_transient), *_date_folder(part.date), name)

    def read_failed(self, kinds: Collection[str], dates: Collection[str | None]) -> Iterator[Records]:
        """Read which keys and attempts have one of these errors, as digests; only parts that are marked are opened."""
        persistences = {_persistence(kind in TRANSIENT_KINDS) for kind in kinds}
        part_uris: set[str] = set()
        for persistence in persistences:
            for uri in storage.list_uris(storage.join(self.uri, "errors", persistence)):
                match = _MARKER_FILE.search(uri)
                if match and match[1] in dates:
                    folder = (f"date={match[1]}",) if match[1] else ()
                    part_uris.add(storage.join(self.uri, "table", *folder, f"{match[2]}.parquet"))
        return _in_parallel(lambda uri: _read_failed(uri, kinds), sorted(part_uris))

    def list_complete(self) -> set[str]:
        """List the dates, and "all", that have a completion marker, under the markers' names."""
        uris = storage.list_uris(storage.join(self.uri, "complete"))
        return {uri.rsplit("/", 1)[-1].removesuffix(".json") for uri in uris}

    def put_complete(
        self,
        date: str | None,
        as_of_plan: int,
        parts: Collection[PlannedPart],
        run_id: str,
        *,
        is_sample: bool = False,
    ) -> None:
        """Say that a date is complete, unless that has been said of as many parts or by a newer plan's run.

        Args:
            date: of the parts.
            as_of_plan: the newest plan.
            parts: all that are planned of that date; they are in the table.
            run_id: who says so.
            is_sample: whether only a sample of the date's images was planned: said under another name, since whoever
                waits for the date's file waits for all of its images.
        """
        uri = storage.join(self.uri, "complete", f"{complete_name(date, is_sample=is_sample)}.json")
        try:
            said = json.loads(storage.read_bytes(uri))
            if said["plans"] >= as_of_plan or said["parts"] == len(parts):
                return
        except (NotFoundError, ValueError, KeyError):
            pass
        report = {
            "date": date,
            "plans": as_of_plan,
            "parts": len(parts),
            "images": sum(part.num_images for part in parts),
            "run_id": run_id,
        }
        storage.put(uri, json.dumps(report, indent=2).encode())

    def put_run(self, run_id: str, record: dict[str, Any]) -> str:
        """Write a run's record and say where."""
        uri = storage.join(self.uri, "runs", f"{run_id}.json")
        storage.put(uri, json.dumps(redact_values(record), indent=2, default=str).encode())
        return uri

    def check_settings(self, settings: dict[str, Any]) -> None:
        """Refuse to go on with another bundle or threshold than the plans record.

        Raises:
            OutputError: naming the first setting that differs; or when the output cannot be listed.
        """
        try:
            numbers = self.list_plans()
        except (AccessError, NotFoundError) as error:
            raise OutputError("--output", f"cannot be listed: {error.reason}", error.uri) from error
        if numbers:
            self.refuse_other_settings([max(numbers)], settings)

    def refuse_other_settings(self, numbers: Sequence[int], settings: dict[str, Any]) -> None:
        """Refuse plans that record another bundle or threshold.

        Raises:
            OutputError: naming the first setting that differs.
        """
        for header in _in_parallel(self.header, numbers):
            for name, value in settings.items():
                if header.settings.get(name) != value:
                    rule = f"was {header.settings.get(name)} when this output was begun, and is {value} now"
                    raise OutputError(name, rule, self.uri, "take the same as before, or another --output")


def complete_name(date: str | None, *, is_sample: bool = False) -> str:
    """Name a date in completion markers and records."""
    return ("all" if date is None else date) + (".sample" if is_sample else "")


def _slices(parts: list[PlannedPart], num_images: int) -> Iterator[list[PlannedPart]]:
    """Cut parts into lists of at most ``num_images`` images, or of one part."""
    ends = np.cumsum([part.num_images for part in parts])
    start = 0
    while start < len(parts):
        before = ends[start - 1] if start else 0
        end = max(int(np.searchsorted(ends, before + num_images, side="right")), start + 1)
        yield parts[start:end]
        start = end


def _read_failed(part_uri: str, kinds: Collection[str]) -> Records:
    try:
        with storage.open_input(part_uri) as file:
            part = pq.ParquetFile(file, page_checksum_verification=True)
            rows = part.read(columns=[*PLANNED_COLUMNS, "error_kind"])
    except NotFoundError:  # marked, and its worker died before the part was put
        return np.zeros(0, RECORD)
    return digest_attempts(rows.filter(pc.is_in(rows["error_kind"], value_set=pa.array(list(kinds), pa.string()))))


def _persistence(is_transient: bool) -> str:
    return "transient" if is_transient else "permanent"


def _date_folder(date: str | None) -> tuple[str, ...]:
    return () if date is None else (f"date={date}",)


def _in_parallel(function: Callable[[_T], _R], items: Iterable[_T]) -> Iterator[_R]:
    """Apply a function in threads, in order; only a few results ever wait for their reader."""
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        running: deque[Future[_R]] = deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) == FILES_AT_ONCE:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
