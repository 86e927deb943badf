"""Kill -9 at seeded moments, and the same command again: the rows are those of an undisturbed run."""

from __future__ import annotations

import random
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import killers
from tests.faults.conftest import FolderMaker
from tests.faults.figures import record
from tests.faults.folders import Folder, comparable, read_rows
from tests.faults.labelling import LabellingCommand, Reader, draw_jpegs
from tests.faults.scale import scale

NUM_KILLS = scale(6, 51)
"""In each of two places."""
VICTIMS = ("driver", "worker", "raylet")
IMAGES_PER_KILL = 60
ROWS_PER_PART = 4
STUB_S = 0.1
DEATH_IS_NOTICED_S = 90


@pytest.mark.timeout(scale(600, 6000))
def test_killed_again_and_again_the_rows_are_those_of_an_undisturbed_run(
    any_folder: FolderMaker, tiny_bundle: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    images, output, undisturbed = any_folder("in"), any_folder("out"), any_folder("undisturbed")
    images.write(draw_jpegs(IMAGES_PER_KILL * NUM_KILLS))
    command = LabellingCommand(
        tiny_bundle, images.uri, output.uri, tmp_path / "log", rows_per_part=ROWS_PER_PART, stub_s=STUB_S
    )
    run_s = replace(command, output_uri=undisturbed.uri, stub_s=0).finish()

    rng = random.Random(20261122)
    num_killed = dict.fromkeys(VICTIMS, 0)
    drivers: list[subprocess.Popen[bytes]] = []
    with Reader(output, ROWS_PER_PART) as reader:
        try:
            for place in range(NUM_KILLS):
                victim = VICTIMS[place % len(VICTIMS)]
                drivers.append(command.start())
                num_killed[victim] += _kill(victim, drivers[-1], command, output, rng, run_s)
            drivers.append(replace(command, stub_s=0).start())
            command.expect_done(drivers[-1])
        finally:
            num_left = sum(killers.clear_away(driver) for driver in drivers)
    assert reader.faults == []
    assert reader.scans_per_s >= 10
    rows = read_rows(output)
    assert comparable(rows) == comparable(read_rows(undisturbed))
    assert sum(num_killed.values()) >= NUM_KILLS - 1, "the kills came when all was done"
    assert "complete/all.json" in output.names("complete/")
    record(
        f"kills-{request.node.callspec.params['any_folder']}",
        kills=num_killed,
        images=len(rows),
        rows_missing_or_doubled=0,
        reader_scans=reader.num_scans,
        reader_scans_per_s=round(reader.scans_per_s, 1),
        reader_faults=0,
        processes_left_behind=num_left,
    )


def _kill(
    victim: str,
    driver: subprocess.Popen[bytes],
    command: LabellingCommand,
    output: Folder,
    rng: random.Random,
    run_s: float,
) -> int:
    """Kill one of a job's processes at some moment of its life, and see the job end; gives how many were killed."""
    if victim == "driver":
        # From the middle of the imports to the middle of the parts.
        deadline = time.monotonic() + rng.uniform(0.1, 1.2) * run_s
        while time.monotonic() < deadline and driver.poll() is None:
            time.sleep(0.02)
        return int(killers.kill_driver(driver))
    if victim == "raylet":
        killers.wait_for(driver, killers.RAYLET)
        time.sleep(rng.uniform(0, 0.8) * run_s)
        num_killed = killers.kill_found(driver, killers.RAYLET)
        driver.wait(timeout=DEATH_IS_NOTICED_S)
        return num_killed
    killers.wait_for(driver, killers.POOL_WORKER)
    _wait_for_a_part(driver, command, output)  # perhaps by a worker that has outlived its driver
    time.sleep(rng.uniform(0, 2))
    num_killed = killers.kill_found(driver, killers.POOL_WORKER)
    _wait_for_a_part(driver, command, output)  # the job goes on by itself
    killers.kill_driver(driver)
    return num_killed


def _wait_for_a_part(driver: subprocess.Popen[bytes], command: LabellingCommand, output: Folder) -> None:
    num_before = len(output.names("table/"))
    deadline = time.monotonic() + DEATH_IS_NOTICED_S
    while len(output.names("table/")) == num_before:
        assert time.monotonic() < deadline, command.last_words()
        if driver.poll() is not None:
            assert driver.returncode == 0, command.last_words()
            return
        time.sleep(0.1)
