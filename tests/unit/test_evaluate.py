"""COCO's numbers: equal to pycocotools' on real and reference pairs, and sensible where pycocotools gives up."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.coco import rle
from maskrcnn.coco.annotations import CocoDataset, load_coco, parse_coco
from maskrcnn.coco.evaluate import evaluate
from maskrcnn.coco.evaluate.scoreboard import format_metrics
from maskrcnn.coco.packed import SizedSegmentations
from maskrcnn.coco.results import CocoResults, load_results, parse_results
from maskrcnn.errors import AnnotationError, InputError

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
REFERENCE_PAIRS = ["cocoapi100_segm", "cocoapi100_bbox", "fce_small_bbox", "fce_small_segm"]
DETECTRON2_CASES = [
    "full",
    "empty_dt",
    "empty_gt",
    *(f"omit_{side}_{field}" for side in ("gt", "dt") for field in ("id", "image_id", "category_id", "score")),
    *(f"omit_{side}_{field}" for side in ("gt", "dt") for field in ("area", "iscrowd", "bbox", "segmentation")),
]


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


@pytest.fixture
def dataset() -> CocoDataset:
    """Two images of 200 x 200 px, two categories, three squares of 40 px; ids begin at 0."""
    places = [(0, 1, 10), (0, 1, 100), (1, 5, 50)]
    annotations = [
        {
            "id": index,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": [x, 10, 40, 40],
            "area": 1600,
            "iscrowd": 0,
            "segmentation": square(x, 10, 40),
        }
        for index, (image_id, category_id, x) in enumerate(places)
    ]
    images = [{"id": image_id, "file_name": f"{image_id}.png", "width": 200, "height": 200} for image_id in (0, 1)]
    categories = [{"id": 5, "name": "tin"}, {"id": 1, "name": "cup"}, {"id": 9, "name": "never seen"}]
    return parse_coco({"images": images, "annotations": annotations, "categories": categories}, "val.json")


def perfect(dataset: CocoDataset) -> list[dict[str, Any]]:
    return [
        {
            "image_id": int(dataset.image_ids[dataset.image_indices[index]]),
            "category_id": int(dataset.category_ids[index]),
            "bbox": dataset.bboxes[index].tolist(),
            "segmentation": dataset.segmentation(index),
            "score": 0.9,
        }
        for index in range(dataset.num_annotations)
    ]


def assert_equal(got: dict[str, Any], expected: dict[str, Any]) -> None:
    flat = {**expected, **{f"category {k}": v for k, v in expected.get("per_category_AP", {}).items()}}
    flat.pop("per_category_AP", None)
    ours = {**got, **{f"category {k}": v for k, v in got["per_category_AP"].items()}}
    assert {name: ours[name] for name in flat} == pytest.approx(flat, abs=1e-6)


@pytest.mark.parametrize("name", REFERENCE_PAIRS)
def test_published_pairs_give_the_published_numbers(shared_path: Path, name: str) -> None:
    folder = shared_path / "reference"
    case = json.loads((folder / "expected.json").read_text())[name]
    metrics = evaluate(
        load_coco(str(folder / case["gt"])), load_results(str(folder / case["dt"])), iou_types=[case["iou_type"]]
    )
    assert_equal(metrics[case["iou_type"]], case["expected"])


@pytest.mark.parametrize("name", ["coco_cc_by", "dsb2018_nuclei"])
def test_real_sets_give_pycocotools_numbers_and_ap_of_each_category(shared_path: Path, name: str) -> None:
    folder = shared_path / "data" / name
    expected = json.loads((folder / "expected_val.json").read_text())
    dataset = load_coco(str(folder / "annotations_val.json"))
    predictions = json.loads((folder / "preds_val.json").read_text())
    metrics = evaluate(dataset, predictions)
    assert set(metrics) == {"bbox", "segm"}
    assert list(metrics["segm"]) == [*NAMES, "per_category_AP"]
    assert_equal(metrics["bbox"], expected["bbox"])
    assert_equal(metrics["segm"], expected["segm"])
    without_boxes = [{key: value for key, value in row.items() if key != "bbox"} for row in predictions]
    assert_equal(evaluate(dataset, without_boxes, iou_types=["segm"])["segm"], expected["segm_no_bbox_key"])


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("name", DETECTRON2_CASES)
def test_pairs_with_a_field_left_out_score_or_say_what_is_missing(shared_path: Path, name: str, iou_type: Any) -> None:
    folder = shared_path / "reference" / "detectron2" / "cases"
    expected = json.loads((folder / "expected.json").read_text())[name][iou_type]

    def scores() -> dict[str, Any]:
        dataset, results = (str(folder / f"{name}.{side}.json") for side in ("gt", "dt"))
        return evaluate(load_coco(dataset), load_results(results), iou_types=[iou_type])[iou_type]

    if name == "empty_dt":
        assert [scores()[key] for key in ("AP", "AP50", "AR100")] == [0, 0, 0]
    elif "exception" in expected:
        missing = name.split("_", 2)[2]
        with pytest.raises(AnnotationError, match=f"{missing} must be .* in .*{name}"):
            scores()
    else:
        assert_equal(scores(), expected)


def test_perfect_predictions_score_one_even_where_ids_begin_at_zero(dataset: CocoDataset) -> None:
    metrics = evaluate(dataset, perfect(dataset))
    for row in metrics.values():
        assert row["AP"] == row["AP75"] == row["APm"] == row["AR10"] == pytest.approx(1.0)
        assert row["APs"] == row["APl"] == row["ARs"] == -1
        assert row["per_category_AP"] == pytest.approx({"1": 1.0, "5": 1.0, "9": -1})


def test_no_predictions_score_zero(dataset: CocoDataset) -> None:
    for row in evaluate(dataset, []).values():
        assert row["AP"] == row["AR100"] == row["APm"] == 0
        assert row["APs"] == -1
        assert row["per_category_AP"] == {"1": 0, "5": 0, "9": -1}


def test_more_than_a_hundred_detections_count_where_asked_for(dataset: CocoDataset) -> None:
    """149 false ones stand before the true one, which a limit of 100 never sees."""
    rows = perfect(dataset)[2:]
    false = [{**rows[0], "bbox": [150, 150, 9, 9], "segmentation": square(150, 150, 9), "score": 0.95}] * 149
    at_100 = evaluate(dataset, false + rows)["segm"]
    assert at_100["per_category_AP"]["5"] == 0
    at_300 = evaluate(dataset, false + rows, max_detections=(300, 1, 10))["segm"]
    assert at_300["per_category_AP"]["5"] == pytest.approx(1 / 150)
    assert [name for name in at_300 if name.startswith("AR")] == ["AR1", "AR10", "AR300", "ARs", "ARm", "ARl"]
    assert at_300["AP"] > 0
    assert at_300["AR10"] == 0
    assert at_300["AR300"] == pytest.approx(0.5)
    assert list(evaluate(dataset, rows, iou_types=["bbox"], max_detections=[7])["bbox"])[6:7] == ["AR7"]


@pytest.mark.parametrize("limits", [[], [0, 1], [-1]])
def test_limits_that_cannot_be_are_refused(dataset: CocoDataset, limits: list[int]) -> None:
    with pytest.raises(InputError, match="--max-detections must be numbers of 1 or more"):
        evaluate(dataset, [], max_detections=limits)


def test_predictions_of_unknown_images_and_categories_are_dropped_and_counted(dataset: CocoDataset) -> None:
    rows = perfect(dataset)
    foreign = [
        {**rows[0], "image_id": 77},
        {**rows[0], "image_id": 78, "category_id": 4},
        {**rows[0], "category_id": 4},
    ]
    metrics = evaluate(dataset, foreign + rows)
    assert metrics.pop("dropped_predictions") == {"unknown_image": 2, "unknown_category": 1}
    assert metrics == evaluate(dataset, rows)


def test_columns_give_the_numbers_of_the_list(dataset: CocoDataset) -> None:
    rows = perfect(dataset)
    columns = CocoResults(
        place="predictions/",
        image_ids=np.array([row["image_id"] for row in rows]),
        category_ids=np.array([row["category_id"] for row in rows]),
        scores=np.array([row["score"] for row in rows]),
        bboxes=None,
        segmentations=SizedSegmentations.from_rles([dataset.rle(index) for index in range(dataset.num_annotations)]),
    )
    without_boxes = [{key: value for key, value in row.items() if key != "bbox"} for row in rows]
    assert evaluate(dataset, columns) == evaluate(dataset, without_boxes)


def test_scoring_prints_nothing(dataset: CocoDataset, capfd: pytest.CaptureFixture[str]) -> None:
    evaluate(dataset, perfect(dataset))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": "7"}, "predictions[1] image_id must be a whole number, got '7'"),
        ({"category_id": 1.5}, "predictions[1] (image 0) category_id must be a whole number, got 1.5"),
        ({"score": math.nan}, "predictions[1] (image 0) score must be there, and finite"),
        ({"score": None}, "predictions[1] (image 0) score must be there, and finite"),
        ({"score": "high"}, "predictions[1] (image 0) score must be a number, got 'high'"),
        ({"bbox": [0, 0, math.inf, 1]}, "predictions[1] (image 0) bbox must be there, and finite"),
        ({"bbox": [0, 0, 1]}, "predictions[1] (image 0) bbox must be [x, y, width, height] in px, got [0, 0, 1]"),
        ({"bbox": None}, "predictions[1] (image 0) bbox must be there, since other predictions have one"),
        (
            {"segmentation": {"size": [200, 200], "counts": "Pp"}},
            "predictions[1] (image 0) segmentation counts must hold bytes 48 to 111",
        ),
        (
            {"segmentation": rle.to_json(rle.from_mask(np.ones((100, 400))))},
            "predictions[1] (image 0) segmentation size must be its image's [height, width] [200, 200], got [100, 400]",
        ),
    ],
)
def test_broken_predictions_are_named(dataset: CocoDataset, change: dict[str, Any], message: str) -> None:
    rows = perfect(dataset)
    rows[1].update(change)
    with pytest.raises(AnnotationError) as caught:
        evaluate(dataset, parse_results(json.dumps(rows).encode(), "s3://bucket/results.json"))
    assert message in str(caught.value)
    assert str(caught.value).endswith("in s3://bucket/results.json")


def test_predictions_with_neither_box_nor_mask_are_refused(dataset: CocoDataset) -> None:
    with pytest.raises(AnnotationError, match=r"predictions\[0\] \(image 0\) segmentation must be there"):
        evaluate(dataset, [{"image_id": 0, "category_id": 1, "score": 1}])


@pytest.mark.parametrize(("body", "message"), [(b"{}", "got an object"), (b"3", "predictions must be a list, got int")])
def test_what_is_no_results_file_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        parse_results(body, "results.json")


def test_the_table_for_people_has_a_line_an_iou_type(dataset: CocoDataset) -> None:
    metrics = evaluate(dataset, [*perfect(dataset), {**perfect(dataset)[0], "image_id": 77}])
    header, bbox, segm, dropped = format_metrics(metrics).splitlines()
    assert header.split() == NAMES
    assert " ".join(bbox.split()) == "bbox 1.000 1.000 1.000 - 1.000 - 0.750 1.000 1.000 - 1.000 -"
    assert segm.split()[0] == "segm"
    assert len(header) == len(bbox) == len(segm) == 88
    assert dropped == "dropped predictions: 1 of an unknown image"
