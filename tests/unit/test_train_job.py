"""What the driver tells the workers, also when it resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.synthetic import CATEGORIES, write_shelves
from maskrcnn.training.arguments import TrainArguments, arguments_to_json
from maskrcnn.training.group import WorkerGroup
from maskrcnn.training.job import TrainingJob
from maskrcnn.training.settings import RunSettings

NUM_IMAGES = 7
ON_GPUS, ON_CPUS = WorkerGroup(2, 2, 1, 4), WorkerGroup(1, 1, 0, 4)


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelves")
    write_shelves(folder, NUM_IMAGES, seed=4, width=64, height=64, num_boards=1)
    return folder


def arguments(folder: Path, output: Path, **values: Any) -> TrainArguments:
    places = {"images": f"{folder}/images", "annotations": f"{folder}/annotations.json", "output": str(output)}
    return TrainArguments(**{**places, "batch_size": 1, **values})


def settings(given: TrainArguments, group: WorkerGroup = ON_CPUS) -> RunSettings:
    return TrainingJob(given)._settings(group)


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [(1.0, 7), (0.5, 4), (2.0, 14), (0.0, 0), (0.01, 1)],  # none is never; a little is as often as can be
)
def test_epochs_between_checkpoints_and_validations_become_steps(
    shelves: Path, tmp_path: Path, epochs: float, steps: int
) -> None:
    found = settings(arguments(shelves, tmp_path, save_epochs=epochs, validate_epochs=epochs))
    assert (found.save_steps, found.validation_turns.every_steps) == (steps, steps)


@pytest.mark.parametrize(
    ("given", "group", "loaders"), [(None, ON_GPUS, 4), (None, ON_CPUS, 0), (0, ON_GPUS, 0), (3, ON_CPUS, 3)]
)
def test_loaders_follow_the_device_unless_they_are_given(
    shelves: Path, tmp_path: Path, given: int | None, group: WorkerGroup, loaders: int
) -> None:
    assert settings(arguments(shelves, tmp_path, loader_workers=given), group).loader_workers == loaders


def test_a_resume_on_other_workers_keeps_batch_rate_and_steps(shelves: Path, tmp_path: Path) -> None:
    begun = arguments(shelves, tmp_path, num_workers="1,4", epochs=3)
    first = settings(begun)
    assert first.config.global_batch_size == 4
    (tmp_path / "training.json").write_text(json.dumps({"arguments": arguments_to_json(begun)}))
    resumed = settings(replace(begun, resume=True, num_workers="2"), ON_GPUS)
    assert resumed.config == first.config
    assert resumed.save_steps == first.save_steps == 2


def test_labels_follow_the_ids_and_times_are_seconds(shelves: Path, tmp_path: Path) -> None:
    found = settings(arguments(shelves, tmp_path, save_minutes=2, validate_minutes=0.5, cache_gib=0.5))
    assert [(each.id, each.label) for each in found.categories] == [
        (category_id, label) for label, category_id in enumerate(sorted(CATEGORIES), start=1)
    ]
    assert (found.save_s, found.validation_turns.every_s, found.cache_bytes) == (120, 30, 2**29)
    assert found.model.num_labels == len(CATEGORIES) + 1
    assert found.val_images_uri == found.images_uri == f"{shelves}/images"
    assert not (tmp_path / "training.json").exists()
