"""Every planned image has exactly one row, whatever the bucket does, and whatever lies in it."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.conftest import FolderMaker
from tests.faults.figures import record
from tests.faults.folders import count_by_image, read_rows
from tests.faults.labelling import LabellingCommand, draw_jpegs
from tests.faults.proxy import Fault, FaultProxy, Rule
from tests.faults.scale import scale

CORRUPT_SHARE = 0.05
NUM_LOST_ANSWERS = scale(50, 1000)
MAX_RUN_S = scale(300, 5400)


@pytest.mark.timeout(scale(600, 4 * 3600))
def test_every_planned_image_has_one_row_while_the_bucket_stumbles(
    faulty_s3: FaultProxy, s3_folder: FolderMaker, tiny_bundle: str, tmp_path: Path
) -> None:
    images, output = s3_folder("in"), s3_folder("out")
    bodies = draw_jpegs(scale(2_000, 100_000))
    rng = random.Random(5)
    corrupt = set(rng.sample(sorted(bodies), int(CORRUPT_SHARE * len(bodies))))
    images.write({name: rng.randbytes(600) if name in corrupt else body for name, body in bodies.items()})
    for fault, method, rate in (
        (Fault.SLOW_DOWN, None, 0.02),
        (Fault.RESET_BEFORE, None, 0.005),
        (Fault.CLOSE_IN_BODY, "GET", 0.001),
    ):
        faulty_s3.add(Rule(fault, method, rate=rate))
    command = LabellingCommand(tiny_bundle, images.uri, output.uri, tmp_path / "log", rows_per_part=scale(50, 250))
    seconds = command.finish(timeout_s=MAX_RUN_S)
    rows = read_rows(output)
    assert count_by_image(rows, images) == dict.fromkeys(bodies, 1)
    failed = {row["image_uri"].rsplit("/", 1)[1]: row["error_kind"] for row in rows if row["status"] != "ok"}
    # Noise may begin like some other format.
    assert set(failed.values()) <= {"corrupt", "unsupported"}
    assert set(failed) == corrupt
    record(
        "one-row-each",
        images=len(rows),
        corrupt=len(corrupt),
        requests=len(faulty_s3.requests),
        answered_503=faulty_s3.count(fault=Fault.SLOW_DOWN),
        reset=faulty_s3.count(fault=Fault.RESET_BEFORE),
        cut_in_the_body=faulty_s3.count(fault=Fault.CLOSE_IN_BODY),
        rows_missing_or_doubled=0,
        seconds=round(seconds),
    )


@pytest.mark.timeout(scale(600, 4 * 3600))
def test_a_lost_answer_to_an_upload_neither_loses_nor_doubles(
    faulty_s3: FaultProxy, s3_folder: FolderMaker, tiny_bundle: str, tmp_path: Path
) -> None:
    images, output = s3_folder("in"), s3_folder("out")
    bodies = draw_jpegs(4 * NUM_LOST_ANSWERS)
    corrupt = sorted(bodies)[::10]  # their markers are uploaded too
    images.write(bodies | dict.fromkeys(corrupt, b"not an image"))
    command = LabellingCommand(tiny_bundle, images.uri, output.uri, tmp_path / "log", rows_per_part=1)
    lost = faulty_s3.add(Rule(Fault.LOST_ANSWER, "PUT", key="/out/", rate=0.3, times=NUM_LOST_ANSWERS))
    command.finish(timeout_s=MAX_RUN_S)
    rows = read_rows(output)
    assert lost.num_applied == NUM_LOST_ANSWERS
    assert count_by_image(rows, images) == dict.fromkeys(bodies, 1)
    assert sorted(row["image_uri"].rsplit("/", 1)[1] for row in rows if row["status"] == "error") == corrupt
    assert "complete/all.json" in output.names("complete/")
    record("lost-answers", answers_lost=lost.num_applied, images=len(rows), rows_missing_or_doubled=0)


@pytest.mark.timeout(scale(600, 4 * 3600))
def test_no_damaged_body_is_labelled(
    faulty_s3: FaultProxy, s3_folder: FolderMaker, tiny_bundle: str, tmp_path: Path
) -> None:
    images, output = s3_folder("in"), s3_folder("out")
    bodies = draw_jpegs(scale(250, 5_000))
    images.write(bodies)
    flipped = faulty_s3.add(Rule(Fault.FLIPPED_BIT, key="/in/", rate=0.5))
    shortened = faulty_s3.add(Rule(Fault.SHORT_BODY, key="/in/"))
    command = LabellingCommand(tiny_bundle, images.uri, output.uri, tmp_path / "log", rows_per_part=50)
    command.finish(timeout_s=MAX_RUN_S)
    rows = read_rows(output)
    assert len(rows) == len(bodies)
    assert Counter(row["error_kind"] for row in rows) == {"integrity": len(bodies)}
    num_damaged = flipped.num_applied + shortened.num_applied
    assert num_damaged >= 2 * len(bodies)
    record(
        "damaged-bodies", bits_flipped=flipped.num_applied, bodies_shortened=shortened.num_applied, bodies_accepted=0
    )
