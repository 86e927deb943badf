"""The exactly-once protocol under schedules of everything that can go wrong; many more are in ``tests/faults``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from maskrcnn.labelling import backlog, manifest, plan, protocol
from maskrcnn.labelling.backlog import Backlog
from maskrcnn.labelling.digests import Digests, Records, places_in
from maskrcnn.storage import PutAnswer
from tests.simulation.exploration import HeldBatches, check_invariants, check_reach, explore, explore_many
from tests.simulation.world import World

NUM_SCHEDULES = 3000
NUM_BATCHES = 8


@pytest.fixture(autouse=True)
def held_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "BatchSpill", HeldBatches)


@pytest.mark.parametrize("batch", range(NUM_BATCHES))
def test_no_schedule_breaks_an_invariant(batch: int) -> None:
    check_reach(explore_many(range(batch, NUM_SCHEDULES, NUM_BATCHES)))


def test_one_seed_is_one_schedule() -> None:
    first, second = explore(7)[0], explore(7)[0]
    assert first.parts == second.parts
    assert [p.token for p in first.plans.values()] == [p.token for p in second.plans.values()]


def test_a_protocol_that_trusts_a_lost_answer_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant the bug that the simulation exists for, and see it found."""

    def gullible(answer: PutAnswer, own_token: str, found_token: str | None) -> plan.Settled:
        return plan.Settled.THEIRS if answer is PutAnswer.EXISTS else plan.Settled.OURS

    monkeypatch.setattr(protocol, "settle_plan_put", gullible)
    assert _is_caught()


def test_a_protocol_that_forgets_to_subtract_again_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Backlog.subtract

    def forgetful(self: Backlog, planned: Iterable[Records]) -> None:
        if self.num_planned == 0:
            real(self, planned)

    monkeypatch.setattr(Backlog, "subtract", forgetful)
    assert _is_caught()


def test_a_protocol_that_skips_what_it_lost_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Backlog.subtract

    def hasty(self: Backlog, planned: Iterable[Records]) -> None:
        real(self, planned)
        self.advance()

    monkeypatch.setattr(Backlog, "subtract", hasty)
    assert _is_caught()


def test_a_protocol_that_retries_what_is_retried_already_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = backlog.next_attempts

    def stubborn(listed: Digests, planned: Records, failed: Records) -> np.ndarray[Any, np.dtype[np.int16]]:
        return np.where(places_in(listed, failed["digest"]) >= 0, np.int16(2), real(listed, planned, failed[:0]))

    monkeypatch.setattr(backlog, "next_attempts", stubborn)
    assert _is_caught()


def test_a_protocol_that_takes_an_answers_word_for_a_part_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = World.answer

    def gullible(self: World, request: object) -> object:
        answer = real(self, request)
        return answer | self.wrongly_there if isinstance(request, protocol.ListParts) else answer

    monkeypatch.setattr(World, "answer", gullible)
    assert _is_caught()


def _is_caught() -> bool:
    for seed in range(400):
        try:
            check_invariants(*explore(seed))
        except (AssertionError, KeyError):
            return True
    return False


def test_the_mask_of_current_rows_is_boolean_even_when_empty() -> None:
    empty = pa.table({"image_uri": pa.array([], pa.string()), "etag": pa.array([], pa.string())})
    assert plan.current_rows(empty).dtype == np.bool_
