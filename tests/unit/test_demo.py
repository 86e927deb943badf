"""The demo's own pieces: whose folder it empties, and what breaks its images."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskrcnn.commands.demo import BREAKAGES, MARKER, DemoArguments, break_images, demo, empty_folder
from maskrcnn.errors import InputError, OutputError
from maskrcnn.images import BadImage, decode
from maskrcnn.model.precision import fastest_precision
from maskrcnn.synthetic import write_shelves


def test_an_earlier_demo_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    folder = empty_folder(tmp_path / "demo")
    for name in ("train", "unseen", "bundle", "predictions", "report", "mine"):
        (folder / name).mkdir()
        (folder / name / "file").touch()
    (folder / "contact-sheet.png").touch()
    empty_folder(folder)
    assert sorted(path.name for path in folder.iterdir()) == [MARKER, "mine"]
    assert (folder / "mine" / "file").exists()


def test_a_folder_that_is_no_demos_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "photo.jpg").touch()
    with pytest.raises(OutputError, match="--output must be a new folder or an earlier demo's, in .*; name another"):
        empty_folder(tmp_path)
    assert (tmp_path / "train" / "photo.jpg").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="--output must be a folder, and is a file"):
        empty_folder(tmp_path / "file")


def test_the_last_images_are_broken_each_in_its_own_way(tmp_path: Path) -> None:
    write_shelves(tmp_path, num_images=7, seed=0)
    break_images(tmp_path / "images")
    outcomes = [decode(path.read_bytes()) for path in sorted((tmp_path / "images").iterdir())]
    kinds = [outcome.kind if isinstance(outcome, BadImage) else "ok" for outcome in outcomes]
    assert kinds == ["ok", "ok", "corrupt", "corrupt", "unsupported", "corrupt", "too_large"]
    assert len(BREAKAGES) == 5


def test_too_few_images_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--num-images must be 10 or more, got 9"):
        demo(DemoArguments(output=str(tmp_path / "demo"), num_images=9))
    assert not (tmp_path / "demo").exists()


def test_the_precision_is_one_that_trains_here() -> None:
    assert fastest_precision() in ("auto", "fp32", "bf16")
