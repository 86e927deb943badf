"""The validate command: what it prints and writes, its exit codes, buckets, threads and Ray."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maskrcnn import storage
from maskrcnn.commands import validate as validate_module
from maskrcnn.commands.command_line import run_command
from maskrcnn.commands.validate import ValidateArguments, validate
from tests.coco_documents import IMAGES, Document, good_document, spoilt, triangle
from tests.conftest import without_page
from tests.flawed_documents import with_annotation

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command as a user does, and give exit code, output and complaints."""

    def run_words(**options: object) -> tuple[int, str, str]:
        words = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        monkeypatch.setattr(sys, "argv", ["jobs/validate.py", *words])
        with pytest.raises(SystemExit) as stop:
            run_command(ValidateArguments, validate, "validate")
        said = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, said.out, said.err

    return run_words


def write(folder: Path, document: Document, name: str = "train.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(document))
    return path


def write_images(folder: Path) -> Path:
    for place, name in enumerate(IMAGES.values()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 40), (place, 0, 0)).save(folder / name)
    return folder


def test_a_sound_dataset_ends_0_with_its_statistics(tmp_path: Path, run: Run) -> None:
    train, images = write(tmp_path, good_document()), write_images(tmp_path / "images")
    code, out, err = run(annotations=train, images=images, output=tmp_path / "report.json")
    assert (code, err) == (0, "")
    assert f"{train}: nothing is wrong" in out
    assert "dataset: 3 images (1 without instances), 20 instances, 1 crowd, 2 categories" in out
    assert "10  Dose (0)" in out
    assert "advice: images: 3, and at least 500 are advised" in out
    assert "advice: instances: 20, and at least 1,000 are advised, 2,000 for the best" in out
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["errors"], report["warnings"], report["findings"]) == (0, 0, [])
    statistics = report["datasets"]["dataset"]["statistics"]
    assert statistics["instances_by_category"] == [
        {"id": 0, "name": "Dose", "instances": 10},
        {"id": 5, "name": "крышка", "instances": 10},
    ]
    assert statistics["sizes"] == {"small": 20, "medium": 0, "large": 0}
    assert statistics["instances_per_image"]["median"] == 10
    assert report["datasets"]["dataset"]["files_checked"]


def test_errors_end_1_in_a_table_and_in_json(tmp_path: Path, run: Run) -> None:
    document = spoilt("annotations", 3, segmentation=[[1, 1, 9]], iscrowd=...)
    train = write(tmp_path, document)
    code, out, err = run(annotations=train, output=tmp_path / "report.json")
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert lines[0] == f"{train}: 1 error, 1 warning"
    assert lines[1].split() == [
        "error",
        "1",
        "polygon_odd_count:",
        *["a", "polygon", "must", "have", "as", "many", "y", "as", "x"],
    ]
    assert lines[2].strip() == "annotation 9 segmentation: polygon 0: 3 numbers"
    report = json.loads((tmp_path / "report.json").read_text())
    assert [group["code"] for group in report["groups"]] == ["polygon_odd_count", "iscrowd_missing"]
    assert report["findings"][0] == {
        "severity": "error",
        "code": "polygon_odd_count",
        "file": str(train),
        "subject": "annotation",
        "id": 9,
        "index": 3,
        "field": "segmentation",
        "value": "polygon 0: 3 numbers",
        "rule": "a polygon must have as many y as x",
    }
    code, out, _ = run(annotations=train, output=tmp_path / "report.json")  # which is written again
    assert code == 1


def test_what_a_terminal_may_not_have_is_not_printed(tmp_path: Path, run: Run) -> None:
    document = spoilt("categories", 1, name="\x1b[31mred\nline \ud800")
    document["images"][1]["file_name"] = "../\x07\ud800.png"
    code, out, _ = run(annotations=write(tmp_path, document), output=tmp_path / "report.json")
    assert code == 1
    assert "10  ?[31mred?line ? (5)" in out
    assert "\x1b" not in out
    assert json.loads((tmp_path / "report.json").read_text())["errors"] == 1


def test_warnings_alone_end_0(tmp_path: Path, run: Run) -> None:
    code, out, _ = run(annotations=write(tmp_path, spoilt("annotations", 3, area=400)))
    assert code == 0
    assert "area_equals_bbox" in out


