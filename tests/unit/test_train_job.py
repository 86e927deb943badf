"""What the driver tells the workers, also when it resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.errors import InputError
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


@pytest.fixture(scope="module")
def begun(shelves: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainArguments:
    """A training that was begun, and has not done a step; with annotations of its own."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "images").symlink_to(shelves / "images")
    (folder / "annotations.json").write_bytes((shelves / "annotations.json").read_bytes())
    given = arguments(folder, folder / "out", backbone="resnet18", weights="none", min_size=64, max_size=64)
    TrainingJob(given)._begin()
    return replace(given, resume=True)


def drop_an_image(document: dict[str, Any]) -> None:
    gone = document["images"].pop()["id"]
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] != gone]


def swap_names(document: dict[str, Any]) -> None:
    one, other = document["categories"][:2]
    one["name"], other["name"] = other["name"], one["name"]


def swap_images(document: dict[str, Any]) -> None:
    document["images"][:2] = document["images"][1::-1]


def relabel(document: dict[str, Any]) -> None:
    row = document["annotations"][0]
    row["category_id"] = next(each["id"] for each in document["categories"] if each["id"] != row["category_id"])


def add_an_annotation(document: dict[str, Any]) -> None:
    document["annotations"].append({**document["annotations"][0], "id": 10**6})


def shrink_an_image(document: dict[str, Any]) -> None:
    image = document["images"][0]
    image["width"] += 1
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] != image["id"]]


def move_a_mask(document: dict[str, Any]) -> None:
    document["annotations"][0] |= {"segmentation": [[1, 1, 20, 1, 20, 20, 1, 20]], "bbox": [1, 1, 19, 19], "area": 361}


def reword(document: dict[str, Any]) -> None:
    document["info"] = {"description": "the same"}


def resume(begun: TrainArguments, tmp_path: Path, change: Any, **begun_changes: Any) -> TrainingJob:
    """Go on with a copy of the training, with annotations that were changed in between."""
    document = json.loads(Path(begun.annotations).read_text())
    change(document)
    training = json.loads((Path(begun.output) / "training.json").read_text())
    output = tmp_path / "out"
    output.mkdir()
    given = replace(begun, annotations=str(tmp_path / "annotations.json"), output=str(output))
    Path(given.annotations).write_text(json.dumps(document))
    training |= {"arguments": arguments_to_json(given)} | begun_changes
    (output / "training.json").write_text(json.dumps({name: each for name, each in training.items() if each}))
    return TrainingJob(given)


@pytest.mark.parametrize(
    "change", [drop_an_image, swap_names, swap_images, relabel, add_an_annotation, shrink_an_image]
)
def test_a_resume_on_other_annotations_is_refused(begun: TrainArguments, tmp_path: Path, change: Any) -> None:
    with pytest.raises(InputError) as caught:
        resume(begun, tmp_path, change)
    assert str(caught.value) == (
        "--annotations must hold the images, annotations and categories that the training was begun with, and does "
        f"not, in {tmp_path}/annotations.json; give that file, or a new --output"
    )


@pytest.mark.parametrize("change", [reword, move_a_mask])
def test_a_resume_on_the_same_samples_goes_on(begun: TrainArguments, tmp_path: Path, change: Any) -> None:
    assert len(resume(begun, tmp_path, change)._train.categories) == len(CATEGORIES)


def test_a_training_that_an_older_version_began_goes_on(begun: TrainArguments, tmp_path: Path) -> None:
    resume(begun, tmp_path, drop_an_image, samples_sha256=None)


def test_labels_follow_the_ids_and_times_are_seconds(shelves: Path, tmp_path: Path) -> None:
    found = settings(arguments(shelves, tmp_path, save_minutes=2, validate_minutes=0.5, cache_gib=0.5))
    assert [(each.id, each.label) for each in found.categories] == [
        (category_id, label) for label, category_id in enumerate(sorted(CATEGORIES), start=1)
    ]
    assert (found.save_s, found.validation_turns.every_s, found.cache_bytes) == (120, 30, 2**29)
    assert found.model.num_labels == len(CATEGORIES) + 1
    assert found.val_images_uri == found.images_uri == f"{shelves}/images"
    assert not (tmp_path / "training.json").exists()
