"""Schedules of the simulated world, one a seed: playing them, and what must hold after each."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import pyarrow as pa

from maskrcnn.labelling import plan, protocol
from tests.simulation import world as sim


def draw_manifests(rng: random.Random) -> list[pa.Table]:
    """Draw what two or three drivers list: a growing folder in which now and then an image changes."""
    dates: dict[str, str | None] = {f"img-{i}": rng.choice([None, "2026-11-22", "2026-11-23"]) for i in range(10)}
    versions = dict.fromkeys(rng.sample(sorted(dates), rng.choice([4, 8])), "v1")
    manifests = []
    for _ in range(rng.choice([2, 3])):
        manifests.append(_manifest_table(versions, dates))
        versions = dict(versions)
        for uri in dates:
            if uri not in versions and rng.random() < 0.4:
                versions[uri] = "v1"
            elif uri in versions and rng.random() < 0.15:
                versions[uri] = f"v{int(versions[uri][1:]) + 1}"
    return manifests


def _manifest_table(versions: dict[str, str], dates: dict[str, str | None]) -> pa.Table:
    """Build a manifest from image_uri -> etag."""
    return pa.table(
        {
            "image_uri": pa.array(list(versions), pa.string()),
            "etag": pa.array(list(versions.values()), pa.string()),
            "size": pa.array([1] * len(versions), pa.int64()),
            "date": pa.array([dates[uri] for uri in versions], pa.string()),
        }
    )


class HeldBatches(list[pa.RecordBatch]):
    """Stands for the file that a manifest waits in (``maskrcnn.labelling.manifest.BatchSpill``).

    Half of a schedule's time would go there, and none of what can go wrong does.
    """


class WatchedWorld(sim.World):
    """Checks at the very moment of the claim that what is called complete is complete."""

    def answer(self, request: object) -> object:
        if isinstance(request, protocol.PutComplete):
            parts = [part for n in range(1, request.as_of_plan + 1) for part in self.plans[n].parts(n)]
            of_date = [part for part in parts if part.date == request.date]
            assert sorted(request.parts, key=lambda p: p.id) == sorted(of_date, key=lambda p: p.id)
            assert all(part.id in self.parts for part in of_date), "complete was said too early"
        return super().answer(request)


def explore(seed: int) -> tuple[sim.World, list[pa.Table]]:
    """Play one schedule to its end."""
    rng = random.Random(seed)
    world = WatchedWorld(rng, sim.Chances.draw(rng))
    manifests = draw_manifests(rng)
    sim.simulate(world, manifests)
    return world, manifests


def check_invariants(world: sim.World, manifests: list[pa.Table]) -> None:
    """Check what must hold after any schedule."""
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

    _check_current(world, last)


def _check_current(world: sim.World, listed: list[dict[str, str]]) -> None:
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


def explore_many(seeds: Iterable[int]) -> Counter[str]:
    """Play schedules, check each, and count how often the interesting places were reached.

    Raises:
        AssertionError: naming the schedule that breaks an invariant.
    """
    seen: Counter[str] = Counter()
    for seed in seeds:
        try:
            world, manifests = explore(seed)
            check_invariants(world, manifests)
        except AssertionError as error:
            raise AssertionError(f"schedule {seed}: {error}") from error
        seen["schedules"] += 1
        seen["plans"] += len(world.plans)
        seen["complete"] += len(world.completes)
        seen["retried"] += sum(row["attempt"] > 1 for p in world.plans.values() for row in p.rows)
        seen["cut short"] += world.num_cut_short
        tokens = [world.plans[number].token for number in sorted(world.plans)]
        seen["several"] += len(set(tokens)) < len(tokens)
        seen["interleaved"] += len(set(tokens)) < 1 + sum(one != other for one, other in pairwise(tokens))
    return seen


def check_reach(seen: Counter[str]) -> None:
    """Check that the schedules have reached the interesting places."""
    assert seen["plans"] > seen["schedules"]
    for place in ("complete", "retried", "several", "interleaved", "cut short"):
        assert seen[place] > 0, place
