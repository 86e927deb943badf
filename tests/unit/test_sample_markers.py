"""Which dates a job calls complete after samples and whole runs, in any order; parts are made without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskrcnn.config import LabelConfig
from maskrcnn.labelling.job import LabellingJob
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan import PartId, PlannedPart
from maskrcnn.labelling.plan_files import read_plan
from maskrcnn.labelling.table import RunStamp, build_part, part_to_parquet
from maskrcnn.storage import put_if_absent
from tests.labelled_parts import FAILED

DATE = r"/(\d{4}-\d\d-\d\d)/"
OLD, NEW = "2026-11-21", "2026-11-22"


@pytest.fixture(autouse=True)
def made_parts(monkeypatch: pytest.MonkeyPatch) -> set[PartId]:
    """Make parts at once, with a row an image; those whose ids are in this set are left out, as by a kill."""
    left_out: set[PartId] = set()

    def make(job: LabellingJob, parts: list[PlannedPart]) -> set[PartId]:
        output = Output(job._config.output_uri)
        made = set()
        for part in parts:
            if part.id in left_out:
                continue
            keys = read_plan(output.plan_uri(part.id.plan), lambda plan, part=part: plan.read([part.id.part]))
            rows = build_part(keys, [FAILED] * len(keys), RunStamp("run", "abc", 0.3, {}, "full"))
            put_if_absent(output.part_uri(part), part_to_parquet(rows))
            made.add(part.id)
        return made

    monkeypatch.setattr(LabellingJob, "_make_parts", make)
    monkeypatch.setattr(LabellingJob, "_connect", lambda job, num_parts: None)
    return left_out


@pytest.fixture
def nights(tmp_path: Path) -> Path:
    for date in (OLD, NEW):
        folder = tmp_path / "in" / date
        folder.mkdir(parents=True)
        for place in range(40):
            (folder / f"{place}.png").write_bytes(b"x")
    return tmp_path / "in"


def run(bundle: str, images: Path, sample: float | None = None) -> set[str]:
    """Run the job, and give the markers that stand then; its record names those of the dates that are complete."""
    [folder] = [one for one in (images, *images.parents) if one.name == "in"]
    output = folder.parent / "out"
    config = LabelConfig(bundle, str(images), str(output), sample=sample, date_from=DATE, rows_per_part=4, device="cpu")
    report = LabellingJob(config).run()
    complete = Output(str(output)).list_complete()
    named = report.record["reconcile"]["dates_complete"]
    assert set(named) <= complete
    assert {name.removesuffix(".sample") for name in named} == set(report.reconciled.dates_complete)
    return complete


def test_who_waits_for_a_date_is_not_called_by_its_sample(tiny_bundle: str, nights: Path) -> None:
    samples = {f"{OLD}.sample", f"{NEW}.sample"}
    assert run(tiny_bundle, nights, 0.3) == samples
    assert run(tiny_bundle, nights, 0.6) == samples
    assert run(tiny_bundle, nights / OLD) == {OLD, *samples}
    assert run(tiny_bundle, nights / OLD, 0.9) == {OLD, *samples}
    assert run(tiny_bundle, nights) == {OLD, NEW, *samples}


def test_a_whole_run_that_finds_all_in_the_sample_says_so(tiny_bundle: str, nights: Path) -> None:
    assert run(tiny_bundle, nights / NEW, 1.0) == {f"{NEW}.sample"}
    assert run(tiny_bundle, nights / NEW) == {f"{NEW}.sample", NEW}


def test_a_run_of_another_night_that_ends_a_killed_sample_calls_it_a_sample(
    tiny_bundle: str, nights: Path, made_parts: set[PartId]
) -> None:
    made_parts.add(PartId(1, 0))
    assert run(tiny_bundle, nights / OLD, 0.5) == set()
    made_parts.clear()
    assert run(tiny_bundle, nights / NEW) == {f"{OLD}.sample", NEW}


def test_a_sample_does_not_call_a_killed_run_whole(tiny_bundle: str, nights: Path, made_parts: set[PartId]) -> None:
    made_parts.add(PartId(1, 0))
    assert run(tiny_bundle, nights / OLD) == set()
    made_parts.clear()
    assert run(tiny_bundle, nights / OLD, 0.2) == {f"{OLD}.sample"}
    assert run(tiny_bundle, nights / OLD) == {OLD, f"{OLD}.sample"}


def test_a_whole_run_elsewhere_does_not_call_a_sampled_date_whole(tiny_bundle: str, nights: Path) -> None:
    assert run(tiny_bundle, nights / OLD, 0.3) == {f"{OLD}.sample"}
    late = nights / "late" / OLD / "late.png"  # a photo of that night that came by another way
    late.parent.mkdir(parents=True)
    late.write_bytes(b"x")
    assert run(tiny_bundle, nights / "late") == {f"{OLD}.sample"}
    assert run(tiny_bundle, nights) == {OLD, NEW, f"{OLD}.sample"}
