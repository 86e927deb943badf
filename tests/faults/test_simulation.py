"""The protocol's simulation, in many more schedules than the daily tests have."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

from maskrcnn.labelling import manifest
from tests.faults.figures import record
from tests.faults.scale import scale
from tests.simulation.exploration import HeldBatches, check_reach, explore_many

NUM_SCHEDULES = scale(10_000, 1_000_000)
SCHEDULES_AT_ONCE = 500
FIRST_SEED = 1_000_000
"""Others than those of the daily tests."""


@pytest.mark.timeout(scale(600, 6 * 3600))
def test_no_interleaving_breaks_an_invariant() -> None:
    batches = [
        range(start, start + SCHEDULES_AT_ONCE)
        for start in range(FIRST_SEED, FIRST_SEED + NUM_SCHEDULES, SCHEDULES_AT_ONCE)
    ]
    begin = time.monotonic()
    seen: Counter[str] = Counter()
    num_processes = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn"), _hold_manifests) as pool:
        for of_batch in pool.map(explore_many, batches):
            seen.update(of_batch)
    seconds = time.monotonic() - begin
    check_reach(seen)
    assert seen["schedules"] == NUM_SCHEDULES
    record(
        "interleavings",
        schedules=NUM_SCHEDULES,
        invariants_broken=0,
        plans=seen["plans"],
        images_retried=seen["retried"],
        schedules_per_s=round(NUM_SCHEDULES / seconds),
    )


def _hold_manifests() -> None:
    manifest.BatchSpill = HeldBatches  # type: ignore[misc, assignment]
