"""Killed, or started twice at once: every image ends up in exactly one row. ``tests/faults`` has much more of it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from maskrcnn import read_predictions
from tests.faults import killers
from tests.faults.folders import DiskFolder, count_by_image, read_rows
from tests.faults.labelling import LabellingCommand, Reader, draw_jpegs

ROWS_PER_PART = 4
BODIES = draw_jpegs(32)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[DiskFolder, DiskFolder]:
    images = DiskFolder(tmp_path / "in")
    images.write(BODIES)
    return images, DiskFolder(tmp_path / "out")


def test_a_driver_killed_in_the_middle_loses_and_doubles_nothing(
    tiny_bundle: str, tmp_path: Path, folders: tuple[DiskFolder, DiskFolder]
) -> None:
    images, output = folders
    slow = LabellingCommand(
        tiny_bundle, images.uri, output.uri, tmp_path / "log", rows_per_part=ROWS_PER_PART, stub_s=0.2
    )
    with Reader(output, ROWS_PER_PART) as reader:
        driver = slow.start()
        while len(output.names("table/")) < 2:
            assert driver.poll() is None, slow.last_words()
            time.sleep(0.02)
        assert killers.kill_driver(driver)
        num_made = len(output.names("table/"))
        replace(slow, stub_s=None).finish()
        killers.clear_away(driver)
    assert reader.faults == []
    assert reader.scans_per_s >= 10
    assert num_made < len(BODIES) / ROWS_PER_PART
    assert count_by_image(read_rows(output), images) == dict.fromkeys(BODIES, 1)
    assert set(read_predictions(output.uri)["status"].to_pylist()) == {"ok"}
    assert output.names("complete/") == ["complete/all.json"]
    slow.finish()
    assert "nothing was left to do" in slow.last_words()


def test_two_drivers_at_once_label_each_image_once(
    tiny_bundle: str, tmp_path: Path, folders: tuple[DiskFolder, DiskFolder]
) -> None:
    images, output = folders
    command = LabellingCommand(
        tiny_bundle, images.uri, output.uri, tmp_path / "log", rows_per_part=ROWS_PER_PART, stub_s=None
    )
    drivers = [command.start(), command.start()]
    for driver in drivers:
        command.expect_done(driver)
    assert count_by_image(read_rows(output), images) == dict.fromkeys(BODIES, 1)
    assert len(output.names("plans/")) == 1
    assert len(output.names("runs/")) == 2
