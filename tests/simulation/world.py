"""A simulated store, drivers and workers that run the real protocol under a seeded scheduler.

Everything that can go wrong between two operations happens here on purpose: kills, tasks that run twice, puts whose
answer is lost or wrong, puts that land after their sender died, listings that are a moment old. One seed, one schedule.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from maskrcnn.errors import TRANSIENT_KINDS
from maskrcnn.labelling import protocol
from maskrcnn.labelling.backlog import Backlog
from maskrcnn.labelling.digests import Records, digest_attempts
from maskrcnn.labelling.manifest import Manifest
from maskrcnn.labelling.plan import PartId, PlannedPart
from maskrcnn.storage import PutAnswer

ROWS_PER_PART = 2


@dataclass(frozen=True)
class Row:
    """One table row, as far as the protocol cares."""

    image_uri: str
    etag: str
    attempt: int
    error_kind: str | None


@dataclass
class Plan:
    token: str
    rows: list[dict[str, Any]]

    def parts(self, number: int) -> list[PlannedPart]:
        sizes: dict[tuple[int, str | None], int] = {}
        for row in self.rows:
            sizes[row["part"], row["date"]] = sizes.get((row["part"], row["date"]), 0) + 1
        return [PlannedPart(PartId(number, part), date, size) for (part, date), size in sizes.items()]


@dataclass
class Chances:
    """How often things go wrong, each drawn anew for every schedule."""

    kill: float
    lose_answer: float
    land_late: float
    old_listing: float
    run_twice: float
    fail_image: float
    wrong_exists: float
    """That a part's put is answered as if the part were there, and it is not."""

    @classmethod
    def draw(cls, rng: random.Random) -> Chances:
        usual = [rng.choice([0.0, 0.02, 0.1, 0.3]) for _ in range(6)]
        return cls(*usual, wrong_exists=rng.choice([0.0, 0.0, 0.0, 0.1]))


@dataclass
class World:
    """The store and everybody who works on it."""

    rng: random.Random
    chances: Chances
    plans: dict[int, Plan] = field(default_factory=dict)
    parts: dict[PartId, tuple[Row, ...]] = field(default_factory=dict)
    markers: set[tuple[PartId, bool]] = field(default_factory=set)
    completes: list[tuple[str | None, int, tuple[PlannedPart, ...]]] = field(default_factory=list)
    late_puts: list[Any] = field(default_factory=list)
    old_plans: list[list[int]] = field(default_factory=list)
    old_parts: list[set[PartId]] = field(default_factory=list)
    wrongly_there: set[PartId] = field(default_factory=set)
    """Parts of which a put was told that they are there."""
    num_cut_short: int = 0
    """Drivers that died between two plans of theirs."""

    def apply_put(self, request: Any) -> PutAnswer:
        """Apply a create-if-absent put, atomically, as every supported store does."""
        shelf: Any
        if isinstance(request, protocol.PutPlan):
            shelf, key, value = self.plans, request.number, Plan(request.token, request.rows.to_pylist())
        elif isinstance(request, protocol.PutPart):
            shelf, key, value = self.parts, request.id, request.rows
        else:
            self.markers.add((request.id, request.is_transient))
            return PutAnswer.CREATED
        if key in shelf:
            return PutAnswer.EXISTS
        self.old_plans = [*self.old_plans, list(self.plans)][-3:]
        self.old_parts = [*self.old_parts, set(self.parts)][-3:]
        shelf[key] = value
        return PutAnswer.CREATED

    def put(self, request: Any) -> PutAnswer:
        """Put with a network in between."""
        if self.rng.random() < self.chances.land_late:
            self.late_puts.append(request)
            return PutAnswer.UNKNOWN
        if isinstance(request, protocol.PutPart) and self.rng.random() < self.chances.wrong_exists:
            self.wrongly_there.add(request.id)
            return PutAnswer.EXISTS
        answer = self.apply_put(request)
        return PutAnswer.UNKNOWN if self.rng.random() < self.chances.lose_answer else answer

    def land_a_late_put(self) -> None:
        """Let one of the delayed puts arrive, or vanish."""
        request = self.late_puts.pop(self.rng.randrange(len(self.late_puts)))
        if self.rng.random() < 0.8:
            self.apply_put(request)

    def answer(self, request: Any) -> Any:
        """Answer a request as a store would, perhaps with an old listing."""
        is_old = self.rng.random() < self.chances.old_listing
        match request:
            case protocol.ListPlans():
                return self.rng.choice(self.old_plans) if is_old and self.old_plans else list(self.plans)
            case protocol.ListParts():
                return self.rng.choice(self.old_parts) if is_old and self.old_parts else set(self.parts)
            case protocol.ReadPlans(numbers):
                return [digest_rows(self.plans[number].rows) for number in numbers]
            case protocol.ReadFailed(kinds):
                return [digest_rows([vars(row) for row in self.failed_rows(kinds)])]
            case protocol.ReadToken(number):
                return self.plans[number].token if number in self.plans else None
            case protocol.ReadParts(numbers):
                return [part for number in numbers for part in self.plans[number].parts(number)]
            case protocol.PartExists(part_id):
                return part_id in self.parts
            case protocol.LabelPart(part_id):
                return self.label(part_id)
            case protocol.PutComplete(date, as_of_plan, parts):
                self.completes.append((date, as_of_plan, parts))
                return None
            case _:
                return self.put(request)

    def failed_rows(self, kinds: frozenset[str]) -> list[Row]:
        """Find failed rows as the job does: through the markers."""
        wanted = {kind in TRANSIENT_KINDS for kind in kinds}
        marked = {part_id for part_id, is_transient in self.markers if is_transient in wanted}
        return [row for part_id in marked & self.parts.keys() for row in self.parts[part_id] if row.error_kind in kinds]

    def label(self, part_id: PartId) -> protocol.LabelledPart:
        """Label a part; whether an image fails is drawn anew every time, as in life."""
        rows = []
        for row in self.plans[part_id.plan].rows:
            if row["part"] == part_id.part:
                is_failure = self.rng.random() < self.chances.fail_image
                kind = self.rng.choice(["timeout", "corrupt"]) if is_failure else None
                rows.append(Row(row["image_uri"], row["etag"], row["attempt"], kind))
        kinds = frozenset(row.error_kind for row in rows if row.error_kind)
        return protocol.LabelledPart(tuple(rows), kinds)


