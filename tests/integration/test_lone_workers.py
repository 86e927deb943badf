"""Parts made image by image: what is an image's fault becomes its row, what is not leaves the part to the next run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from maskrcnn.labelling import pipeline
from maskrcnn.labelling.current import CurrentRows
from maskrcnn.labelling.maker import MakerSettings
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan import PlannedPart, cut_plan
from maskrcnn.labelling.plan_files import PlanHeader, num_rows_by_date
from maskrcnn.labelling.pool import Pool
from maskrcnn.labelling.results import ImageResult
from maskrcnn.log_lines import LogStyle
from tests.labelled_parts import maker_settings

pytestmark = pytest.mark.usefixtures("local_ray")

POOL = Pool(min_actors=1, max_actors=1, num_gpus=0, num_cpus=1)


@pytest.fixture
def planned(tmp_path: Path) -> tuple[PlannedPart, MakerSettings]:
    """A part of two images, and a bundle that is not there."""
    output = Output(str(tmp_path / "out"))
    keys = pa.table(
        {
            "image_uri": ["/a.jpg", "/b.jpg"],
            "etag": ["1", "2"],
            "size": pa.array([1, 1], pa.int64()),
            "date": pa.nulls(2, pa.string()),
            "attempt": pa.array([1, 1], pa.int16()),
        }
    )
    rows = cut_plan(keys, 10)
    output.put_plan(1, rows, PlanHeader("token", {}, 10, num_rows_by_date(rows)))
    [part] = output.read_parts(range(1, 2))
    return part, maker_settings(output.uri, str(tmp_path / "no-such-bundle"))


class OutOfMemoryAtTheSecond:
    """A worker that the memory monitor ends at the part's second image."""

    def __init__(self, settings: MakerSettings, style: LogStyle) -> None:
        pass

    def wait_until_ready(self) -> None:
        pass

    def label_one(self, part: PlannedPart, place: int) -> ImageResult:
        if place == 1:
            raise ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory.")
        return ImageResult(error_kind="not_found", error_message="no such image")


def test_a_worker_that_cannot_load_its_network_is_no_images_fault(planned: tuple[PlannedPart, MakerSettings]) -> None:
    part, settings = planned
    summary = pipeline._make_one_by_one(part, POOL, settings)
    assert "a worker must start, and did not" in summary.failure
    assert "no-such-bundle" in summary.failure
    assert (summary.num_images, summary.errors) == (0, {})
    assert Output(settings.output_uri).list_parts() == set(), "the next run makes it"


def test_a_worker_that_memory_runs_out_for_is_a_row_that_says_so(
    planned: tuple[PlannedPart, MakerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    part, settings = planned
    monkeypatch.setattr(pipeline, "_LoneWorker", OutOfMemoryAtTheSecond)
    summary = pipeline._make_one_by_one(part, POOL, settings)
    assert summary.errors == {"not_found": 1, "worker_crash": 1}
    rows = CurrentRows(settings.output_uri).read(["image_uri", "error_message"]).to_pylist()
    assert {row["image_uri"]: row["error_message"] for row in rows} == {
        "/a.jpg": "no such image",
        "/b.jpg": "the worker died 2 times for want of memory on this image alone; see Ray's worker logs",
    }
    assert replace(summary, failure="") == summary
