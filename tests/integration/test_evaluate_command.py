"""The evaluate command: a results file and a labelled folder against annotations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from jobs.evaluate import EvaluateArguments, run_evaluation
from maskrcnn import storage
from maskrcnn.coco import rle
from maskrcnn.errors import InputError
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan import PartId, PlannedPart
from maskrcnn.labelling.results import ImageResult
from maskrcnn.labelling.table import RunStamp, build_part, part_to_parquet
from maskrcnn.model.predictor import Detections

SIZE = (40, 60)
CATEGORIES = {3: "box", 8: "bag"}


@pytest.mark.parametrize("name", ["cocoapi100_segm", "cocoapi100_bbox", "fce_small_bbox", "fce_small_segm"])
def test_published_results_get_the_published_numbers(shared_path: Path, tmp_path: Path, name: str) -> None:
    folder = shared_path / "reference"
    case = json.loads((folder / "expected.json").read_text())[name]
    arguments = EvaluateArguments(
        annotations=str(folder / case["gt"]),
        predictions=str(folder / case["dt"]),
        iou_types=(case["iou_type"],),
        output=str(tmp_path / "metrics.json"),
    )
    assert run_evaluation(arguments) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == [case["iou_type"]]
    row = metrics[case["iou_type"]]
    assert len(case["expected"]) == 12
    assert {key: row[key] for key in case["expected"]} == pytest.approx(case["expected"], abs=1e-6)


def mask(x: int, y: int, w: int, h: int) -> rle.Rle:
    drawn = np.zeros(SIZE, np.uint8)
    drawn[y : y + h, x : x + w] = 1
    return rle.from_mask(drawn)


def found(*rows: tuple[int, float, tuple[int, int, int, int]], with_masks: bool = True) -> ImageResult:
    boxes = torch.tensor([[x, y, x + w, y + h] for _, _, (x, y, w, h) in rows], dtype=torch.float32).reshape(-1, 4)
    category_ids = torch.tensor([category_id for category_id, _, _ in rows], dtype=torch.int64)
    scores = torch.tensor([score for _, score, _ in rows], dtype=torch.float32)
    rles = [mask(*place) for _, _, place in rows] if with_masks else []
    return ImageResult(SIZE[1], SIZE[0], Detections(SIZE, boxes, scores, category_ids, category_ids, rles))


FAILED = ImageResult(error_kind="corrupt", error_message="cut off")
TRUTH = {1: [(3, (2, 2, 10, 8)), (8, (30, 5, 12, 20))], 2: [(3, (5, 5, 20, 20))], 7: [(8, (1, 1, 9, 9))]}
FILE_NAMES = {1: "front/a.jpg", 2: "front/b.jpg", 7: "back/a.jpg"}
LABELLED = {
    "front/a.jpg": found((3, 0.9, (2, 2, 10, 8)), (8, 0.8, (30, 6, 12, 20)), (3, 0.4, (40, 20, 10, 10))),
    "front/b.jpg": found((3, 0.7, (5, 5, 20, 20))),
    "back/a.jpg": FAILED,
    "back/not-annotated.jpg": found((3, 0.6, (5, 5, 20, 20)), (8, 0.6, (5, 5, 20, 20))),
}


def write_truth(path: Path, file_names: dict[int, str] = FILE_NAMES) -> str:
    annotations = [
        {"image_id": image_id, "category_id": category_id, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        | {"segmentation": {"size": SIZE, "counts": mask(*box)["counts"].decode()}}
        for image_id, objects in TRUTH.items()
        for category_id, box in objects
    ]
    document = {
        "images": [
            {"id": image_id, "file_name": name, "width": SIZE[1], "height": SIZE[0]}
            for image_id, name in file_names.items()
        ],
        "annotations": [{"id": index, **each} for index, each in enumerate(annotations, start=1)],
        "categories": [{"id": category_id, "name": name} for category_id, name in CATEGORIES.items()],
    }
    path.write_text(json.dumps(document))
    return str(path)


def write_table(
    folder: Path, results: dict[str, ImageResult], *, image_ids: list[int | None] | None = None, number: int = 1
) -> str:
    """Leave what a labelling job leaves: images of a bucket, and their rows."""
    keys = pa.table(
        {
            "image_uri": [f"s3://shop/photos/{name}" for name in results],
            "etag": ["1"] * len(results),
            "attempt": pa.array([number] * len(results), pa.int16()),
            "image_id": pa.array(image_ids or [None] * len(results), pa.int64()),
        }
    )
    has_masks = any(result.detections and result.detections.rles for result in results.values())
    stamp = RunStamp("run", "abc", 0.3, CATEGORIES, "full" if has_masks else "none")
    output = Output(str(folder))
    part = PlannedPart(PartId(number, 0), None, len(results))
    storage.put_if_absent(output.part_uri(part), part_to_parquet(build_part(keys, list(results.values()), stamp)))
    return str(folder)


def to_results_json(path: Path, results: dict[str, ImageResult], file_names: dict[int, str] = FILE_NAMES) -> str:
    """Write the same detections as a COCO results file, by hand."""
    ids = {name: image_id for image_id, name in file_names.items()}
    rows: list[dict[str, Any]] = []
    for name, result in results.items():
        one = result.detections
        for place in range(result.num_instances):
            assert one is not None
            x0, y0, x1, y1 = one.boxes[place].tolist()
            rows.append(
                {
                    "image_id": ids.get(name, 999),
                    "category_id": int(one.category_ids[place]),
                    "score": float(one.scores[place]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": {"size": SIZE, "counts": one.rles[place]["counts"].decode()},
                }
            )
    path.write_text(json.dumps(rows))
    return str(path)


def score(tmp_path: Path, **arguments: Any) -> dict[str, Any]:
    output = tmp_path / "metrics.json"
    assert run_evaluation(EvaluateArguments(output=str(output), **arguments)) == 0
    metrics: dict[str, Any] = json.loads(output.read_text())
    return metrics


def test_a_labelled_folder_scores_as_the_same_detections_in_a_results_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = write_truth(tmp_path / "truth.json")
    by_file = score(tmp_path, annotations=truth, predictions=to_results_json(tmp_path / "results.json", LABELLED))
    capsys.readouterr()
    by_table = score(tmp_path, annotations=truth, predictions=write_table(tmp_path / "out", LABELLED))
    assert by_table == by_file
    assert by_table["dropped_predictions"] == {"unknown_image": 2, "unknown_category": 0}
    assert 0.3 < by_table["segm"]["AP"] < 1
    # Half of the bags are in the image that failed; the other was found a pixel too low: IoU 19/21.
    assert by_table["bbox"]["per_category_AP"]["3"] == pytest.approx(1)
    assert by_table["bbox"]["per_category_AP"]["8"] == pytest.approx(9 / 10 * 51 / 101)
    missing, header, bbox, segm, *_, dropped = capsys.readouterr().out.splitlines()
    assert missing == "1 of 3 images failed or are not in the table; they count as empty"
    assert header.split()[:3] == ["AP", "AP50", "AP75"]
    assert (bbox.split()[0], segm.split()[0]) == ("bbox", "segm")
    assert dropped == "dropped predictions: 2 of an unknown image"


def test_image_ids_of_the_table_come_before_its_names(tmp_path: Path) -> None:
    renamed = {1: "x.jpg", 2: "y.jpg", 7: "front/a.jpg"}  # the last would mislead
    truth = write_truth(tmp_path / "truth.json", renamed)
    table = write_table(tmp_path / "out", LABELLED, image_ids=[1, 2, 7, 999])
    expected = to_results_json(tmp_path / "results.json", LABELLED)
    assert score(tmp_path, annotations=truth, predictions=table) == score(
        tmp_path, annotations=truth, predictions=expected
    )


def test_the_current_rows_count(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.json")
    table = write_table(tmp_path / "out", LABELLED)
    again = {"back/a.jpg": found((8, 0.9, (1, 1, 9, 9)))}
    write_table(tmp_path / "out", again, number=2)
    expected = to_results_json(tmp_path / "results.json", {**LABELLED, **again})
    assert score(tmp_path, annotations=truth, predictions=table) == score(
        tmp_path, annotations=truth, predictions=expected
    )


def test_the_longest_end_of_the_uri_decides(tmp_path: Path) -> None:
    names = {1: "a.jpg", 2: "front/b.jpg", 7: "./back//a.jpg"}
    truth = write_truth(tmp_path / "truth.json", names)
    labelled = {**LABELLED, "back/a.jpg": found((8, 0.9, (1, 1, 9, 9)))}
    table = write_table(tmp_path / "out", labelled)
    expected = to_results_json(tmp_path / "results.json", labelled)
    assert score(tmp_path, annotations=truth, predictions=table) == score(
        tmp_path, annotations=truth, predictions=expected
    )


def test_two_rows_that_could_be_one_image_are_named_and_the_folder_settles_it(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.json", {1: "a.jpg", 2: "b.jpg", 7: "c.jpg"})
    labelled = {"front/a.jpg": LABELLED["front/a.jpg"], "back/a.jpg": FAILED}
    table = write_table(tmp_path / "out", labelled)
    with pytest.raises(InputError, match="image 1 of .* is claimed by two rows, .*/front/a.jpg and .*/back/a.jpg, in"):
        run_evaluation(EvaluateArguments(truth, predictions=table))
    metrics = score(tmp_path, annotations=truth, predictions=table, images="s3://shop/photos/front/")
    assert metrics["bbox"]["per_category_AP"]["3"] == pytest.approx(51 / 101)


def test_two_images_of_one_file_name_are_named(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.json", {1: "front/a.jpg", 2: "b.jpg", 7: "front/a.jpg"})
    table = write_table(tmp_path / "out", LABELLED)
    with pytest.raises(
        InputError, match="file_name front/a.jpg is the file_name of two images, 1 and 7, and s3://shop"
    ):
        run_evaluation(EvaluateArguments(truth, predictions=table))


def test_a_table_of_other_images_is_refused(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.json")
    table = write_table(tmp_path / "out", {"elsewhere.jpg": FAILED})
    with pytest.raises(
        InputError, match="--predictions must be of images in .*truth.json, .* as s3://shop/photos/else"
    ):
        run_evaluation(EvaluateArguments(truth, predictions=table))


def test_a_table_without_masks_scores_boxes_only(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.json")
    table = write_table(tmp_path / "out", {"front/b.jpg": found((3, 0.7, (5, 5, 20, 20)), with_masks=False)})
    with pytest.raises(InputError, match="was labelled with --masks none, .*; take --iou-types bbox"):
        run_evaluation(EvaluateArguments(truth, predictions=table))
    assert list(score(tmp_path, annotations=truth, predictions=table, iou_types=("bbox",))) == ["bbox"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"predictions": None}, "--predictions or --bundle must be given, one of the two"),
        ({"bundle": "b"}, "--predictions or --bundle must be given, one of the two"),
        ({"predictions": None, "bundle": "b"}, "--images must be given with --bundle: the folder of"),
        ({"predictions": "none.json"}, "--predictions cannot be read: .*none.json"),
        ({"predictions": "empty-folder"}, "--predictions holds no labelled images, in empty-folder"),
        ({"annotations": "none.json"}, "--annotations cannot be read: .*none.json"),
        ({"iou_types": ()}, "--iou-types must be bbox, segm or boundary, one or more, got nothing"),
        ({"max_detections": (0,)}, r"--max-detections must be 1 or more each, got \(0,\)"),
        ({"output": "/proc/metrics.json"}, "--output cannot be written: .*, in /proc/metrics.json"),
    ],
)
def test_wrong_input_is_told(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    truth = write_truth(tmp_path / "truth.json")
    good = EvaluateArguments(truth, predictions=to_results_json(tmp_path / "results.json", LABELLED))
    with pytest.raises(InputError, match=line):
        run_evaluation(replace(good, **changes))
