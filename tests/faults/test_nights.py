"""Night after night: only what is new or changed is read, and all nights together are one big run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from maskrcnn import read_predictions
from tests.faults.conftest import FolderMaker
from tests.faults.figures import record
from tests.faults.folders import comparable, read_rows
from tests.faults.labelling import LabellingCommand, draw_jpegs
from tests.faults.proxy import FaultProxy
from tests.faults.scale import scale

NUM_NIGHTS = scale(5, 30)
IMAGES_A_NIGHT = 20


@pytest.mark.timeout(scale(600, 3600))
def test_nights_read_what_is_new_and_together_are_one_big_run(
    faulty_s3: FaultProxy, s3_folder: FolderMaker, tiny_bundle: str, tmp_path: Path
) -> None:
    images, output, big = s3_folder("in"), s3_folder("out"), s3_folder("big")
    command = LabellingCommand(
        tiny_bundle, images.uri, output.uri, tmp_path / "log", options=("--date-from", r"/(\d{4}-\d\d-\d\d)/")
    )
    num_quiet = num_changed = 0
    for night in range(NUM_NIGHTS):
        date = f"2026-11-{night + 1:02d}/"
        bodies: dict[str, bytes] = {}
        if night % 5 != 2:  # a night on which nothing was photographed
            bodies = draw_jpegs(IMAGES_A_NIGHT, folder=date, seed=night)
        if night % 5 == 3:
            bodies |= draw_jpegs(1, folder="2026-11-01/", seed=100 + night)
            num_changed += 1
        images.write(bodies)
        num_rows, num_reads = len(read_rows(output)), faulty_s3.count("GET", "/in/")
        command.finish()
        assert len(read_rows(output)) - num_rows == len(bodies)
        assert faulty_s3.count("GET", "/in/") - num_reads == len(bodies)
        num_quiet += not bodies

    replace(command, output_uri=big.uri).finish()
    current = read_predictions(output.uri).to_pylist()
    assert comparable(current) == comparable(read_predictions(big.uri).to_pylist())
    assert len(current) == len(images.names()) == len(read_rows(output)) - num_changed
    record(
        "nights",
        nights=NUM_NIGHTS,
        nights_without_change=num_quiet,
        gets_and_rows_on_those=0,
        changed_images=num_changed,
        images=len(current),
        rows_other_than_of_one_big_run=0,
    )
