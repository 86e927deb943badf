"""The exactly-once protocol as a conversation: which question the driver and the part maker ask next.

Generators that yield requests and are sent the answers. They perform nothing themselves: the job answers from a real
OUTPUT (``output.py``), the simulation in the tests from a store of its own with lost answers, late puts and kills, so
that what is explored there is what runs here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

from maskrcnn.errors import TRANSIENT_KINDS, UnavailableError
from maskrcnn.labelling.backlog import Backlog
from maskrcnn.labelling.plan import PartId, PlannedPart, Settled, complete_dates, parts_left, settle_plan_put
from maskrcnn.storage import PutAnswer

MAX_PUT_TRIES = 8

_Outcome = TypeVar("_Outcome")


@dataclass(frozen=True)
class ListPlans:
    """Which plans are there? Answer: their numbers, perhaps a moment old."""


@dataclass(frozen=True)
class ReadPlans:
    """What do these plans hold? Answer: digested keys and attempts, some at a time, of the listed dates at least."""

    numbers: range


@dataclass(frozen=True)
class ReadFailed:
    """Which rows have one of these errors? Answer: their digested keys and attempts, some at a time."""

    kinds: frozenset[str]


@dataclass(frozen=True)
class PutPlan:
    """Create this plan if absent. Answer: a PutAnswer."""

    number: int
    rows: pa.Table = field(repr=False)
    token: str


@dataclass(frozen=True)
class ReadToken:
    """Whose is this plan? Answer: its token, or None when it is not there."""

    number: int


@dataclass(frozen=True)
class ReadParts:
    """Which parts do these plans have? Answer: a list of PlannedPart."""

    numbers: range


@dataclass(frozen=True)
class ListParts:
    """Which parts does the table hold? Answer: a set of PartId, perhaps a moment old."""


@dataclass(frozen=True)
class MakeParts:
    """Label these parts. Answer: the set of PartId that are in the table now, by the word of those who made them."""

    parts: tuple[PlannedPart, ...]


@dataclass(frozen=True)
class PutComplete:
    """Say that every part of this date in the plans up to ``as_of_plan`` is made. Answer: None."""

    date: str | None
    as_of_plan: int
    parts: tuple[PlannedPart, ...]


@dataclass(frozen=True)
class PartExists:
    """Is this part in the table? Answer: a bool."""

    id: PartId


@dataclass(frozen=True)
class LabelPart:
    """Label the images of this part. Answer: a LabelledPart."""

    id: PartId


@dataclass(frozen=True)
class PutMarker:
    """Note that this part holds errors, so that planning finds them without reading parts. Answer: a PutAnswer."""

    id: PartId
    is_transient: bool


@dataclass(frozen=True)
class PutPart:
    """Create this part if absent. Answer: a PutAnswer."""

    id: PartId
    rows: Any = field(repr=False)


@dataclass(frozen=True)
class LabelledPart:
    """A part's rows, and what kinds of error are among them."""

    rows: Any = field(repr=False)
    error_kinds: frozenset[str]


@dataclass(frozen=True)
class Reconciled:
    """What a run leaves behind."""

    num_plans: int
    num_images_planned: int
    """By this run."""
    parts_planned: tuple[PlannedPart, ...] = field(repr=False)
    """In all plans."""
    parts_left: tuple[PlannedPart, ...]
    dates_complete: tuple[str | None, ...]


def converse(steps: Generator[Any, Any, _Outcome], answer: Callable[[Any], Any]) -> _Outcome:
    """Carry a conversation to its end, each request answered by ``answer``."""
    try:
        request = next(steps)
        while True:
            request = steps.send(answer(request))
    except StopIteration as stop:
        outcome: _Outcome = stop.value
        return outcome


def append_plans(backlog: Backlog, token: str, retry_kinds: Collection[str]) -> Generator[Any, Any, tuple[int, int]]:
    """Plan what no plan holds yet, in as many plans as it takes.

    Returns:
        The highest plan number, and how many images this call planned.
    """
    highest = yield from _catch_up(backlog, 0, 0)
    backlog.retry((yield ReadFailed(frozenset(retry_kinds))))
    num_images = 0
    while (rows := backlog.next_plan()) is not None:
        number = highest + 1
        if (yield from _put_plan(number, rows, token)) is Settled.OURS:
            backlog.advance()
            num_images += len(rows)
            highest = number
        else:
            # Another driver was faster: read its plan and subtract again.
            highest = yield from _catch_up(backlog, highest, number)
    return highest, num_images


def _catch_up(backlog: Backlog, highest: int, known: int) -> Generator[Any, Any, int]:
    """Subtract every plan beyond ``highest``, at least up to ``known``, and say which is the highest now."""
    listed = yield ListPlans()
    # A plan n + 1 is only ever put once n is there: a listing that misses one is old, not right.
    newest: int = max([known, *listed])
    if newest > highest:
        backlog.subtract((yield ReadPlans(range(highest + 1, newest + 1))))
    return newest


def _put_plan(number: int, rows: pa.Table, token: str) -> Generator[Any, Any, Settled]:
    """Put a plan until it is settled whose it is: a lost answer is resolved by reading back."""
    for _ in range(MAX_PUT_TRIES):
        answer = yield PutPlan(number, rows, token)
        found = None if answer is PutAnswer.CREATED else (yield ReadToken(number))
        settled = settle_plan_put(answer, token, found)
        if settled is not Settled.NOBODYS:
            return settled
    raise UnavailableError(f"plan {number}", f"could not be written in {MAX_PUT_TRIES} tries")


def run_driver(backlog: Backlog, token: str, retry_kinds: Collection[str]) -> Generator[Any, Any, Reconciled]:
    """Do a whole run: plan what is new, make every part that is missing, reconcile, mark what is complete.

    Nothing is labelled before all is planned: a plan that follows may hold the same date.
    """
    num_plans, num_images = yield from append_plans(backlog, token, retry_kinds)
    planned = yield ReadParts(range(1, num_plans + 1))
    made: set[PartId] = set((yield ListParts()))
    left = parts_left(planned, made)
    if left:
        said: set[PartId] = yield MakeParts(tuple(left))
        made |= yield ListParts()
        # An answer to a put may be wrong, so that the listing alone decides; as it may be old, it is asked once more.
        if not said <= made:
            made |= yield ListParts()
    complete = complete_dates(planned, made)
    for date, parts in complete.items():
        yield PutComplete(date, num_plans, tuple(parts))
    return Reconciled(num_plans, num_images, tuple(planned), tuple(parts_left(planned, made)), tuple(complete))


def make_part(part_id: PartId) -> Generator[Any, Any, LabelledPart | None]:
    """Make one part, whoever else does the same.

    Returns:
        What was labelled, or None when the part was there already.
    """
    if (yield PartExists(part_id)):
        return None
    labelled: LabelledPart = yield LabelPart(part_id)
    # Markers before the part: once the part is there, nobody comes back to mark it.
    for is_transient in (True, False):
        if any((kind in TRANSIENT_KINDS) is is_transient for kind in labelled.error_kinds):
            yield from _put_until_there(PutMarker(part_id, is_transient))
    yield from _put_until_there(PutPart(part_id, labelled.rows))
    return labelled


def _put_until_there(request: PutMarker | PutPart) -> Generator[Any, Any, None]:
    """Repeat a create-if-absent put whose answer got lost: once anybody's is there, it is done."""
    for _ in range(MAX_PUT_TRIES):
        if (yield request) is not PutAnswer.UNKNOWN:
            return
    raise UnavailableError(request.id.file_name, f"could not be written in {MAX_PUT_TRIES} tries")