@dataclass
class Task:
    """A worker that makes one part; it may outlive the driver that started it."""

    part_id: PartId
    steps: Generator[Any, Any, Any]
    pending: Any = None


@dataclass
class Driver:
    """One run of the job."""

    manifest: pa.Table
    token: str
    steps: Generator[Any, Any, Any]
    pending: Any = None
    waits_for: dict[PartId, int] | None = None
    said: set[PartId] = field(default_factory=set)
    """What its workers say is in the table."""
    outcome: protocol.Reconciled | None = None


def simulate(world: World, manifests: list[pa.Table]) -> None:
    """Run one driver a manifest, all at once, until everybody is done or dead; then one undisturbed run each."""
    retry = set(TRANSIENT_KINDS) if world.rng.random() < 0.7 else {*TRANSIENT_KINDS, "corrupt"}
    drivers = [_start(world, manifest, f"driver-{i}", retry) for i, manifest in enumerate(manifests)]
    tasks: list[Task] = []
    while drivers or tasks or world.late_puts:
        actors: list[Any] = [*drivers, *tasks, *(["late"] if world.late_puts else [])]
        actor = world.rng.choice(actors)
        if actor == "late":
            world.land_a_late_put()
        elif world.rng.random() < world.chances.kill / 4:
            _kill(world, actor, drivers, tasks)
        elif isinstance(actor, Task):
            _step_task(world, actor, drivers, tasks)
        else:
            _step_driver(world, actor, drivers, tasks)
    calm(world, manifests[-1], retry)


def calm(world: World, manifest: pa.Table, retry: set[str]) -> protocol.Reconciled:
    """Run once more with nothing going wrong."""
    world.chances = Chances(0, 0, 0, 0, 0, 0, 0)
    driver = _start(world, manifest, "calm", retry)
    tasks: list[Task] = []
    drivers = [driver]
    while drivers:
        if tasks:
            _step_task(world, tasks[0], drivers, tasks)
        else:
            _step_driver(world, driver, drivers, tasks)
    assert driver.outcome is not None
    return driver.outcome


def _start(world: World, manifest: pa.Table, token: str, retry: set[str]) -> Driver:
    batches = manifest.to_batches(world.rng.choice([3, 100]))
    backlog = Backlog(Manifest(batches), ROWS_PER_PART, max_rows=world.rng.choice([2, 2, 2, 4, 100]))
    steps = protocol.run_driver(backlog, token, retry)
    return Driver(manifest, token, steps, pending=next(steps))


def _kill(world: World, actor: Driver | Task, drivers: list[Driver], tasks: list[Task]) -> None:
    if isinstance(actor, Driver):
        drivers.remove(actor)
        is_planning = isinstance(actor.pending, protocol.PutPlan)
        world.num_cut_short += is_planning and actor.token in {plan.token for plan in world.plans.values()}
    else:
        _end_task(actor, drivers, tasks)


def _step_driver(world: World, driver: Driver, drivers: list[Driver], tasks: list[Task]) -> None:
    if driver.waits_for is not None:
        if any(driver.waits_for.values()):
            return
        answer: Any = driver.said
        driver.waits_for = None
    elif isinstance(driver.pending, protocol.MakeParts):
        driver.waits_for = {}
        for part in driver.pending.parts:
            copies = 2 if world.rng.random() < world.chances.run_twice else 1
            driver.waits_for[part.id] = copies
            for _ in range(copies):
                steps = protocol.make_part(part.id)
                tasks.append(Task(part.id, steps, next(steps)))
        return
    else:
        answer = world.answer(driver.pending)
    try:
        driver.pending = driver.steps.send(answer)
    except StopIteration as stop:
        driver.outcome = stop.value
        drivers.remove(driver)
        _check_all_planned(world, driver)
    except protocol.UnavailableError:
        drivers.remove(driver)


def _check_all_planned(world: World, driver: Driver) -> None:
    planned = {(row["image_uri"], row["etag"]) for plan in world.plans.values() for row in plan.rows}
    listed = {(row["image_uri"], row["etag"]) for row in driver.manifest.to_pylist()}
    assert listed <= planned, "a run ended before all that it listed was planned"


def _step_task(world: World, task: Task, drivers: list[Driver], tasks: list[Task]) -> None:
    try:
        task.pending = task.steps.send(world.answer(task.pending))
    except StopIteration:
        _end_task(task, drivers, tasks, has_made=True)
    except protocol.UnavailableError:
        _end_task(task, drivers, tasks)


def _end_task(task: Task, drivers: list[Driver], tasks: list[Task], *, has_made: bool = False) -> None:
    tasks.remove(task)
    for driver in drivers:
        if driver.waits_for and driver.waits_for.get(task.part_id):
            driver.waits_for[task.part_id] -= 1
            driver.said |= {task.part_id} if has_made else set()
            return


def digest_rows(rows: list[dict[str, Any]]) -> Records:
    schema = pa.schema([("image_uri", pa.string()), ("etag", pa.string()), ("attempt", pa.int16())])
    return digest_attempts(pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema))
