"""Trainings that lose a rank or their driver and their newest checkpoint: they go on, and see and learn the same."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from maskrcnn.errors import TrainingFailedError
from maskrcnn.training.checkpoint import list_checkpoints
from maskrcnn.training.job import TrainingJob
from tests.faults.figures import record
from tests.faults.scale import scale
from tests.integration.test_training_job import (
    EPOCHS,
    STEPS_PER_EPOCH,
    Undisturbed,
    arguments,
    check_same,
    kill_after,
    shelves,  # noqa: F401  # a fixture, as the next one
    start,
    undisturbed,  # noqa: F401
)
from tests.integration.training_faults import StepHook

NUM_ROUNDS = scale(3, 20)
NUM_STEPS = EPOCHS * STEPS_PER_EPOCH

pytestmark = [
    pytest.mark.timeout(scale(400, 3000)),
    pytest.mark.filterwarnings("ignore::maskrcnn.config.UnusualValueWarning"),
]


def spoil(path: Path, rng: random.Random) -> str:
    """Damage a file as disks and half-done copies do, and say how."""
    body = bytearray(path.read_bytes())
    how = rng.choice(["a flipped bit", "cut short", "zeros"])
    if how == "a flipped bit":
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    elif how == "cut short":
        del body[rng.randrange(len(body)) :]
    else:
        begin = rng.randrange(len(body))
        length = min(4096, len(body) - begin)
        body[begin : begin + length] = bytes(length)
        body[begin] ^= 0 if any(path.read_bytes()[begin : begin + length]) else 1
    path.write_bytes(body)
    return how


def break_off(shelves: Path, output: Path, folder: Path, rng: random.Random, *, loses_driver: bool) -> str:  # noqa: F811
    """Begin a training on two workers, and end it at a seeded moment; says what was killed."""
    if loses_driver:
        step = rng.choice([2, 4])
        log = folder / "log"
        kill_after(start(StepHook(str(folder)), arguments(shelves, output), log), output, step, log)
        return "driver"
    step, rank = rng.randrange(3, NUM_STEPS), rng.randrange(2)
    hook = StepHook(str(folder), dies_at=(step, rank))
    with pytest.raises(TrainingFailedError):
        TrainingJob(arguments(shelves, output, max_failures=0), on_losses=hook).run()
    return f"rank {rank}"


def test_a_training_that_is_killed_and_damaged_goes_on_as_if_nothing_had_been(
    shelves: Path,  # noqa: F811
    undisturbed: Undisturbed,  # noqa: F811
    tmp_path: Path,
) -> None:
    rng = random.Random(20261126)
    killed, spoiled, resumed_on = Counter[str](), Counter[str](), Counter[str]()
    for place in range(NUM_ROUNDS):
        folder = tmp_path / str(place)
        folder.mkdir()
        output = folder / "out"
        killed[break_off(shelves, output, folder, rng, loses_driver=place % 3 == 2)] += 1
        checkpoints = list_checkpoints(str(output))
        if len(checkpoints) > 1:  # the very first one, of the weights it began with, has none before it
            newest = Path(checkpoints[max(checkpoints)])
            spoiled[spoil(newest / rng.choice(["state.safetensors", "state.json"]), rng)] += 1
        workers = rng.choice(["1", "2", "1,2"])
        resumed_on[workers] += 1
        resumed = arguments(shelves, output, num_workers=workers, resume=True)
        report = TrainingJob(resumed, on_losses=StepHook(str(folder))).run()
        assert report.state.step == NUM_STEPS
        check_same(output, folder, undisturbed)
    assert spoiled, "no round had a checkpoint to spoil"
    record(
        "training-goes-on",
        rounds=NUM_ROUNDS,
        killed=dict(killed),
        newest_checkpoint=dict(spoiled),
        resumed_on_workers=dict(resumed_on),
        steps_with_other_samples=0,
        losses_that_differ=0,
    )
