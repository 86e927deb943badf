"""Two drivers on one output at once: each image once."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.conftest import FolderMaker
from tests.faults.figures import record
from tests.faults.folders import comparable, count_by_image, read_rows
from tests.faults.labelling import LabellingCommand, draw_jpegs
from tests.faults.scale import scale

NUM_RACES = scale(5, 50)
NUM_IMAGES = 60
STUB_S = 0.2
"""So slow that the second driver comes while there is something left to do."""


@pytest.mark.timeout(scale(600, 3600))
def test_two_drivers_at_once_label_each_image_once(s3_folder: FolderMaker, tiny_bundle: str, tmp_path: Path) -> None:
    images = s3_folder("in")
    bodies = draw_jpegs(NUM_IMAGES)
    images.write(bodies)
    undisturbed = s3_folder("undisturbed")
    command = LabellingCommand(tiny_bundle, images.uri, undisturbed.uri, tmp_path / "log", rows_per_part=2)
    command.finish()
    expected = comparable(read_rows(undisturbed))
    rng = random.Random(2)
    num_shared = 0
    for race in range(NUM_RACES):
        output = s3_folder(f"out-{race}")
        racer = replace(command, output_uri=output.uri, stub_s=STUB_S)
        first = racer.start()
        time.sleep(rng.uniform(0, 1))
        second = racer.start()
        racer.expect_done(first)
        racer.expect_done(second)
        rows = read_rows(output)
        assert count_by_image(rows, images) == dict.fromkeys(bodies, 1)
        assert comparable(rows) == expected
        assert len(output.names("runs/")) == 2
        num_shared += len(Counter(row["run_id"] for row in rows)) == 2
    assert num_shared, "the second driver always came when all was done"
    record("two-drivers", races=NUM_RACES, races_in_which_both_made_parts=num_shared, rows_missing_or_doubled=0)
