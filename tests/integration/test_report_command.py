"""The report command: what it writes on a disk and into a bucket, what it replaces, and what it says of wrong input."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from maskrcnn import storage
from maskrcnn.commands.command_line import run_command
from maskrcnn.commands.report import ReportArguments, report
from maskrcnn.errors import InputError
from maskrcnn.report.job import write_report
from maskrcnn.report.settings import ReportConfig
from tests.browser import Browser
from tests.conftest import s3_client
from tests.labelled_parts import FAILED, labelled, write_part
from tests.reported import NUM_IMAGES, draw_photo, write_labelled

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def labelled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels, images and truth.json."""
    folder = tmp_path_factory.mktemp("labelled")
    write_labelled(folder)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the real command line in this process: exit code, what it printed, what it complained."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["jobs/report.py", *words])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as stop:
            run_command(ReportArguments, report, "report")
        said = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, said.out, said.err

    return run


def files_of(site: Path) -> set[str]:
    return {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}


def test_a_report_is_one_folder(run: Run, labelled_folder: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    code, out, err = run("--predictions", str(labelled_folder / "labels"), "--output", str(site))
    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == [
        "1 photos could not be read; the gallery says why",
        f"60 images, 60 of them in the gallery: {site}/index.html",
    ]
    files = files_of(site)
    assert {path for path in files if "/" not in path} == {"index.html", "gallery.html", "report.json", "files.json"}
    assert {path for path in files if path.startswith("plots/")} == {
        f"plots/{name}.png" for name in ("categories", "scores", "sizes", "counts")
    }
    assert len([path for path in files if path.endswith("-small.jpg")]) == NUM_IMAGES - 2
    assert len([path for path in files if re.fullmatch(r"gallery/.*-000/\d{6}\.js", path)]) == NUM_IMAGES - 1
    summary = json.loads((site / "report.json").read_text())
    assert (summary["images"], summary["failed"], summary["shown"]) == (60, 1, 60)


def test_a_smaller_report_takes_the_place_of_a_larger_one(labelled_folder: Path, tmp_path: Path) -> None:
    labels, site = str(labelled_folder / "labels"), tmp_path / "site"
    truth = str(labelled_folder / "truth.json")
    metrics = labelled_folder / "metrics.json"
    metrics.write_text(json.dumps({"segm": {"AP": 0.5, "per_category_AP": {"2": 0.5}}}))
    write_report(ReportConfig(labels, str(site), annotations_uri=truth, metrics_uri=str(metrics)))
    assert "scores.html" in files_of(site)
    folders = set((site / "gallery").iterdir())
    (site / "notes.html").write_text("mine")
    written = write_report(ReportConfig(labels, str(site), max_images=3))
    assert (written.num_images, written.num_shown) == (60, 3)
    files = files_of(site)
    assert "scores.html" not in files
    assert "notes.html" in files
    assert not folders & {path for path in (site / "gallery").iterdir() if path.is_dir()}
    assert len([path for path in files if path.endswith("-small.jpg")]) <= 3
    assert "shows 3 of\n  60 images, chosen at random" in (site / "index.html").read_text()


def test_counts_go_with_the_report_that_they_belong_to(run: Run, labelled_folder: Path, tmp_path: Path) -> None:
    words = ["--predictions", str(labelled_folder / "labels"), "--output", str(tmp_path / "site"), "--max-images", "2"]
    assert run(*words, "--by", "(?P<kind>photo|img)")[0] == 0
    counts = {"counts.html", "counts.json", "counts.parquet"}
    assert counts <= files_of(tmp_path / "site")
    assert run(*words)[0] == 0
    assert not counts & files_of(tmp_path / "site")


def test_a_report_that_is_killed_leaves_the_earlier_gallery_whole(
    labelled_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ReportConfig(str(labelled_folder / "labels"), str(tmp_path), max_images=5)
    write_report(config)
    gallery = {path: path.read_bytes() for path in (tmp_path / "gallery").rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr("maskrcnn.report.job._write_overview", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_report(replace(config, seed=1))
    assert {path: path.read_bytes() for path in gallery} == gallery
    write_report(config)
    assert len(list((tmp_path / "gallery").iterdir())) == 2, "its index and one folder: what was left behind is gone"


def test_images_may_lie_elsewhere(labelled_folder: Path, tmp_path: Path) -> None:
    here = tmp_path / "moved"
    (labelled_folder / "images").rename(here)
    try:
        there = ReportConfig(str(labelled_folder / "labels"), str(tmp_path / "there"))
        assert write_report(there).num_without_picture == NUM_IMAGES - 1
        found = ReportConfig(str(labelled_folder / "labels"), str(tmp_path / "site"), images_uri=str(here))
        assert write_report(found).num_without_picture == 1
    finally:
        here.rename(labelled_folder / "images")


def test_the_folder_of_the_file_names_settles_which_of_two_images_is_annotated(tmp_path: Path) -> None:
    images = {folder: tmp_path / "images" / folder for folder in "ab"}
    for folder in images.values():
        folder.mkdir(parents=True)
        draw_photo(folder / "1.jpg", 1)
    results = dict.fromkeys(("a/1.jpg", "b/1.jpg"), labelled([]))
    table = write_part(tmp_path / "labels", results, bucket=str(tmp_path / "images"))
    document = {"images": [{"id": 1, "file_name": "1.jpg", "width": 64, "height": 48}], "annotations": []}
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({**document, "categories": [{"id": 2, "name": "can"}]}))
    config = ReportConfig(table, str(tmp_path / "site"), annotations_uri=str(truth))
    for elsewhere in (None, str(tmp_path)):
        with pytest.raises(InputError, match="image 1 of .* is claimed by two rows, .*; say with --images which"):
            write_report(replace(config, images_uri=elsewhere))
    assert write_report(replace(config, images_uri=str(images["b"]))).num_without_picture == 1


def test_a_table_that_holds_failures_alone_has_a_report(tmp_path: Path) -> None:
    table = write_part(tmp_path / "labels", {"a.jpg": FAILED})
    assert write_report(ReportConfig(table, str(tmp_path / "site"))).num_shown == 1


def test_a_bucket_serves_the_report_to_a_browser(
    chromium: Browser, s3_endpoint: str, bucket: str, labelled_folder: Path
) -> None:
    labels = labelled_folder / "labels"
    for path in labels.rglob("*.parquet"):
        storage.put(storage.join(bucket, "labels", str(path.relative_to(labels))), path.read_bytes())
    config = ReportConfig(f"{bucket}/labels", f"{bucket}/site", images_uri=str(labelled_folder / "images"))
    assert write_report(config).num_without_picture == 1
    write_report(ReportConfig(f"{bucket}/labels", f"{bucket}/site", max_images=40))  # replaces it, photos and all
    write_report(config)

    client, name = s3_client(), bucket.removeprefix("s3://")
    [photo] = [uri for uri in storage.list_uris(f"{bucket}/site") if uri.endswith("/000001.jpg")]
    kinds = {
        "index.html": "text/html; charset=utf-8",
        "assets/style.css": "text/css",
        "assets/gallery.js": "text/javascript",
        photo.removeprefix(f"{bucket}/site/"): "image/jpeg",
        "plots/scores.png": "image/png",
    }
    found = {key: client.head_object(Bucket=name, Key=f"site/{key}")["ContentType"] for key in kinds}
    assert found == kinds
    public = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/site/*"}
    client.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [public]}))
    address = f"{s3_endpoint}/{name}/site/gallery.html"
    with chromium.page(address) as page:
        page.wait_for_selector(".tile[data-place='3'][data-drawn='3']")
        page.click(".tile[data-place='3']")
        page.wait_for_selector("#viewer-instances tr")


def test_what_is_wrong_is_told_in_one_line(run: Run, labelled_folder: Path, tmp_path: Path) -> None:
    labels, output = str(labelled_folder / "labels"), str(tmp_path / "site")
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    foreign = {"images": [{"id": 900, "file_name": "x.jpg", "width": 4, "height": 4}], "annotations": []}
    (tmp_path / "foreign.json").write_text(json.dumps({**foreign, "categories": [{"id": 2, "name": "can"}]}))

    def refusal(*words: str, predictions: str = labels, into: str = output) -> str:
        code, out, err = run("--predictions", predictions, "--output", into, *words)
        assert (code, out) == (2, "")
        [line] = err.splitlines()
        return line.removeprefix("jobs.report: ")

    nothing = f"--predictions holds no labelled images, in {tmp_path}/empty; name the --output of a labelling job"
    assert refusal(predictions=str(tmp_path / "empty")) == nothing
    file = f"--output must be a folder, and is a file, in {tmp_path}/file"
    assert refusal(into=str(tmp_path / "file")).startswith(file)
    mine = f"--output must be a new folder, or one that maskrcnn report wrote, in {tmp_path}/mine; name another"
    assert refusal(into=str(tmp_path / "mine")).startswith(mine)
    assert refusal("--max-images", "0") == "--max-images must be 1 or more, got 0"
    assert refusal("--price-per-hour", "-1") == "--price-per-hour must be 0 or more, got -1.0"
    assert refusal("--annotations", "none.json").startswith("--annotations cannot be read: ")
    rule = "--annotations must be of images in the table, by image_id or file_name, and none is, as x.jpg"
    assert refusal("--annotations", str(tmp_path / "foreign.json")) == f"{rule}, in {tmp_path}/foreign.json"
    (tmp_path / "bare.json").write_text(json.dumps({**foreign, "images": [], "categories": [{"id": 2, "name": "can"}]}))
    bare = f"--annotations must have images, and has none, in {tmp_path}/bare.json"
    assert refusal("--annotations", str(tmp_path / "bare.json")) == bare
    assert refusal("--metrics", str(tmp_path / "foreign.json")).startswith("--metrics must be the --output of an")
    assert refusal("--training", str(tmp_path)).startswith("--training holds no metrics.jsonl")
    assert refusal("--images", str(tmp_path / "empty")).startswith("--images must hold images of the table, by the end")
    assert not Path(output).joinpath("index.html").exists()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