@pytest.mark.parametrize("text", ["", "no JSON", '{"images": [', "[]", "null"])
def test_what_is_no_dataset_ends_1(tmp_path: Path, run: Run, text: str) -> None:
    path = tmp_path / "train.json"
    path.write_text(text)
    code, out, err = run(annotations=path, repair_to=tmp_path / "fixed.json", images=tmp_path)
    assert (code, err) == (1, "")
    assert out.startswith(f"{path}: 1 error, 0 warnings")
    assert re.match(r" +file: \S", out.splitlines()[2])
    assert "nothing was repaired" in out
    assert not (tmp_path / "fixed.json").exists()


def test_a_repaired_copy_is_sound(tmp_path: Path, run: Run) -> None:
    train = write(tmp_path, with_annotation(segmentation=[triangle(50, 11, 20), [1, 1]], bbox=[50, 11, 20, 20]))
    fixed = tmp_path / "fixed.json"
    code, out, _ = run(annotations=train, repair_to=fixed)
    assert code == 1
    assert f"repaired copy: {fixed}; what was done to 1 rows: {tmp_path}/fixed.repairs.json" in out
    assert "left in the copy: 0 errors, 0 warnings" in out
    assert run(annotations=fixed)[0] == 0


def test_training_and_validation_are_compared(tmp_path: Path, run: Run) -> None:
    train = write(tmp_path, good_document())
    other = good_document()
    other["categories"][0]["name"] = "can"
    val = write(tmp_path, other, "val.json")
    code, out, _ = run(
        annotations=train, images=write_images(tmp_path / "images"), val_annotations=val, output=tmp_path / "r.json"
    )
    assert code == 1
    assert "categories_differ" in out
    assert "a/ä b.png is a/ä b.png of the training set" in out
    report = json.loads((tmp_path / "r.json").read_text())
    assert set(report["datasets"]) == {"train", "val"}
    assert {group["code"]: group["count"] for group in report["groups"]} == {"categories_differ": 1, "leakage": 3}


def test_many_images_are_read_through_ray_and_a_bucket(
    tmp_path: Path, run: Run, bucket: str, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate_module, "MOST_FILES_HERE", 2)
    images = write_images(tmp_path / "images")
    for name in list(IMAGES.values())[:2]:
        storage.put(f"{bucket}/images/{name}", (images / name).read_bytes())
    storage.put(f"{bucket}/train.json", json.dumps(good_document()).encode())
    code, out, _ = run(
        annotations=f"{bucket}/train.json",
        images=f"{bucket}/images",
        output=f"{bucket}/report.json",
        repair_to=f"{bucket}/fixed.json",
    )
    assert code == 1
    assert "image_not_found" in out
    report: dict[str, Any] = json.loads(storage.read_bytes(f"{bucket}/report.json"))
    assert [finding["id"] for finding in report["findings"]] == [12]
    fixed = json.loads(storage.read_bytes(f"{bucket}/fixed.json"))
    assert [image["id"] for image in fixed["images"]] == [0, 7]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"annotations": "none.json"}, "--annotations cannot be read: No such file or directory, in none.json"),
        (
            {"annotations": "."},
            "--annotations cannot be read: is a folder, a device, a pipe or a socket, and no file, in .",
        ),
        ({"val_annotations": "none.json"}, "--val-annotations cannot be read: No such file or directory, in none.json"),
        ({"val_images": "images"}, "--val-images must be given with --val-annotations"),
        ({"repair_to": "fixed"}, "--repair-to must be a path or URI ending in .json, got fixed"),
        ({"repair_to": "train.json"}, "--repair-to must not be there yet, and is, in train.json"),
        ({"output": "/proc/r.json"}, "--output cannot be written: No such file or directory, in /proc/r.json"),
        ({"repair_to": "/proc/r.json"}, "--repair-to cannot be written: No such file or directory, in /proc/r.json"),
        ({"output": "."}, "--output cannot be written: Is a directory, in ."),
        ({"images": "none"}, ""),
        ({"image": "none"}, "unknown option --image; did you mean --images or --val-images?"),
    ],
)
def test_wrong_input_is_told_in_one_line(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, good_document())
    code, out, err = run(**{"annotations": "train.json", **changes})
    if not line:  # a folder that is not there: every image is missing
        assert (code, out.count("image_not_found")) == (1, 1)
        return
    assert (code, without_page(err.rstrip("\n"))) == (2, f"jobs.validate: {line}")
