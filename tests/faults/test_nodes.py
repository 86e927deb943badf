"""Nodes that are killed or cut off while they label, and a job's own Ray: it ends by itself, with all rows right."""

from __future__ import annotations

import random
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import killers
from tests.faults.cluster import NodesOnThisMachine, nodes_on_this_machine
from tests.faults.figures import record
from tests.faults.folders import DiskFolder, comparable, read_rows
from tests.faults.labelling import LabellingCommand, Reader, draw_jpegs
from tests.faults.scale import scale

NUM_LOSSES = scale(2, 24)
"""By turns a node that is killed, and one that is cut off and comes to itself again."""
IMAGES_PER_LOSS = 60
ROWS_PER_PART = 4
STUB_S = 0.15
CUT_OFF_S = 15
"""Longer than it takes the cluster to give the node up."""
LOCAL_RAY_DEATH_IS_TOLD_S = 5


def wait_for_parts(
    output: DiskFolder, num_parts: int, driver: subprocess.Popen[bytes], command: LabellingCommand
) -> None:
    deadline = time.monotonic() + 120
    while len(output.names("table/")) < num_parts:
        assert driver.poll() is None, command.last_words()
        assert time.monotonic() < deadline, command.last_words()
        time.sleep(0.1)


@pytest.mark.timeout(scale(400, 4000))
def test_a_job_outlives_the_loss_of_nodes_and_has_the_rows_of_an_undisturbed_run(
    tiny_bundle: str, tmp_path: Path
) -> None:
    images, output, undisturbed = (DiskFolder(tmp_path / name) for name in ("in", "out", "undisturbed"))
    images.write(draw_jpegs(IMAGES_PER_LOSS * NUM_LOSSES))
    command = LabellingCommand(
        tiny_bundle, images.uri, output.uri, tmp_path / "log", rows_per_part=ROWS_PER_PART, num_actors=2
    )
    replace(command, output_uri=undisturbed.uri, num_actors=1).finish()
    with nodes_on_this_machine(2, stub_s=STUB_S) as nodes, Reader(output, ROWS_PER_PART) as reader:
        driver = command.start()
        try:
            _lose_nodes(nodes, driver, command, output)
            begin = time.monotonic()
            command.expect_done(driver, timeout_s=180)
        finally:
            killers.clear_away(driver)
    assert reader.faults == []
    rows = read_rows(output)
    assert comparable(rows) == comparable(read_rows(undisturbed))
    assert "complete/all.json" in output.names("complete/")
    record(
        "lost-nodes",
        nodes_killed=-(-NUM_LOSSES // 2),
        nodes_cut_off=NUM_LOSSES // 2,
        images=len(rows),
        rows_missing_or_doubled=0,
        reader_scans=reader.num_scans,
        seconds_from_the_last_loss_to_the_end=round(time.monotonic() - begin, 1),
    )


def _lose_nodes(
    nodes: NodesOnThisMachine, driver: subprocess.Popen[bytes], command: LabellingCommand, output: DiskFolder
) -> None:
    """Lose nodes at seeded moments, each replaced at once, the last one while there are still parts to make."""
    rng = random.Random(20261126)
    num_parts = IMAGES_PER_LOSS * NUM_LOSSES // ROWS_PER_PART
    for place in range(NUM_LOSSES):
        wait_for_parts(output, num_parts * place // NUM_LOSSES + rng.randint(1, 4), driver, command)
        time.sleep(rng.uniform(0, 1))
        if place % 2 == 0:
            nodes.kill(rng.randrange(2))
            nodes.replace()
        else:
            nodes.cut_off(rng.randrange(2))
            nodes.replace()
            time.sleep(CUT_OFF_S)
            nodes.mend_links()


@pytest.mark.timeout(400)
def test_a_job_ends_with_one_line_when_its_own_ray_is_killed_and_the_same_command_finishes(
    tiny_bundle: str, tmp_path: Path
) -> None:
    images, output = DiskFolder(tmp_path / "in"), DiskFolder(tmp_path / "out")
    bodies = draw_jpegs(60)
    images.write(bodies)
    command = LabellingCommand(
        tiny_bundle, images.uri, output.uri, tmp_path / "log", rows_per_part=ROWS_PER_PART, stub_s=0.5
    )
    seconds_until_told = {}
    for kind, pattern in {"raylet": killers.RAYLET, "gcs_server": "/gcs_server "}.items():
        driver = command.start()
        try:
            wait_for_parts(output, len(output.names("table/")) + 1, driver, command)
            assert killers.kill_found(driver, pattern) == 1
            begin = time.monotonic()
            assert driver.wait(timeout=60) == 1, command.last_words()
            seconds_until_told[kind] = round(time.monotonic() - begin, 1)
        finally:
            killers.clear_away(driver)
        assert f"CRITICAL Ray has ended on this machine: its {kind} was killed, or crashed;" in command.last_words()
    assert max(seconds_until_told.values()) < LOCAL_RAY_DEATH_IS_TOLD_S
    replace(command, stub_s=0).finish()
    rows = read_rows(output)
    assert sorted(Path(row["image_uri"]).name for row in rows) == sorted(bodies)
    record("local-ray-killed", seconds_until_told=seconds_until_told, images=len(rows), rows_missing_or_doubled=0)
