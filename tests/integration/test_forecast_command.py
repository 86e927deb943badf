"""A sample is labelled, tonight is forecast from it, and the run's record says how true that was."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn.commands.predict import PredictArguments, predict
from maskrcnn.labelling.costs import MIN_MEASURED_IMAGES

NUM_SAMPLE, NUM_MORE = MIN_MEASURED_IMAGES, 60


def write_images(folder: Path, first: int, num_images: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(first)
    for place in range(first, first + num_images):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"img-{place:04d}.png")


@pytest.fixture(scope="module")
def labelled(tiny_bundle: str, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> PredictArguments:
    """A sample that was labelled, and more images than that."""
    folder = tmp_path_factory.mktemp("forecast")
    write_images(folder / "in", 0, NUM_SAMPLE)
    arguments = PredictArguments(
        tiny_bundle, str(folder / "in"), str(folder / "out"), device="cpu", num_actors="1", rows_per_part=20
    )
    assert predict(arguments) == 0
    write_images(folder / "in", NUM_SAMPLE, NUM_MORE)
    return arguments


def ask(arguments: PredictArguments, capsys: pytest.CaptureFixture[str], **more: object) -> tuple[int, list[str]]:
    code = predict(replace(arguments, dry_run=True, **more))  # type: ignore[arg-type]
    return code, capsys.readouterr().out.splitlines()


def test_a_dry_run_says_how_many_workers_the_night_needs(
    labelled: PredictArguments, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    code, lines = ask(labelled, capsys, finish_by="2999-01-01T06:00", price_per_actor_hour=2.0)
    assert code == 0
    assert lines[0].startswith(f"would plan {NUM_MORE} of {NUM_SAMPLE + NUM_MORE} listed images")
    [record_path] = Path(labelled.output, "runs").iterdir()
    assert lines[1].startswith(f"{NUM_MORE} images to label; 1 worker of ")
    assert f"(measured by run {record_path.stem} from {NUM_SAMPLE} images, limited by " in lines[1]
    assert lines[2].startswith("to finish by Tue 06:00 (")
    assert " from now): 1 worker of " in lines[2]
    assert lines[2].count("per million images") == 1


def test_without_a_run_like_it_a_dry_run_says_what_to_do(
    labelled: PredictArguments, capsys: pytest.CaptureFixture[str]
) -> None:
    [record_path] = Path(labelled.output, "runs").iterdir()
    capsys.readouterr()
    code, lines = ask(labelled, capsys, finish_by="06:00", batch_size=3)
    assert code == 1
    assert lines[1].startswith("no forecast: no run like this one was measured yet; label a sample of 100 images")
    assert ask(labelled, capsys, batch_size=3)[0] == 0
    code, lines = ask(labelled, capsys, finish_by="2999-01-01T06:00", batch_size=3, forecast_from=str(record_path))
    assert code == 0
    assert lines[2].startswith("to finish by")


def test_a_run_records_what_was_predicted_and_what_came(
    labelled: PredictArguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    [sample_path] = Path(labelled.output, "runs").iterdir()
    costs = json.loads(sample_path.read_text())["costs"]
    assert costs["num_images"] == NUM_SAMPLE
    assert 0 < costs["predict_s"] < 60
    slow_path = Path(labelled.output, "slow.json")
    slow_path.write_text(json.dumps({"costs": {**costs, "predict_s": 7200.0, "source": "a slow one"}}))
    ends: list[datetime] = []
    monkeypatch.setattr(
        "maskrcnn.labelling.job.warn_if_late",
        lambda forecast, started_at, finish_by: ends.extend([forecast.end(started_at), finish_by]),
    )
    arguments = replace(labelled, finish_by="2999-01-01T06:00+00:00", forecast_from=str(slow_path))
    assert predict(arguments) == 0
    assert ends[0] > datetime.now(UTC) + timedelta(seconds=7000 * NUM_MORE)
    assert ends[1] == datetime(2999, 1, 1, 6, tzinfo=UTC)
    [new_path] = set(Path(labelled.output, "runs").iterdir()) - {sample_path}
    forecast = json.loads(new_path.read_text())["forecast"]
    assert forecast["source"] == "a slow one"
    assert forecast["limiting_stage"] == "predict"
    assert forecast["predicted_seconds"] > 7200 * NUM_MORE
    assert forecast["ratio"] > 1000
