"""What an image costs an actor: read off a run's parts, kept in its record, found again by a run like it."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.config import LabelConfig
from maskrcnn.errors import InputError, UnavailableError
from maskrcnn.labelling.costs import MIN_MEASURED_IMAGES, find_costs, load_costs, measure_costs, parse_costs
from maskrcnn.labelling.forecast import ActorCosts, forecast_run
from maskrcnn.labelling.maker import PartSummary
from maskrcnn.labelling.pool import Pool, name_device
from maskrcnn.labelling.protocol import Reconciled
from maskrcnn.labelling.record import Tally, build_record, warn_if_late
from maskrcnn.storage import READS_IN_FLIGHT
from tests.unit.test_forecast import COSTS

CONFIG = LabelConfig("bundle", "images", "output")
SETTINGS = {"bundle_sha256": "abc", "score_threshold": 0.5, "slice": None, "date_from": None}
PART = PartSummary(
    1, 0, num_images=100, num_bytes=200, read_s=32.0, decode_s=4.0, predict_s=9.0, began_at=1005.0, seconds=10.0
)


def measure(summaries: list[PartSummary], **more: Any) -> ActorCosts | None:
    usual = {"source": "run 1", "device": "CPU", "num_actors": 1, "num_threads": 2, "num_readers": READS_IN_FLIGHT}
    return measure_costs(summaries, **{**usual, "startup_s": 5.0, "labelling_s": 20.0, **more})


def test_costs_are_read_off_the_parts() -> None:
    costs = measure([PART, replace(PART, part=1)])
    assert costs is not None
    assert (costs.num_images, costs.image_bytes, costs.startup_s) == (200, 2.0, 5.0)
    assert (costs.read_s, costs.decode_s, costs.predict_s) == (0.32, 0.04, 0.09)
    assert costs.put_s == pytest.approx(0.01)
    assert costs.image_s == pytest.approx(0.1)


def test_actors_that_wait_for_the_last_part_cost_nothing() -> None:
    costs = measure([replace(PART, part=part) for part in range(3)], num_actors=2)
    assert costs is not None
    assert costs.image_s == pytest.approx(0.1)


def test_parts_that_overlap_are_not_counted_twice() -> None:
    costs = measure([replace(PART, part=part) for part in range(2)], labelling_s=18.5)
    assert costs is not None
    assert costs.image_s == pytest.approx(18.5 / 200)


def test_parts_made_image_by_image_tell_nothing_of_the_pace() -> None:
    odd = PartSummary(1, 1, num_images=100, seconds=900.0)
    assert measure([odd]) is None
    assert measure([PART, odd]) == measure([PART])


def write_record(output: Path, name: str, *, costs: Any = COSTS, settings: Any = None, **config: Any) -> None:
    (output / "runs").mkdir(parents=True, exist_ok=True)
    record = {
        "costs": asdict(costs) if isinstance(costs, ActorCosts) else costs,
        "settings": SETTINGS if settings is None else settings,
        "config": {**asdict(CONFIG), **config},
    }
    (output / "runs" / f"{name}.json").write_text(json.dumps(record))


def find(output: Path, *, has_gpu: bool = True) -> ActorCosts | None:
    return find_costs(str(output), SETTINGS, CONFIG, has_gpu=has_gpu)


def test_the_newest_run_like_this_one_is_found(tmp_path: Path) -> None:
    write_record(tmp_path, "20261101T000000-a", costs=replace(COSTS, source="old"))
    write_record(tmp_path, "20261102T000000-b", settings={**SETTINGS, "date_from": "last-modified"})
    assert find(tmp_path) == COSTS


def test_runs_that_say_nothing_of_this_one_are_passed_over(tmp_path: Path) -> None:
    assert find(tmp_path) is None
    write_record(tmp_path, "1", costs=None)
    write_record(tmp_path, "2", costs=replace(COSTS, num_images=MIN_MEASURED_IMAGES - 1))
    write_record(tmp_path, "3", settings={**SETTINGS, "slice": 1024})
    write_record(tmp_path, "4", batch_size=16)
    write_record(tmp_path, "5", precision="bf16")
    write_record(tmp_path, "6", costs=replace(COSTS, device="CPU"))
    write_record(tmp_path, "7", costs={**asdict(COSTS), "predict_s": "quick"})
    (tmp_path / "runs" / "8.json").write_text('{"costs": ')
    (tmp_path / "runs" / "9.json").write_text("[]")
    assert find(tmp_path) is None
    assert find(tmp_path, has_gpu=False) == replace(COSTS, device="CPU")


def test_records_that_cannot_be_read_stop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def reset(uri: str) -> bytes:
        raise UnavailableError(uri, "connection reset")

    write_record(tmp_path, "1")
    monkeypatch.setattr("maskrcnn.storage.read_bytes", reset)
    assert find(tmp_path) is None
    assert "no forecast: " in caplog.text
    assert "connection reset" in caplog.text


def test_a_record_without_costs_cannot_be_forecast_from(tmp_path: Path) -> None:
    write_record(tmp_path, "1", costs=None)
    with pytest.raises(
        InputError, match="--forecast-from must be the record of a run that labelled images, in .*1.json"
    ):
        load_costs(str(tmp_path / "runs" / "1.json"))
    write_record(tmp_path, "2")
    assert load_costs(str(tmp_path / "runs" / "2.json")) == COSTS


def build(tally: Tally, **more: Any) -> dict[str, Any]:
    return build_record(
        run_id="now",
        started_at=datetime.fromtimestamp(1000, UTC),
        seconds=40.0,
        config=CONFIG,
        settings=SETTINGS,
        num_outside_sample=0,
        num_listed=100,
        pool=Pool(1, 1, 0, 2),
        tally=tally,
        reconciled=Reconciled(1, 100, (), (), ()),
        complete=(),
        **{"device": "CPU", "forecast": None, **more},
    )


def test_a_record_gives_its_costs_back() -> None:
    found = PartSummary(1, 1, was_there=True, num_images=7)
    record = build(Tally([PART, found]))
    costs = parse_costs(json.loads(json.dumps(record))["costs"])
    assert costs == measure([PART], source="run now", labelling_s=10.0)
    assert record["forecast"] is None


def test_labelling_lasts_from_the_first_parts_begin_to_the_last_ones_end() -> None:
    tally = Tally()
    assert (tally.first_began_at, tally.labelling_s) == (None, 0.0)
    tally.add(PartSummary(1, 0, was_there=True))
    tally.add(PartSummary(1, 1, failure="denied"))
    for began_at, seconds in ((102.0, 8.0), (100.0, 33.0), (115.0, 15.0)):
        tally.add(replace(PART, began_at=began_at, seconds=seconds))
    assert (tally.first_began_at, tally.labelling_s) == (100.0, 33.0)


def test_a_record_sets_what_was_predicted_beside_what_came() -> None:
    tally = Tally([PART])
    forecast = forecast_run(replace(COSTS, predict_s=0.079), num_actors=1, num_images=100, num_parts=1)
    told = build(tally, forecast=forecast)["forecast"]
    assert told == {
        "source": "run 1",
        "device": "H200",
        "actors": 1,
        "limiting_stage": "predict",
        "predicted_images_per_s": 12.5,
        "actual_images_per_s": 10.0,
        "ratio": 0.8,
        "predicted_seconds": 68.0,
        "actual_seconds": 40.0,
    }


def test_a_run_that_will_be_late_says_so(caplog: pytest.LogCaptureFixture) -> None:
    forecast = forecast_run(COSTS, num_actors=2, num_images=288_000, num_parts=100)  # one hour and a minute
    begin = datetime(2026, 1, 1, 5, 0, tzinfo=UTC)
    with caplog.at_level(logging.WARNING):
        warn_if_late(forecast, begin, None)
        warn_if_late(forecast, begin, datetime(2026, 1, 1, 6, 2, tzinfo=UTC))
        assert not caplog.messages
        warn_if_late(forecast, begin, datetime(2026, 1, 1, 6, 0, tzinfo=UTC))
        warn_if_late(None, begin, datetime(2026, 1, 1, 6, 0, tzinfo=UTC))
    late, unknown = caplog.messages
    assert "2 actors will be done by about Thu" in late
    assert "no run like this one was measured yet" in unknown


def test_actors_are_named_by_the_clusters_kinds_of_gpu() -> None:
    nodes = [{"CPU": 8.0}, {"GPU": 1.0, "accelerator_type:L4": 1.0}, {"GPU": 1.0, "accelerator_type:H200": 1.0}]
    assert name_device(nodes, has_gpu=True) == "H200 or L4"
    assert name_device([{"GPU": 1.0}], has_gpu=True) == "GPU"
    assert name_device(nodes, has_gpu=False) == "CPU"
