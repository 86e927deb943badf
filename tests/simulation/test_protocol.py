"""The exactly-once protocol under thousands of schedules of everything that can go wrong.

``PROTOCOL_SCHEDULES`` sets how many schedules are explored (a million overnight, a few thousand here).
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from maskrcnn.labelling import backlog, plan, protocol
from maskrcnn.labelling.backlog import Backlog
from maskrcnn.labelling.digests import Digests, Records, places_in
from maskrcnn.storage import PutAnswer
from tests.simulation import world as sim

NUM_SCHEDULES = int(os.environ.get("PROTOCOL_SCHEDULES", "3000"))
NUM_BATCHES = 8


def draw_manifests(rng: random.Random) -> list[pa.Table]:
    """Draw what two or three drivers list: a growing folder in which now and then an image changes."""
    dates: dict[str, str | None] = {f"img-{i}": rng.choice([None, "2026-11-22", "2026-11-23"]) for i in range(10)}
    versions = dict.fromkeys(rng.sample(sorted(dates), rng.choice([4, 8])), "v1")
    manifests = []
    for _ in range(rng.choice([2, 3])):
        manifests.append(sim.manifest_table(versions, dates))
        versions = dict(versions)
        for uri in dates:
            if uri not in versions and rng.random() < 0.4:
                versions[uri] = "v1"
            elif uri in versions and rng.random() < 0.15:
                versions[uri] = f"v{int(versions[uri][1:]) + 1}"
    return manifests


def explore(seed: int) -> tuple[sim.World, list[pa.Table]]:
    rng = random.Random(seed)
    world = sim.World(rng, sim.Chances.draw(rng))
    manifests = draw_manifests(rng)
    sim.simulate(world, manifests)
    return world, manifests


def check_invariants(world: sim.World, manifests: list[pa.Table]) -> None:
    planned = [(row["image_uri"], row["etag"], row["attempt"]) for p in world.plans.values() for row in p.rows]
    assert max(Counter(planned).values()) == 1, "a key is planned twice"
    assert sorted(world.plans) == list(range(1, len(world.plans) + 1)), "the plan log has a hole"

    last = manifests[-1].to_pylist()
    attempts: dict[tuple[str, str], list[int]] = {}
    for uri, etag, attempt in planned:
        attempts.setdefault((uri, etag), []).append(attempt)
    for row in last:
        assert (row["image_uri"], row["etag"]) in attempts, "a listed key is in no plan"
    for tries in attempts.values():
        assert sorted(tries) == list(range(1, len(tries) + 1)), "attempts have a hole"

    for number, one_plan in world.plans.items():
        for part in one_plan.parts(number):
            assert part.id in world.parts, "a planned part is missing after an undisturbed run"
            assert part.num_images <= sim.ROWS_PER_PART
            rows = [(row.image_uri, row.etag, row.attempt) for row in world.parts[part.id]]
            keys = [(r["image_uri"], r["etag"], r["attempt"]) for r in one_plan.rows if r["part"] == part.id.part]
            assert rows == keys, "a part's rows are not its plan's keys"
            assert len({r["date"] for r in one_plan.rows if r["part"] == part.id.part}) == 1

    check_current(world, last)


def check_current(world: sim.World, listed: list[dict[str, str]]) -> None:
    rows = [(part_id.plan, row) for part_id, part in world.parts.items() for row in part]
    table = pa.table(
        {
            "image_uri": [row.image_uri for _, row in rows],
            "etag": [row.etag for _, row in rows],
            "attempt": pa.array([row.attempt for _, row in rows], pa.int16()),
            "plan": pa.array([number for number, _ in rows], pa.int64()),
        }
    )
    mask = plan.current_rows(table)
    current = Counter(row.image_uri for (_, row), is_current in zip(rows, mask, strict=True) if is_current)
    assert set(current.values()) == {1}, "an image has two current rows"
    assert set(current) == {row.image_uri for _, row in rows}, "an image has no current row"
    highest = {(row.image_uri, row.etag): 0 for _, row in rows}
    for _, row in rows:
        highest[row.image_uri, row.etag] = max(highest[row.image_uri, row.etag], row.attempt)
    assert all(
        row.attempt == highest[row.image_uri, row.etag] for (_, row), is_cur in zip(rows, mask, strict=True) if is_cur
    )


class WatchedWorld(sim.World):
    """Checks at the very moment of the claim that what is called complete is complete."""

    def answer(self, request: object) -> object:
        if isinstance(request, protocol.PutComplete):
            parts = [part for n in range(1, request.as_of_plan + 1) for part in self.plans[n].parts(n)]
            of_date = [part for part in parts if part.date == request.date]
            assert sorted(request.parts, key=lambda p: p.id) == sorted(of_date, key=lambda p: p.id)
            assert all(part.id in self.parts for part in of_date), "complete was said too early"
        return super().answer(request)


@pytest.mark.parametrize("batch", range(NUM_BATCHES))
def test_no_schedule_breaks_an_invariant(batch: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(batch, NUM_SCHEDULES, NUM_BATCHES):
        rng = random.Random(seed)
        world = WatchedWorld(rng, sim.Chances.draw(rng))
        manifests = draw_manifests(rng)
        try:
            sim.simulate(world, manifests)
            check_invariants(world, manifests)
        except AssertionError as error:
            raise AssertionError(f"schedule {seed}: {error}") from error
        seen["plans"] += len(world.plans)
        seen["complete"] += len(world.completes)
        seen["retried"] += sum(row["attempt"] > 1 for p in world.plans.values() for row in p.rows)
        seen["cut short"] += world.num_cut_short
        tokens = [world.plans[number].token for number in sorted(world.plans)]
        seen["several"] += len(set(tokens)) < len(tokens)
        seen["interleaved"] += len(set(tokens)) < 1 + sum(one != other for one, other in pairwise(tokens))
    # The schedules must have reached the interesting places.
    assert seen["plans"] > NUM_SCHEDULES / NUM_BATCHES
    for place in ("complete", "retried", "several", "interleaved", "cut short"):
        assert seen[place] > 0, place


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
