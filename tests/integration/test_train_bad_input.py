"""Bad input to the training command: exit code 2, one clear line, and nothing written."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import URLError

import pytest
import torch
import torchvision.models._api
from safetensors.torch import save_file

from maskrcnn import cluster
from maskrcnn.commands.command_line import run_command
from maskrcnn.commands.train import defaults, train
from maskrcnn.synthetic import write_shelves
from maskrcnn.training import job
from maskrcnn.training.arguments import TrainArguments, arguments_to_json, with_preset
from tests.conftest import without_page


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelves")
    write_shelves(folder, 3, seed=3, width=64, height=64, num_boards=1)
    return folder


A_LIST = "annotations file must be a COCO dataset with images, annotations and categories, got a list, in "


class Command:
    """The training command in this process, over three images, with whatever a test changes."""

    def __init__(
        self, folder: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.folder, self.output = folder, folder / "out"
        self.images, self.annotations = folder / "images", folder / "annotations.json"
        shutil.copytree(drawn, folder, dirs_exist_ok=True)
        self.options = {
            "--preset": "demo", "--images": str(self.images), "--annotations": str(self.annotations),
            "--output": str(self.output),
        }  # fmt: skip
        monkeypatch.setattr(cluster, "connect", lambda: None)
        monkeypatch.setattr(cluster, "nodes", lambda: [{"CPU": 2.0}])
        monkeypatch.setattr(cluster, "growth", dict)
        monkeypatch.setattr(job, "run_group", self._must_not_start)

    def _must_not_start(self, *args: object, **kwargs: object) -> NoReturn:
        pytest.fail("workers were started")

    def edit(self, place: Path, **members: Any) -> Path:
        """Write the annotations with other members, elsewhere."""
        place.write_text(json.dumps({**json.loads(self.annotations.read_text()), **members}))
        return place

    def begin_output(self, **values: Any) -> None:
        """Leave what a training that was begun with these values leaves first."""
        given = {name.removeprefix("--"): value for name, value in self.options.items() if name != "--preset"}
        begun = arguments_to_json(with_preset(TrainArguments(**given), "demo"))
        self.output.mkdir()
        (self.output / "training.json").write_text(json.dumps({"format_version": 1, "arguments": {**begun, **values}}))

    def refusal(self, *flags: str, **changes: object) -> str:
        """Run with these options, check that it is refused properly, and give the one line."""
        options = {**self.options, **{f"--{name.replace('_', '-')}": str(each) for name, each in changes.items()}}
        before = self._files()
        words = [word for pair in options.items() for word in pair]
        self._monkeypatch.setattr(sys, "argv", ["jobs/train.py", *words, *flags])
        with pytest.raises(SystemExit) as stop:
            run_command(TrainArguments, train, "train", defaults)
        said = self._capsys.readouterr()
        assert (stop.value.code, said.out) == (2, "")
        [line] = said.err.splitlines()
        assert line.startswith("jobs.train: ")
        assert self._files() == before, "nothing is written"
        return without_page(line.removeprefix("jobs.train: "))

    def _files(self) -> dict[str, bytes | None]:
        return {str(path): path.read_bytes() if path.is_file() else None for path in self.folder.rglob("*")}


@pytest.fixture
def command(
    tmp_path: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    with warnings.catch_warnings():  # the command shows them its own way, for good
        warnings.simplefilter("default")
        yield Command(tmp_path, drawn, monkeypatch, capsys)


def test_what_is_refused_here_would_otherwise_start(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(pytest.fail.Exception, match="workers were started"):
        command.refusal()
    assert "schedule   320 steps" in capsys.readouterr().out
    assert (command.output / "training.json").exists()


def test_images_that_are_missing(command: Command) -> None:
    for number in (1, 3):
        (command.images / f"shelf-{number:05d}.jpg").unlink()
    assert command.refusal() == (
        f"--images must hold every image of {command.annotations}: 2 of 3 are missing: "
        f"shelf-00001.jpg, shelf-00003.jpg, in {command.images}"
    )


def test_validation_images_that_are_missing(command: Command) -> None:
    val_images = command.folder / "val"
    line = command.refusal(val_images=val_images, val_annotations=command.annotations)
    assert line.startswith(f"--val-images must hold every image of {command.annotations}: 3 of 3 are missing: shelf-0")
    assert line.endswith(f", in {val_images}")


def test_a_validation_set_of_other_categories(command: Command) -> None:
    categories = json.loads(command.annotations.read_text())["categories"]
    before, categories[-1]["name"] = categories[-1]["name"], "renamed"
    val = command.edit(command.folder / "val.json", categories=categories)
    assert command.refusal(val_annotations=val) == (
        f"--val-annotations must have the categories of {command.annotations}: category {categories[-1]['id']} "
        f"is {before!r} in the one and is 'renamed' in the other, in {val}"
    )


def test_a_validation_set_that_cannot_be_scored(command: Command) -> None:
    annotations = json.loads(command.annotations.read_text())["annotations"]
    del annotations[1]["area"]
    val = command.edit(command.folder / "val.json", annotations=annotations)
    line = command.refusal(val_annotations=val)
    assert line == f"annotation {annotations[1]['id']} area must be there to validate, in {val}"


def test_validation_images_without_annotations(command: Command) -> None:
    assert command.refusal(val_images=command.images) == "--val-annotations must be given with --val-images"


@pytest.mark.parametrize("option", ["annotations", "val_annotations"])
def test_annotations_that_are_not_there(command: Command, option: str) -> None:
    place = command.folder / "none.json"
    line = command.refusal(**{option: place})
    assert line == f"--{option.replace('_', '-')} cannot be read: No such file or directory, in {place}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]', A_LIST),
        ("", "file must be JSON: Expecting value"),
        ('{"images": [', "file must be JSON: Expecting value"),
        ('{"annotations": [], "categories": [{"id": 1, "name": "can"}]}', "images must "),
        ('{"images": [], "annotations": [], "categories": []}', "categories must hold at least one, in "),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "can"}]}',
            "--annotations must hold an instance with a mask; it has 0 images, 0 crowds, in ",
        ),
    ],
)
def test_annotations_that_cannot_be_learnt_from(command: Command, text: str, told: str) -> None:
    place = command.folder / "odd.json"
    place.write_text(text)
    line = command.refusal(annotations=place)
    assert line.startswith(told)
    assert str(place) in line


def test_an_output_that_is_used(command: Command) -> None:
    command.begin_output()
    remedy = "go on with it by --resume, or name another"
    assert command.refusal() == f"--output must be a new one, and holds a training, in {command.output}; {remedy}"


def test_an_output_that_holds_a_bundle_of_something_else(command: Command) -> None:
    (command.output / "bundle").mkdir(parents=True)
    (command.output / "bundle" / "model.json").write_text("{}")
    assert command.refusal().startswith("--output must be a new one, and holds a training, in ")
    line = command.refusal("--resume")
    assert line == f"--output must hold training.json to be resumed, and does not, in {command.output}"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"learning_rate": 0.5}, "--learning-rate must be 0.0009 as when the training was begun, got 0.5"),
        ({"batch_size": 1}, "--batch-size must be 2 as when the training was begun, got 1"),
        ({"short_sides": 64}, "--short-sides must be [] as when the training was begun, got [64]"),
        ({"weights": "imagenet"}, "--weights must be none as when the training was begun, got imagenet"),
    ],
)
def test_a_resume_with_another_value(command: Command, changes: dict[str, object], told: str) -> None:
    command.begin_output()
    assert command.refusal("--resume", **changes) == f"{told}, in {command.output}; give that, or a new --output"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"arguments": []}', "null"])
def test_a_resume_of_what_was_damaged(command: Command, text: str) -> None:
    command.output.mkdir()
    (command.output / "training.json").write_text(text)
    line = command.refusal("--resume")
    assert line.startswith("training.json must be as it was written")
    assert line.endswith(f", in {command.output}/training.json")


def test_imagenet_weights_without_a_network(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> NoReturn:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", unreachable)
    line = command.refusal(weights="imagenet")
    assert line.startswith("--weights imagenet could not be downloaded (<urlopen error no network>), in https://")
    assert line.endswith("; give the file as --weights PATH, or start at random with --weights none")


def test_weights_that_are_not_there(command: Command) -> None:
    line = command.refusal(weights=command.folder / "none.pth")
    rule = "must be coco, imagenet, none, or the path or URI of a bundle or a file; nothing is there"
    assert line == f"--weights {command.folder}/none.pth {rule}"


def test_weights_of_another_network(command: Command) -> None:
    save_file({"a": torch.zeros(2)}, command.folder / "other.safetensors")
    line = command.refusal(weights=command.folder / "other.safetensors")
    assert line.startswith("tensor backbone.body.conv1.weight is missing: these are another network's weights, in ")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"learning_rat": 1}, "unknown option --learning-rat; did you mean --learning-rate or --scale-learning-rate?"),
        ({"nope": 1}, "unknown option --nope; see --help"),
        ({"preset": "none "}, "--preset must be one of none, coco-1x, coco-lsj, finetune-small, demo, got none "),
        ({"backbone": "vgg"}, "--backbone must be one of resnet18, resnet34, resnet50, resnet101, got vgg; see --help"),
        ({"score_threshold": 2}, "--score-threshold must be in [0, 1], got 2.0"),
        ({"ema_decay": 1}, "--ema-decay must be in (0, 1), got 1.0"),
        ({"output": ""}, "--output must be a path or URI, got nothing"),
    ],
)
def test_a_value_that_cannot_be(command: Command, changes: dict[str, object], line: str) -> None:
    assert command.refusal(**changes) == " ".join(line.split())


@pytest.mark.parametrize("name", ["a file", "a file/out", "a file/deep/out"])
def test_an_output_in_a_files_place(command: Command, name: str) -> None:
    (command.folder / "a file").write_text("in the way")
    line = command.refusal(output=command.folder / name)
    assert line.startswith("--output cannot be written: ")
    assert line.endswith(f", in {command.folder / name}/training.json")


def test_a_gpu_that_is_not_there(command: Command) -> None:
    assert command.refusal(device="cuda") == "--device must be auto or cpu: the cluster has no GPU, got cuda"


def test_more_workers_than_the_cluster_holds(command: Command) -> None:
    remedy = "take fewer, with --grad-accum-steps for the same batch"
    line = f"--num-workers must be at most the cluster's 2 CPUs, one a worker, got 3; {remedy}"
    assert command.refusal(num_workers=3) == line
