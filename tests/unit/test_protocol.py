from __future__ import annotations

from typing import Any

import pytest

from maskrcnn.labelling import protocol
from maskrcnn.labelling.backlog import Backlog
from maskrcnn.labelling.manifest import Manifest
from maskrcnn.labelling.plan import PartId, PlannedPart

PARTS = [PlannedPart(PartId(1, 0), None, 2), PlannedPart(PartId(1, 1), None, 1)]
ALL = {part.id for part in PARTS}


def drive(listings: list[set[PartId]], said: set[PartId]) -> tuple[protocol.Reconciled, list[Any]]:
    """Run a driver over a plan that is there; gives its requests as well."""
    asked: list[Any] = []
    left = list(listings)

    def answer(request: Any) -> Any:
        asked.append(request)
        match request:
            case protocol.ListPlans():
                return [1]
            case protocol.ReadParts():
                return PARTS
            case protocol.ListParts():
                return left.pop(0)
            case protocol.MakeParts():
                return said
            case protocol.ReadPlans() | protocol.ReadFailed():
                return []
            case protocol.PutComplete():
                return None
        raise AssertionError(request)

    outcome = protocol.converse(protocol.run_driver(Backlog(Manifest([]), 2), "me", ()), answer)
    assert left == []
    return outcome, asked


def is_marked(asked: list[Any]) -> bool:
    return any(isinstance(request, protocol.PutComplete) for request in asked)


def test_a_part_that_only_an_answer_says_is_there_completes_no_date() -> None:
    outcome, asked = drive([set(), {PARTS[0].id}, {PARTS[0].id}], said=ALL)
    assert outcome.parts_left == (PARTS[1],)
    assert outcome.dates_complete == ()
    assert not is_marked(asked)


@pytest.mark.parametrize("listings", [[set(), ALL], [set(), {PARTS[0].id}, ALL], [{PARTS[0].id}, {PARTS[1].id}]])
def test_a_date_is_complete_when_listings_show_all_its_parts(listings: list[set[PartId]]) -> None:
    outcome, asked = drive(listings, said=ALL)
    assert outcome.parts_left == ()
    assert outcome.dates_complete == (None,)
    assert is_marked(asked)


def test_parts_that_nobody_says_are_made_are_not_listed_for_again() -> None:
    outcome, _ = drive([set(), {PARTS[0].id}], said={PARTS[0].id})
    assert outcome.parts_left == (PARTS[1],)
