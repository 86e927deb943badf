"""The training job on a real Ray: over S3, with workers and drivers that die, on other numbers of workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from maskrcnn import Predictor, storage
from maskrcnn.errors import NonFiniteError
from maskrcnn.synthetic import CATEGORIES, write_shelves
from maskrcnn.training.arguments import TrainArguments
from maskrcnn.training.checkpoint import list_checkpoints
from maskrcnn.training.job import TrainingJob
from maskrcnn.training.metrics import read_metrics
from tests.conftest import PROJECT_ROOT
from tests.integration.training_faults import StepHook, seen_by_step

NUM_IMAGES, BATCH, EPOCHS = 10, 2, 2
STEPS_PER_EPOCH = 3  # two workers with two images each: 4, 4 and 2 images

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::maskrcnn.config.UnusualValueWarning"),  # the learning rate: see below
]


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelves")
    write_shelves(folder, NUM_IMAGES, seed=5, width=64, height=64, num_boards=1)
    return folder


Undisturbed = tuple[Path, Path]
"""The output of a training that nothing happened to, and what it saw."""


def arguments(folder: Path | str, output: Path | str, **changes: Any) -> TrainArguments:
    values = {
        "backbone": "resnet18", "weights": "none", "norm": "frozen", "min_size": 64, "max_size": 64,
        "anchor_sizes": (8, 16, 24, 32, 48), "rois_per_image": 16, "anchors_per_image": 32, "proposals_per_image": 50,
        # Low, since a network at random magnifies rounding from step to step.
        "learning_rate": 1e-5, "num_workers": "2", "batch_size": BATCH, "epochs": EPOCHS, "save_epochs": 0.67,
        "save_minutes": 0, "keep_checkpoints": 9, "device": "cpu", "decay": "constant", "warmup_steps": 0,
        "max_detections": 100,
    }  # fmt: skip
    return TrainArguments(
        images=f"{folder}/images", annotations=f"{folder}/annotations.json", output=str(output), **(values | changes)
    )


def words(given: TrainArguments) -> list[str]:
    """Say the arguments as a command line does."""
    defaults = TrainArguments(images="-", annotations="-", output="-")
    found: list[str] = []
    for name, value in vars(given).items():
        flag = "--" + name.replace("_", "-")
        if value == getattr(defaults, name):
            continue
        if isinstance(value, bool):
            found.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            found += [flag, *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return found


def losses(output: Path | str) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(str(output)) if "loss" in line}


@pytest.fixture(scope="module")
def undisturbed(shelves: Path, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A training to its end: its output, and what it saw."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "seen").mkdir()
    report = TrainingJob(arguments(shelves, folder / "out"), on_losses=StepHook(str(folder / "seen"))).run()
    assert report.state.step == EPOCHS * STEPS_PER_EPOCH
    assert report.state.num_samples == EPOCHS * NUM_IMAGES
    return folder / "out", folder / "seen"


def check_same(output: Path | str, seen: Path, undisturbed: Undisturbed) -> None:
    expected = seen_by_step(undisturbed[1])
    assert seen_by_step(seen) == expected
    first_epoch = [expected[step] for step in range(STEPS_PER_EPOCH)]
    assert set.union(*first_epoch) == set(range(1, NUM_IMAGES + 1))
    assert sum(map(len, first_epoch)) == NUM_IMAGES
    assert losses(output) == pytest.approx(losses(undisturbed[0]), rel=1e-4)


def test_a_worker_that_dies_over_s3_is_replaced_and_nothing_is_lost(
    shelves: Path, undisturbed: Undisturbed, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in shelves.rglob("*.*"):
        if path.is_file():
            storage.put(f"{bucket}/in/{path.relative_to(shelves)}", path.read_bytes())
    hook = StepHook(str(tmp_path), dies_at=(5, 1))
    report = TrainingJob(arguments(f"{bucket}/in", f"{bucket}/run", keep_checkpoints=1), on_losses=hook).run()
    assert (tmp_path / "died").exists()
    assert report.state.step == EPOCHS * STEPS_PER_EPOCH
    check_same(f"{bucket}/run", tmp_path, undisturbed)
    said = capsys.readouterr().out
    assert "2 worker(s) at step 2 of 6" in said or "2 worker(s) at step 4 of 6" in said
    assert sorted(list_checkpoints(f"{bucket}/run")) == [6], "older checkpoints are deleted"
    predictor = Predictor.from_bundle(report.bundle_uri)
    assert [category.name for category in predictor.categories] == list(CATEGORIES.values())
    assert predictor.preprocess.decode_scale == 8


def start(hook: StepHook, given: TrainArguments, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.integration.training_faults", hook.to_words(), *words(given)]
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=file, stderr=file, start_new_session=True)


def kill_after(driver: subprocess.Popen[bytes], output: Path, step: int, log: Path) -> None:
    """Kill a driver and all that it started as soon as there is a checkpoint of a step."""
    deadline = time.monotonic() + 180
    while max(list_checkpoints(str(output)), default=-1) < step:
        assert driver.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()


def test_a_killed_driver_resumes_on_one_worker(shelves: Path, undisturbed: Undisturbed, tmp_path: Path) -> None:
    output, log, hook = tmp_path / "out", tmp_path / "log", StepHook(str(tmp_path))
    kill_after(start(hook, arguments(shelves, output), log), output, 4, log)
    resumed = arguments(shelves, output, num_workers="1", resume=True)
    report = TrainingJob(resumed, on_losses=hook).run()
    assert not report.was_done
    check_same(output, tmp_path, undisturbed)
    assert (output / "bundle" / "model.json").exists()
    assert TrainingJob(resumed).run().was_done, "nothing is left to do"


def test_a_damaged_newest_checkpoint_is_passed_over_by_as_many_workers_as_there_is_room_for(
    shelves: Path, undisturbed: Undisturbed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    shutil.copytree(undisturbed[0], output)
    path = output / "checkpoints" / "step-00000006" / "state.safetensors"
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    shutil.rmtree(output / "bundle-last")
    # How many that is depends on what the cluster still keeps for trainings before; the losses do not.
    report = TrainingJob(arguments(shelves, output, num_workers="1,2", resume=True)).run()
    assert report.state.step == EPOCHS * STEPS_PER_EPOCH
    said = capsys.readouterr().out
    assert "passed over a damaged checkpoint" in said
    assert "at step 4 of 6" in said
    assert losses(output) == pytest.approx(losses(undisturbed[0]), rel=1e-4)


def test_losses_that_are_not_finite_name_their_image_and_stop_the_training(
    shelves: Path, local_ray: None, tmp_path: Path
) -> None:
    hook = StepHook(str(tmp_path), nonfinite_image_id=7)
    with pytest.raises(NonFiniteError, match=r"image 7 \(shelf-00007.jpg; annotations [\d, ]+\)") as caught:
        TrainingJob(arguments(shelves, tmp_path / "out", epochs=4, max_nonfinite_steps=1), on_losses=hook).run()
    assert len(caught.value.skipped) == 2, "once an epoch"
    assert "step " in caught.value.skipped[0]
    skipped = [line["step"] for line in read_metrics(str(tmp_path / "out")) if line.get("num_skipped")]
    assert len(skipped) >= 1, "the first one was skipped, and the training went on"


def test_two_workers_validate_and_keep_the_best(
    shelves: Path, local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unseen = write_shelves(tmp_path / "unseen", 3, seed=6, width=64, height=64, num_boards=1)
    val = {"val_images": f"{unseen.parent}/images", "val_annotations": str(unseen)}
    output = tmp_path / "out"
    report = TrainingJob(arguments(shelves, output, ema_decay=0.9, **val)).run()
    assert "2 worker(s) at step 0 of 6" in capsys.readouterr().out
    validations = [line for line in read_metrics(str(output)) if "validation" in line]
    assert [line["step"] for line in validations] == [3, 6]
    assert report.state.best_score == max(line["validation"]["segm"]["AP"] for line in validations)
    document = json.loads((output / "bundle" / "model.json").read_text())
    assert document["provenance"]["step"] == report.state.best_step
    assert list((output / "tensorboard").iterdir())
