"""The export command: what it says of wrong input, samples for review, outputs that exist or fail, and buckets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maskrcnn import storage
from maskrcnn.commands.command_line import run_command
from maskrcnn.commands.export import ExportArguments, export
from maskrcnn.config import UnusualValueWarning
from maskrcnn.errors import InputError, MaskrcnnError
from maskrcnn.exports.job import export_predictions
from tests.conftest import PROJECT_ROOT
from tests.labelled_parts import FAILED, blob, labelled, write_part

Run = Callable[..., tuple[int, str, str]]

IMAGES = {
    "1.jpg": labelled([(2, 0.9, blob(1)), (5, 0.4, blob(2))]),
    "2.jpg": labelled([]),
    "3.jpg": labelled([(2, 0.5, blob(3))]),
    "4.jpg": labelled([(9, 0.8, blob(4))]),
    "5.jpg": FAILED,
}


@pytest.fixture
def table(tmp_path: Path) -> str:
    return write_part(tmp_path / "out", IMAGES)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the real command line in this process: exit code, what it printed, what it complained."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["jobs/export.py", *words])
        with pytest.raises(SystemExit) as stop:
            run_command(ExportArguments, export, "export")
        said = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, said.out, said.err

    return run


def coco(table: str, output: Path, **options: Any) -> dict[str, Any]:
    export_predictions(ExportArguments(table, "coco", str(output), **options).to_config())
    document: dict[str, Any] = json.loads(output.read_text())
    return document


def file_names(document: dict[str, Any]) -> list[str]:
    return [image["file_name"] for image in document["images"]]


def test_the_command_as_people_run_it(table: str, tmp_path: Path) -> None:
    words = ["--predictions", table, "--format", "coco", "--output", str(tmp_path / "coco.json"), "--sample", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.export", *words], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    last = done.stdout.splitlines()[-1]
    assert last == f"3 detections of 2 images: {tmp_path / 'coco.json'}"


def test_an_unknown_format_is_one_line_with_the_list(run: Run, table: str) -> None:
    code, out, err = run("--predictions", table, "--format", "yolo", "--output", "x.json")
    assert (code, out) == (2, "")
    assert err == "jobs.export: --format must be one of coco, coco-results, flat, got yolo; see --help\n"


def test_an_output_that_exists_is_refused_before_the_table_is_looked_at(run: Run, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("precious")
    output = str(tmp_path / "old.json")
    code, _, err = run("--predictions", str(tmp_path / "none"), "--format", "coco", "--output", output)
    assert code == 2
    assert err == f"jobs.export: --output exists already, in {output}; name another, or move it away (docs/FAQ.md)\n"
    assert (tmp_path / "old.json").read_text() == "precious"


def test_an_empty_folder_is_told(run: Run, tmp_path: Path) -> None:
    code, _, err = run("--predictions", str(tmp_path), "--format", "flat", "--output", str(tmp_path / "f.parquet"))
    assert code == 2
    assert err.startswith("jobs.export: --predictions holds no labelled images, in ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"output": "x.parquet"}, "--output must be a .json file for --format coco, got x.parquet"),
        ({"format": "coco-results", "output": "x"}, "--output must be a .json file for --format coco-results, got x"),
        ({"format": "flat"}, "--output must be a .parquet file for --format flat, got .*x.json"),
        ({"format": "yolo"}, "--format must be one of coco, coco-results, flat, got yolo"),
        ({"score_threshold": 1.5}, r"--score-threshold must be in \[0, 1\], got 1.5"),
        ({"sample": 0}, "--sample must be 1 or more, got 0"),
        ({"seed": -1}, "--seed must be 0 or more, got -1"),
        ({"polygon_tolerance": -1.0}, "--polygon-tolerance must be 0 to 100 px, got -1"),
        ({"categories": ("cans",)}, "--categories must be names or ids of 2 can, 5 box, 9 bag, got cans; did you mea"),
        ({"image_root": "s3://other"}, "--image-root must be a folder that every image is in, and s3://shop/photos/1"),
        ({"bundle": "/nowhere"}, "/nowhere"),
        ({"format": "coco-results", "annotations": "none.json"}, "--annotations cannot be read: .*, in none.json"),
        ({"output": "/proc/x.json"}, "/proc/x.json"),
        ({"annotations": "truth.json"}, "--annotations needs --format coco-results"),
        ({"format": "flat", "output": "x.parquet", "segmentation": "rle"}, "--segmentation needs --format coco"),
        ({"format": "flat", "output": "x.parquet", "image_root": "x"}, "--image-root needs --format coco or coco-res"),
    ],
)
def test_wrong_input_is_told(table: str, tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    good = ExportArguments(table, "coco", str(tmp_path / "x.json"))
    with pytest.raises(MaskrcnnError, match=line):
        export(replace(good, **changes))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_table_of_failures_only_is_told(tmp_path: Path) -> None:
    table = write_part(tmp_path / "out", {"1.jpg": FAILED})
    with pytest.raises(InputError, match="--predictions must hold an image that was labelled, and holds none, in"):
        coco(table, tmp_path / "x.json")


def test_the_least_certain_images_come_first(table: str, tmp_path: Path) -> None:
    assert file_names(coco(table, tmp_path / "1.json")) == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    three = coco(table, tmp_path / "2.json", sample=3)
    assert file_names(three) == ["3.jpg", "1.jpg", "4.jpg"]
    assert [image["id"] for image in three["images"]] == [1, 2, 3]
    by_image = [(one["image_id"], one["score"]) for one in three["annotations"]]
    assert by_image == [(2, 0.9), (2, 0.4), (1, 0.5), (3, 0.8)]
    # The selection decides how certain an image is; those without any come last.
    fewer = coco(table, tmp_path / "3.json", sample=99, score_threshold=0.45)
    assert file_names(fewer) == ["3.jpg", "4.jpg", "1.jpg", "2.jpg"]
    assert len(fewer["annotations"]) == 3


def test_a_random_sample_depends_on_the_seed_alone(table: str, tmp_path: Path) -> None:
    drawn = [
        file_names(coco(table, tmp_path / f"{place}.json", sample=3, sample_by="random", seed=seed))
        for place, seed in enumerate([5, 5, *range(6, 16)])
    ]
    assert drawn[0] == drawn[1]
    assert len({tuple(names) for names in drawn}) > 3


def test_a_threshold_below_the_tables_is_warned_of(table: str, tmp_path: Path) -> None:
    with pytest.warns(UnusualValueWarning, match="--score-threshold 0.2 changes nothing: .* scores of 0.3 or more"):
        coco(table, tmp_path / "1.json", score_threshold=0.2)
    coco(table, tmp_path / "2.json", score_threshold=0.3)


@pytest.mark.parametrize("format", ["coco", "coco-results", "flat"])
def test_an_export_that_fails_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    table = write_part(tmp_path / "out", dict.fromkeys(map("{}.jpg".format, range(100)), IMAGES["1.jpg"]),
                       image_ids=list(range(100)))  # fmt: skip
    arguments = ExportArguments(table, format, str(tmp_path / ("x.parquet" if format == "flat" else "x.json")))  # type: ignore[arg-type]

    def interrupt(num_done: int, num_images: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_predictions(arguments.to_config(), interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("format", ["coco", "coco-results", "flat"])
def test_a_bucket_takes_exports_and_gives_tables(bucket: str, tmp_path: Path, format: str) -> None:
    write_part(tmp_path / "out", IMAGES, image_ids=[1, 2, 3, 4, 5])
    for path in (tmp_path / "out").rglob("*.parquet"):
        storage.put(storage.join(bucket, "out", str(path.relative_to(tmp_path / "out"))), path.read_bytes())
    name = "x.parquet" if format == "flat" else "x.json"
    here = ExportArguments(str(tmp_path / "out"), format, str(tmp_path / name))  # type: ignore[arg-type]
    there = replace(here, predictions=f"{bucket}/out", output=f"{bucket}/exports/{name}")
    assert export(here) == export(there) == 0
    # What comes before the licenses has the time in it.
    local, remote = (storage.read_bytes(one.output).split(b"licenses")[-1] for one in (here, there))
    assert local == remote
    with pytest.raises(InputError, match="--output exists already, in s3://"):
        export(there)


def test_options_and_notes_of_the_command_line(run: Run, table: str, tmp_path: Path) -> None:
    output = str(tmp_path / "flat.parquet")
    words = ["--categories", "box", "9", "--score-threshold", "0.35", "--sample", "2", "--sample-by", "random"]
    code, out, err = run("--predictions", table, "--format", "flat", "--output", output, "--seed", "3", *words)
    assert (code, err) == (0, "")
    lines = out.splitlines()[-2:]
    assert lines[0] == "1 images that could not be labelled are left out"
    assert lines[1].endswith(f"detections of 2 images: {output}")
