"""Right, wrong, missed: what the gallery marks is what the evaluator counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn.coco import rle
from maskrcnn.coco.annotations import CocoDataset, parse_coco
from maskrcnn.coco.evaluate import evaluate
from maskrcnn.errors import AnnotationError
from maskrcnn.report.outcomes import IN_CROWD, NOT_JUDGED, RIGHT, WRONG, Found, judge
from tests.labelled import SIZE, mask

Box = tuple[int, int, int, int]


def truth(*objects: tuple[int, Box], crowds: tuple[tuple[int, Box], ...] = (), **without: Any) -> CocoDataset:
    annotations = [
        {"id": number, "image_id": 1, "category_id": category_id, "bbox": list(box), "area": box[2] * box[3]}
        | {"iscrowd": int(number > len(objects)), "segmentation": rle.to_json(mask(*box))}
        for number, (category_id, box) in enumerate((*objects, *crowds), start=1)
    ]
    for each in annotations:
        for field in without:
            del each[field]
    images = [{"id": 1, "file_name": "a.jpg", "height": SIZE[0], "width": SIZE[1]}]
    categories = [{"id": 3, "name": "box"}, {"id": 8, "name": "bag"}]
    return parse_coco({"images": images, "annotations": annotations, "categories": categories}, "truth.json")


def found(*objects: tuple[int, Box], with_masks: bool = True, size: tuple[int, int] = SIZE) -> Found:
    boxes = np.array([box for _, box in objects], np.float64).reshape(-1, 4)
    masks = [mask(*box) for _, box in objects] if with_masks else None
    return Found(size, np.array([category_id for category_id, _ in objects], np.int64), boxes, masks)


@pytest.mark.parametrize("with_masks", [True, False])
def test_the_best_detection_of_an_object_is_right_and_the_next_is_wrong(with_masks: bool) -> None:
    dataset = truth((3, (2, 2, 10, 8)), (8, (30, 5, 12, 20)))
    seen = found((3, (2, 2, 10, 8)), (3, (2, 3, 10, 8)), (3, (30, 5, 12, 20)), with_masks=with_masks)
    outcomes = judge(seen, dataset, 0)
    assert outcomes.kinds.tolist() == [RIGHT, WRONG, WRONG]
    assert outcomes.truths.tolist() == [0, 1]
    assert outcomes.finders.tolist() == [0, -1]


def test_a_crowd_takes_any_number_and_is_never_missed() -> None:
    dataset = truth((3, (2, 2, 4, 4)), crowds=((3, (20, 0, 40, 40)),))
    outcomes = judge(found((3, (22, 4, 8, 8)), (3, (40, 20, 8, 8))), dataset, 0)
    assert outcomes.kinds.tolist() == [IN_CROWD, IN_CROWD]
    assert outcomes.truths.tolist() == [0]
    assert outcomes.finders.tolist() == [-1]


def test_a_category_that_the_truth_does_not_know_is_not_judged() -> None:
    assert judge(found((77, (2, 2, 10, 8))), truth((3, (2, 2, 10, 8))), 0).kinds.tolist() == [NOT_JUDGED]


def test_annotations_without_masks_are_matched_by_boxes() -> None:
    dataset = truth((3, (2, 2, 10, 8)), segmentation=...)
    assert judge(found((3, (2, 2, 10, 8))), dataset, 0).kinds.tolist() == [RIGHT]


def test_nothing_found_and_nothing_there() -> None:
    assert judge(found(), truth((3, (2, 2, 10, 8))), 0).finders.tolist() == [-1]
    assert judge(found((3, (2, 2, 10, 8))), truth(), 0).kinds.tolist() == [WRONG]


def test_an_image_of_another_size_is_refused() -> None:
    rule = "image 1 must be of the size that was labelled, 99 x 88 px, got 60 x 40"
    with pytest.raises(AnnotationError, match=rule):
        judge(found(size=(88, 99)), truth(), 0)


_BOXES = st.tuples(st.integers(0, 30), st.integers(0, 20), st.integers(3, 20), st.integers(3, 15))
_OBJECTS = st.lists(st.tuples(st.sampled_from([3, 8]), _BOXES), max_size=8)


@settings(max_examples=60, deadline=None)
@given(_OBJECTS, _OBJECTS, st.integers(0, 8))
def test_leaving_out_the_worst_changes_nothing_for_the_others(
    objects: list[tuple[int, Box]], seen: list[tuple[int, Box]], num_kept: int
) -> None:
    dataset = truth(*objects)
    all_of_them, best = judge(found(*seen), dataset, 0), judge(found(*seen[:num_kept]), dataset, 0)
    assert best.kinds.tolist() == all_of_them.kinds[:num_kept].tolist()
    is_kept = all_of_them.finders < num_kept
    assert best.finders.tolist() == np.where(is_kept, all_of_them.finders, -1).tolist()


@settings(max_examples=40, deadline=None)
@given(_OBJECTS, _OBJECTS.filter(len))
def test_as_many_are_right_as_the_evaluator_counts(objects: list[tuple[int, Box]], seen: list[tuple[int, Box]]) -> None:
    dataset = truth(*objects)
    results = [
        {"image_id": 1, "category_id": category_id, "score": 0.9 - place / 100, "bbox": list(box)}
        | {"segmentation": rle.to_json(mask(*box))}
        for place, (category_id, box) in enumerate(seen)
    ]
    metrics = evaluate(dataset, results, iou_types=("segm",), max_detections=(100,), with_analysis=True)["segm"]
    outcomes = judge(found(*seen), dataset, 0)
    best = metrics["best_f1"]["overall"]
    num_kept = sum(result["score"] >= best["score_threshold"] for result in results)
    if best["f1"] > 0:
        assert (outcomes.kinds[:num_kept] == RIGHT).sum() == round(best["recall"] * len(objects))
    else:
        assert not (outcomes.kinds == RIGHT).any()
