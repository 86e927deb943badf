"""The worked example of counting, command by command; what a network would find is the drawing's own truth here."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import torch
import tyro

from maskrcnn.coco import rle
from maskrcnn.commands.predict import PredictArguments
from maskrcnn.counting.page import CountsReport, count_nights, write_counts
from maskrcnn.counting.words import describe_counts
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.results import ImageResult
from maskrcnn.model.predictor import Detections
from maskrcnn.report.site import Site
from tests.conftest import PROJECT_ROOT
from tests.labelled_parts import write_part


def blocks(name: str) -> list[str]:
    """Give the commands of a document, a block each."""
    return re.findall(r"^```sh\n(.*?)^```", (PROJECT_ROOT / "docs" / name).read_text(), re.MULTILINE | re.DOTALL)


def words(command: str, job: str) -> list[str]:
    """Give what a command passes to a job."""
    python, module, name, *rest = shlex.split(command.replace("\\\n", ""))
    assert (python, module, name) == ("python", "-m", job)
    return rest


def parse(arguments_class: type, given: list[str]) -> object:
    return tyro.cli(arguments_class, args=given, config=(tyro.conf.OmitArgPrefixes,))


def run_shell(command: str, folder: Path) -> str:
    script = command.replace("python ", f"{sys.executable} ", 1).replace("docs/", f"{PROJECT_ROOT}/docs/")
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def label_by_truth(shelves: Path, output: Path) -> None:
    """Leave the table that a faultless network would leave: a part a night."""
    document = json.loads((shelves / "annotations.json").read_text())
    found: dict[int, list[Mapping[str, object]]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        found[annotation["image_id"]].append(annotation)
    by_night: dict[str, dict[str, ImageResult]] = {}
    for image in document["images"]:
        ones = found[image["id"]]
        rles = [rle.from_segmentation(one["segmentation"], image["height"], image["width"]) for one in ones]
        boxes = torch.tensor([rle.to_bbox(one) for one in rles], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        ids = torch.tensor([one["category_id"] for one in ones], dtype=torch.int64)
        size = (image["height"], image["width"])
        detections = Detections(size, boxes, torch.full((len(ids),), 0.9), ids, ids, rles)
        night = image["file_name"].split("/")[0]
        by_night.setdefault(night, {})[image["file_name"]] = ImageResult(size[1], size[0], detections)
    categories = {one["id"]: one["name"] for one in document["categories"]}
    for place, (night, results) in enumerate(by_night.items()):
        write_part(output, results, part=place, date=night, bucket=str(shelves / "photos"), categories=categories)


def test_counting_shelves_as_the_document_tells_it(tmp_path: Path) -> None:
    draw, predict, report, query = blocks("COUNTING.md")
    run_shell(draw, tmp_path)
    assert len(list((tmp_path / "shelves" / "photos").rglob("*.jpg"))) == 8 * 3 * 2 * 5

    asked = parse(PredictArguments, words(predict, "jobs.predict"))
    assert isinstance(asked, PredictArguments)
    assert asked.date_from is not None
    assert re.search(asked.date_from, "shelves/photos/2026-11-22/store-north/camera-2/0003.jpg")
    label_by_truth(tmp_path / "shelves", tmp_path / asked.output)
    assert Output(str(tmp_path / asked.output)).list_parts()

    options = words(report, "jobs.report")
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given["--predictions"] == asked.output
    site = Site(str(tmp_path / given["--output"]), "Shelves", [("counts.html", "Counts")])
    found = count_nights(str(tmp_path / given["--predictions"]), [given["--by"]])
    write_counts(site, found)
    _check_story(found, tmp_path / given["--output"])
    told = run_shell(query, tmp_path)
    counts = pq.read_table(tmp_path / given["--output"] / "counts.parquet").to_pandas()
    last = counts[counts.date == "2026-11-22"].groupby("store").num_instances.sum()
    assert last["south"] < 0.6 * min(last["east"], last["north"])
    assert {"east", "north", "south"} <= set(told.split())


def _check_story(found: CountsReport, site: Path) -> None:
    assert {one.group[0] for one in found.drift.drifting} == {"south"}
    assert {one.group for one in found.drift.drifting if one.category is None} == {("south", "1"), ("south", "2")}
    emptiest = found.empty_shelves[0]
    assert emptiest[1].endswith("photos/2026-11-22/store-north/camera-2/0003.jpg")
    assert emptiest[0].count == 0
    assert {one.group[0] for one, _ in found.empty_shelves[1:]} <= {"south"}
    assert "vanished" not in describe_counts(found)
    assert (site / "shelves" / "000.jpg").is_file()
