"""Disks that are full, read-only or closed: one line that says where and what to do, and the same command goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from maskrcnn import read_predictions
from maskrcnn.commands.command_line import run_command
from maskrcnn.commands.evaluate import EvaluateArguments, run_evaluation
from maskrcnn.commands.export import ExportArguments, export
from maskrcnn.commands.predict import PredictArguments, predict
from maskrcnn.commands.train import defaults, train
from maskrcnn.commands.validate import ValidateArguments, validate
from maskrcnn.config import LabelConfig
from maskrcnn.labelling.job import label_images
from maskrcnn.synthetic import write_shelves
from maskrcnn.training.arguments import TrainArguments
from tests.faults.figures import record
from tests.faults.test_secrets import TRAINING

PAGE_BYTES = 4096
CLOSED = "/sys/kernel/maskrcnn-test"
"""Where not even root may write."""

COMMANDS: dict[str, tuple[Any, ...]] = {
    "predict": (PredictArguments, predict, "predict"),
    "train": (TrainArguments, train, "train", defaults),
    "export": (ExportArguments, export, "export"),
    "validate": (ValidateArguments, validate, "validate"),
    "evaluate": (EvaluateArguments, run_evaluation, "evaluate"),
}


@dataclass(frozen=True)
class Disk:
    """A small disk of its own."""

    path: Path

    def fill_up_to(self, num_pages: int) -> None:
        """Leave so many pages."""
        with (self.path / ".filler").open("wb", buffering=0) as file:
            with suppress(OSError):
                while file.write(bytes(PAGE_BYTES)):
                    pass
            file.truncate(max(0, file.tell() - num_pages * PAGE_BYTES))

    def free(self) -> None:
        (self.path / ".filler").unlink()

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"may not mount a disk here: {mounted.stderr.decode().strip()}")
    yield Disk(path)
    subprocess.run(["umount", "-l", str(path)], check=True)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    lines: list[str]

    def only_line(self, name: str) -> str:
        [line] = [line for line in self.lines if not line.startswith("warning: ")]
        assert line.startswith(f"jobs.{name}: ")
        return line


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    def run(name: str, *words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_command(*COMMANDS[name])
        assert isinstance(stop.value.code, int)
        return Ended(stop.value.code, capsys.readouterr().err.splitlines())

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield run


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: str, local_ray: None) -> dict[str, list[str]]:
    """Command lines without an output; the option of the output comes last."""
    folder = tmp_path_factory.mktemp("inputs")
    write_shelves(folder, 4, seed=5, width=64, height=64, num_boards=1)
    images, annotations = f"{folder}/images", f"{folder}/annotations.json"
    document = json.loads(Path(annotations).read_text())
    results = [
        {"image_id": row["image_id"], "category_id": row["category_id"], "bbox": row["bbox"], "score": 0.5}
        for row in document["annotations"]
    ]
    (folder / "results.json").write_text(json.dumps(results))
    labels = str(folder / "labels")
    predicting = ["--bundle", tiny_bundle, "--images", images, "--device", "cpu", "--num-actors", "1"]
    label_images(LabelConfig(tiny_bundle, images, labels, device="cpu", num_actors=(1, 1)))
    return {
        "predict": [*predicting, "--rows-per-part", "2", "--output"],
        "train": [*TRAINING, "--images", images, "--annotations", annotations, "--output"],
        "export": ["--predictions", labels, "--format", "coco", "--output"],
        "validate": ["--annotations", annotations, "--repair-to"],
        "evaluate": [
            "--annotations", annotations, "--predictions", f"{folder}/results.json", "--iou-types", "bbox", "--output",
        ],
    }  # fmt: skip


SUFFIXES = {"predict": "", "train": "", "export": ".json", "validate": ".json", "evaluate": ".json"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_told_and_once_freed_the_same_command_goes_on(
    name: str, disk: Disk, inputs: dict[str, list[str]], run: Run
) -> None:
    output = str(disk.path / f"out{SUFFIXES[name]}")
    disk.fill_up_to(0)
    ended = run(name, *inputs[name], output)
    assert ended.code in (1, 2)
    line = ended.only_line(name)
    assert f"{output}" in line
    assert "No space left on device; free some, then run the same command again" in line
    disk.free()
    disk.remount("size=2g")
    again = [*inputs[name], output]
    if name == "train":
        again.append("--resume")
    assert run(name, *again).code == 0
    record(f"disk-full-{name}", exit_code=ended.code, lines=1, went_on=True)


def test_a_disk_that_fills_up_amid_labelling_leaves_whole_files_and_no_image_is_lost(
    disk: Disk, inputs: dict[str, list[str]], run: Run
) -> None:
    output = disk.path / "out"
    disk.fill_up_to(4)
    ended = run("predict", *inputs["predict"], str(output))
    assert ended.code == 1
    assert "No space left on device; free some" in " ".join(ended.lines)
    written = [path for path in output.rglob("*.parquet") if not path.name.startswith(".")]
    assert any(path.parent.name == "plans" for path in written)
    for path in written:
        pq.read_table(path)
    disk.free()
    assert run("predict", *inputs["predict"], str(output)).code == 0
    rows = read_predictions(str(output))
    assert len(rows) == len(set(rows["image_uri"].to_pylist())) == 4
    record("disk-full-amid-labelling", rows_lost=0, rows_doubled=0, files_cut_off=0)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_read_only_disk_is_told(name: str, disk: Disk, inputs: dict[str, list[str]], run: Run) -> None:
    output = str(disk.path / f"out{SUFFIXES[name]}")
    disk.remount("ro")
    ended = run(name, *inputs[name], output)
    assert ended.code == 2
    assert "Read-only file system; mount it for writing, or name another place" in ended.only_line(name)
    assert str(disk.path) in ended.only_line(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_closed_place_is_told(name: str, inputs: dict[str, list[str]], run: Run) -> None:
    ended = run(name, *inputs[name], f"{CLOSED}/out{SUFFIXES[name]}")
    assert ended.code == 2
    line = ended.only_line(name)
    assert CLOSED in line
    assert "name another place" in line


def test_a_limit_on_files_is_told(tmp_path: Path) -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from maskrcnn import storage\n"
        "from maskrcnn.errors import StorageError\n"
        "for put in (storage.put, storage.put_if_absent):\n"
        "    try:\n"
        f"        put({str(tmp_path / 'big')!r}, bytes(5000))\n"
        "    except StorageError as error:\n"
        "        assert 'File too large; raise the limit' in str(error), error\n"
        "    else:\n"
        "        raise SystemExit('it was written')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []
