"""A run of which no part could be made fails, and leaves its record all the same; no network, no Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.config import LabelConfig
from maskrcnn.errors import AccessError, UnavailableError
from maskrcnn.labelling.job import LabellingJob
from maskrcnn.labelling.maker import PartSummary
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan import PartId, PlannedPart


@pytest.fixture
def job(tiny_bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabellingJob:
    def fail(job: LabellingJob, parts: list[PlannedPart]) -> set[PartId]:
        for part in parts:
            job._tally.add(PartSummary(part.id.plan, part.id.part, failure="AccessError: denied"))
        return job._tally.made()

    monkeypatch.setattr(LabellingJob, "_make_parts", fail)
    monkeypatch.setattr(LabellingJob, "_connect", lambda job, num_parts: None)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.png").write_bytes(b"x")
    return LabellingJob(LabelConfig(tiny_bundle, str(tmp_path / "in"), str(tmp_path / "out"), device="cpu"))


def test_its_record_says_why(job: LabellingJob, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no part could be made: AccessError: denied"):
        job.run()
    [record] = [json.loads(path.read_text()) for path in (tmp_path / "out" / "runs").iterdir()]
    assert record["parts"] == {"made": 0, "found": 0, "failed": 1, "failures": ["AccessError: denied"]}
    assert record["reconcile"]["images_left"] == 1
    assert record["reconcile"]["dates_complete"] == []


def test_a_record_that_cannot_be_written_does_not_hide_why(job: LabellingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(output: Output, run_id: str, record: dict[str, Any]) -> str:
        raise AccessError(output.uri, "runs/ is read-only")

    monkeypatch.setattr(Output, "put_run", deny)
    with pytest.raises(UnavailableError, match="no part could be made: AccessError: denied"):
        job.run()
