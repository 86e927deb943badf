"""Boundary AP: the outlines of masks worked out by hand, and the numbers of another implementation on real sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.coco import rle
from maskrcnn.coco.annotations import load_coco, parse_coco
from maskrcnn.coco.evaluate import evaluate
from maskrcnn.coco.evaluate.boundary import boundary_of, boundary_width
from maskrcnn.coco.results import load_results


@pytest.mark.parametrize(
    ("size", "width"),
    [((480, 640), 16), ((1, 1), 1), ((30, 40), 1), ((60, 80), 2), ((1080, 1920), 44)],
)
def test_a_boundary_is_a_fiftieth_of_the_diagonal_wide(size: tuple[int, int], width: int) -> None:
    assert boundary_width(*size) == width


def test_the_boundary_of_a_rectangle_is_a_frame() -> None:
    mask = np.zeros((60, 80), np.uint8)  # of which boundaries are 2 px wide
    mask[10:30, 20:50] = 1
    expected = mask.copy()
    expected[12:28, 22:48] = 0
    assert (rle.to_mask(boundary_of(rle.from_mask(mask))) == expected).all()


def test_the_edge_of_the_image_is_an_outline_too() -> None:
    expected = np.ones((60, 80), np.uint8)
    expected[2:58, 2:78] = 0
    assert (rle.to_mask(boundary_of(rle.from_mask(np.ones((60, 80))))) == expected).all()


@pytest.mark.parametrize("mask", [np.zeros((60, 80)), np.pad(np.ones((4, 50)), ((9, 47), (5, 25)))])
def test_an_empty_or_thin_mask_is_its_own_boundary(mask: np.ndarray) -> None:
    assert boundary_of(rle.from_mask(mask)) == rle.from_mask(mask)


def test_outlines_decide_where_masks_hardly_differ() -> None:
    """A square of 200 px found 3 px too far right: IoU 197/203; boundaries of 8 px share much less."""
    truth, found = np.zeros((240, 320), np.uint8), np.zeros((240, 320), np.uint8)
    truth[20:220, 40:240], found[20:220, 43:243] = 1, 1
    frame, moved = truth.copy(), found.copy()
    frame[28:212, 48:232], moved[28:212, 51:235] = 0, 0
    boundary_iou = float((frame & moved).sum() / (frame | moved).sum())
    images = [{"id": 1, "file_name": "a.png", "height": 240, "width": 320}]
    row = {"image_id": 1, "category_id": 1, "segmentation": rle.to_json(rle.from_mask(truth))}
    annotation = {**row, "id": 1, "area": 40_000, "iscrowd": 0}
    dataset = parse_coco(
        {"images": images, "annotations": [annotation], "categories": [{"id": 1, "name": "box"}]}, "truth.json"
    )
    predictions = [{**row, "segmentation": rle.to_json(rle.from_mask(found)), "score": 0.5}]
    metrics = evaluate(dataset, predictions, iou_types=["segm", "boundary"])
    assert metrics["segm"]["AP"] == pytest.approx(1)  # 0.970 is above 0.95
    num_reached = sum(boundary_iou >= threshold for threshold in np.linspace(0.5, 0.95, 10))
    assert 1 <= num_reached <= 9
    assert metrics["boundary"]["AP"] == pytest.approx(num_reached / 10)


@pytest.mark.parametrize("name", ["coco_cc_by", "dsb2018_nuclei"])
def test_real_sets_give_the_numbers_of_faster_coco_eval(shared_path: Path, name: str) -> None:
    from faster_coco_eval import COCO, COCOeval_faster

    truth_uri, found_uri = (
        str(shared_path / "data" / name / each) for each in ("annotations_val.json", "preds_val.json")
    )
    truth = COCO(json.loads(Path(truth_uri).read_text()))
    run = COCOeval_faster(truth, truth.loadRes(json.loads(Path(found_uri).read_text())), "boundary")
    run.evaluate()
    run.accumulate()
    run.summarize()
    row = evaluate(load_coco(truth_uri), load_results(found_uri), iou_types=["boundary"])["boundary"]
    ours = [value for value in row.values() if isinstance(value, float)]
    assert 0.2 < row["AP"] < 0.5
    assert ours == pytest.approx(run.stats[:12].tolist(), abs=1e-9)
