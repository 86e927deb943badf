"""The driver's counts follow the parts' summaries; a worker tells what its GPU held."""

from __future__ import annotations

from collections import Counter as Counts
from typing import Any

import pytest
import torch

from maskrcnn import cluster
from maskrcnn.errors import ClusterError
from maskrcnn.labelling import meters
from maskrcnn.labelling.maker import PartSummary
from maskrcnn.labelling.plan import PartId, PlannedPart
from maskrcnn.labelling.protocol import Reconciled

Told = Counts[tuple[str, ...]]
OUTPUT = "s3://labels/shelf"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What is told, by metric and tags; Ray's classes are left out."""
    told: Told = Counts()

    class Metric:
        def __init__(self, name: str, text: str, tags: tuple[str, ...]) -> None:
            assert text
            self.name, self.tag_keys = name, tags

        def key(self, tags: dict[str, str] | None) -> tuple[str, ...]:
            assert set(tags or {}) == set(self.tag_keys)
            assert all(value.isascii() for value in (tags or {}).values()), "which Ray asks for"
            return (self.name, *(tags or {}).values())

        def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
            assert value > 0, "which Ray asks for"
            told[self.key(tags)] += value  # type: ignore[assignment]

        def set(self, value: float, tags: dict[str, str] | None = None) -> None:
            told[self.key(tags)] = value  # type: ignore[assignment]

    monkeypatch.setattr(meters, "Counter", Metric)
    monkeypatch.setattr(meters, "Gauge", Metric)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    return told


def build_meters(output: str = OUTPUT, *, is_sample: bool = False) -> meters.RunMeters:
    return meters.RunMeters(output, is_sample=is_sample)


def reconciled(*left: PlannedPart) -> Reconciled:
    return Reconciled(1, 10, left, left, ())


def test_a_part_is_counted_by_what_came_of_it(told: Told) -> None:
    run = build_meters()
    run.begin(20)
    run.add(PartSummary(1, 0, num_images=8, num_instances=30, num_bytes=900, errors={"corrupt": 2}, read_s=1.5))
    run.add(PartSummary(1, 1, was_there=True, num_images=7))
    run.add(PartSummary(1, 2, failure="UnavailableError: away"))
    assert told == {
        ("maskrcnn_run_images_planned", OUTPUT, "no"): 20,
        ("maskrcnn_run_images_left", OUTPUT, "no"): 5,
        ("maskrcnn_parts", OUTPUT, "no", "made"): 1,
        ("maskrcnn_parts", OUTPUT, "no", "found"): 1,
        ("maskrcnn_parts", OUTPUT, "no", "failed"): 1,
        ("maskrcnn_images", OUTPUT, "no", "ok", ""): 6,
        ("maskrcnn_images", OUTPUT, "no", "error", "corrupt"): 2,
        ("maskrcnn_instances", OUTPUT, "no"): 30,
        ("maskrcnn_bytes_read", OUTPUT, "no"): 900,
        ("maskrcnn_stage_seconds", OUTPUT, "no", "read"): 1.5,
    }
    run.finish(reconciled(PlannedPart(PartId(1, 2), None, 5)))
    assert told["maskrcnn_runs", OUTPUT, "no", "incomplete"] == 1
    assert told["maskrcnn_run_images_left", OUTPUT, "no"] == 5


def test_a_night_without_photos_is_a_complete_run_too(told: Told) -> None:
    build_meters().finish(reconciled())
    assert told == {("maskrcnn_runs", OUTPUT, "no", "complete"): 1, ("maskrcnn_run_images_left", OUTPUT, "no"): 0}


def test_a_sample_and_another_output_do_not_pass_for_the_night(told: Told) -> None:
    build_meters(is_sample=True).finish(reconciled())
    build_meters("s3://user:p4ssw0rd@tries/Läden").finish(reconciled())
    assert [key for key in told if key[0] == "maskrcnn_runs"] == [
        ("maskrcnn_runs", OUTPUT, "yes", "complete"),
        ("maskrcnn_runs", "s3://%E2%80%A6@tries/L%C3%A4den", "no", "complete"),
    ]


@pytest.mark.parametrize("is_on_cluster", [True, False])
def test_a_run_that_needed_no_ray_joins_the_cluster_that_it_is_on_to_tell_of_it(
    is_on_cluster: bool, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[bool] = []
    monkeypatch.setattr("ray.is_initialized", lambda: bool(joined))
    monkeypatch.setattr(cluster, "is_on_cluster", lambda: is_on_cluster)
    monkeypatch.setattr(cluster, "connect", lambda: joined.append(True))
    build_meters().finish(reconciled())
    assert joined == [True] * is_on_cluster
    assert bool(told) is is_on_cluster


def test_a_cluster_that_cannot_be_joined_at_the_end_spoils_no_night(
    told: Told, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise ClusterError("Ray", "could not be reached")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "is_on_cluster", lambda: True)
    monkeypatch.setattr(cluster, "connect", refuse)
    build_meters().finish(reconciled())
    assert not told
    assert "Prometheus is not told of this run: Ray could not be reached" in caplog.text


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_worker_tells_the_peaks_of_its_gpu(has_gpu: bool, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks: dict[str, Any] = {"max_memory_allocated": lambda: 5, "max_memory_reserved": lambda: 7}
    for name, peak in {"is_available": lambda: has_gpu, **peaks}.items():
        monkeypatch.setattr(torch.cuda, name, peak)
    meters.GpuMeter().read()
    expected = {
        ("maskrcnn_gpu_memory_peak_bytes", "allocated"): 5,
        ("maskrcnn_gpu_memory_peak_bytes", "reserved"): 7,
    }
    assert told == (expected if has_gpu else {})
