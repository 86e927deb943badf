"""An outage of everything is waited out; an object that never comes costs half a minute and a row, not the run."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from maskrcnn import read_predictions
from tests.faults.conftest import FolderMaker
from tests.faults.figures import record
from tests.faults.folders import comparable, count_by_image, read_rows
from tests.faults.labelling import MAX_RUN_S, LabellingCommand, draw_jpegs
from tests.faults.proxy import Fault, FaultProxy, Rule
from tests.faults.scale import scale

OUTAGE_S = scale(20, 120)
PHASE_OUTAGE_S = scale(8, 120)
"""Longer than the tries of a read, so that the store is known to be away."""
PATIENCE_S = 30
MOST_S_OF_A_TRICKLE = 65
"""A body of which some bytes come all the while may be a large one; it has a minute."""
MOST_REQUESTS = 8
ABSENT = {
    "hung": (Fault.HUNG, "timeout", PATIENCE_S),
    "stalled": (Fault.STALLED, "timeout", PATIENCE_S),
    "busy": (Fault.SLOW_DOWN, "unavailable", PATIENCE_S),
    **scale({}, {"slow": (Fault.SLOW, "timeout", MOST_S_OF_A_TRICKLE)}),
}

PHASES = {
    "listing": {"method": "GET", "query": "prefix=in"},
    "planning": {"method": "PUT", "key": "/out/plans/"},
    "reading_plans": {"method": "GET", "key": "/out/plans/"},
    "labelling": {"method": "PUT", "key": "/out/table/"},
    "reconciling": {"method": "GET", "query": "prefix=out%2Ftable"},
    "completion_marker": {"method": "PUT", "key": "/out/complete/"},
    "run_record": {"method": "PUT", "key": "/out/runs/"},
}
"""What a driver asks for in each, in the order of a run."""
PHASES_TRIED = scale(("planning", "labelling", "completion_marker"), tuple(PHASES))


@pytest.mark.timeout(scale(600, 3600))
def test_outages_that_begin_in_any_phase_of_a_run_are_waited_out(
    faulty_s3: FaultProxy, s3_folder: FolderMaker, tiny_bundle: str, tmp_path: Path
) -> None:
    images, output, undisturbed = s3_folder("in"), s3_folder("out"), s3_folder("undisturbed")
    bodies = draw_jpegs(24)
    images.write(bodies)
    command = LabellingCommand(tiny_bundle, images.uri, output.uri, tmp_path / "log")
    replace(command, output_uri=undisturbed.uri).finish()
    driver = command.start()
    num_asked: dict[str, int] = {}
    for phase in PHASES_TRIED:
        begins = faulty_s3.add(Rule(Fault.SLOW_DOWN, **PHASES[phase]))
        while begins.num_applied == 0:
            assert driver.poll() is None, f"before {phase}: {command.last_words()}"
            time.sleep(0.02)
        faulty_s3.add(Rule(Fault.SLOW_DOWN, None))
        num_before = len(faulty_s3.requests)
        time.sleep(PHASE_OUTAGE_S)
        num_asked[phase] = len(faulty_s3.requests) - num_before
        faulty_s3.clear()
    command.expect_done(driver, timeout_s=MAX_RUN_S)
    rows = read_rows(output)
    assert comparable(rows) == comparable(read_rows(undisturbed))
    assert count_by_image(rows, images) == dict.fromkeys(bodies, 1)
    assert {row["status"] for row in rows} == {"ok"}
    assert "complete/all.json" in output.names("complete/")
    record("outage-in-each-phase", seconds_each=PHASE_OUTAGE_S, requests_meanwhile=num_asked, rows_missing_or_doubled=0)


@pytest.mark.timeout(600)
def test_an_outage_of_everything_is_waited_out(
    faulty_s3: FaultProxy, s3_folder: FolderMaker, tiny_bundle: str, tmp_path: Path
) -> None:
    images, output = s3_folder("in"), s3_folder("out")
    bodies = draw_jpegs(400)
    images.write(bodies)
    command = LabellingCommand(tiny_bundle, images.uri, output.uri, tmp_path / "log", stub_s=0.02)
    driver = command.start()
    while len(output.names("table/")) < 10:
        assert driver.poll() is None, command.last_words()
        time.sleep(0.1)
    faulty_s3.add(Rule(Fault.RESET_BEFORE, None, rate=0.5))
    faulty_s3.add(Rule(Fault.SLOW_DOWN, None))
    num_before = len(faulty_s3.requests)
    time.sleep(OUTAGE_S)
    num_asked = len(faulty_s3.requests) - num_before
    num_made = len(output.names("table/"))
    faulty_s3.clear()
    end_of_outage = time.monotonic()
    command.expect_done(driver)
    assert num_made < 100, "there was nothing left to do when the outage ended"
    rows = read_rows(output)
    assert count_by_image(rows, images) == dict.fromkeys(bodies, 1)
    assert {row["status"] for row in rows} == {"ok"}
    record(
        "outage",
        seconds=OUTAGE_S,
        requests_meanwhile=num_asked,
        images=len(rows),
        error_rows=0,
        seconds_to_the_end_afterwards=round(time.monotonic() - end_of_outage),
    )


@pytest.mark.timeout(600)
def test_an_object_that_never_comes_costs_half_a_minute_and_comes_the_next_night(
    faulty_s3: FaultProxy, s3_folder: FolderMaker, tiny_bundle: str, tmp_path: Path
) -> None:
    images, output = s3_folder("in"), s3_folder("out")
    bodies = draw_jpegs(200) | draw_jpegs(len(ABSENT), folder="x/", seed=1)
    renamed = dict(zip([f"{name}.jpg" for name in ABSENT], list(bodies)[-len(ABSENT) :], strict=True))
    bodies |= {name: bodies.pop(old) for name, old in renamed.items()}
    images.write(bodies)
    for name, (fault, _, _) in ABSENT.items():
        faulty_s3.add(Rule(fault, key=f"/in/{name}"))
    command = LabellingCommand(tiny_bundle, images.uri, output.uri, tmp_path / "log", rows_per_part=20)
    command.finish()

    clock_offset_s = time.time() - time.monotonic()
    rows = {row["image_uri"].rsplit("/", 1)[1].removesuffix(".jpg"): row for row in read_rows(output)}
    assert len(rows) == len(bodies)
    figures: dict[str, float] = {}
    for name, (_, kind, patience_s) in ABSENT.items():
        asked = [one.time_s for one in faulty_s3.requests if one.method == "GET" and f"/in/{name}" in one.path]
        seconds = rows[name]["labelled_at"].timestamp() - clock_offset_s - asked[0]
        assert rows.pop(name)["error_kind"] == kind
        assert seconds <= patience_s, name
        assert len(asked) <= MOST_REQUESTS, name
        figures |= {f"{name}_s": round(seconds, 1), f"{name}_requests": len(asked)}
    assert {row["status"] for row in rows.values()} == {"ok"}

    faulty_s3.clear()
    command.finish()
    current = read_predictions(output.uri).to_pylist()
    assert {row["status"] for row in current} == {"ok"}
    assert sorted(row["attempt"] for row in current)[-len(ABSENT) - 1 :] == [1] + [2] * len(ABSENT)
    record("objects-that-never-come", **figures, rows_of_others_with_errors=0, rows_after_the_next_run_with_errors=0)
