"""What the matches tell beyond COCO's numbers, on small cases whose answers are worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from maskrcnn.coco.annotations import CocoDataset, parse_coco
from maskrcnn.coco.evaluate import evaluate

TIN, CUP, BAG = 3, 8, 9
NAMES = {TIN: "tin", CUP: "cup", BAG: "bag"}
Place = tuple[float, float, float, float]


def build(*truths: tuple[int, Place] | tuple[int, Place, int]) -> CocoDataset:
    """One image of 400 x 400 px with boxes; the third of each is its iscrowd."""
    annotations = [
        {"id": index, "image_id": 1, "category_id": one[0], "bbox": list(one[1]), "area": one[1][2] * one[1][3]}
        | {"iscrowd": one[2] if len(one) > 2 else 0}
        for index, one in enumerate(truths, start=1)
    ]
    images = [{"id": 1, "file_name": "a.png", "width": 400, "height": 400}]
    categories = [{"id": number, "name": name} for number, name in NAMES.items()]
    return parse_coco({"images": images, "annotations": annotations, "categories": categories}, "truth.json")


def analyse(dataset: CocoDataset, *found: tuple[int, float, Place]) -> dict[str, Any]:
    rows = [
        {"image_id": 1, "category_id": category_id, "score": score, "bbox": list(place)}
        for category_id, score, place in found
    ]
    row: dict[str, Any] = evaluate(dataset, rows, iou_types=["bbox"], with_analysis=True)["bbox"]
    return row


def at(x: float, y: float = 0) -> Place:
    return (x, y, 20, 20)


FOUR_TINS = [(TIN, at(40 * column)) for column in range(4)]
"""Right at 0.9, 0.8 and 0.6, wrong at 0.7, 0.5 and 0.4; one tin is not found."""
FOUND = [
    (TIN, 0.9, at(0)),
    (TIN, 0.8, at(40)),
    (TIN, 0.7, at(0, 200)),
    (TIN, 0.6, at(80)),
    (TIN, 0.5, at(40, 200)),
    (TIN, 0.4, at(80, 200)),
]


def test_the_best_threshold_has_the_best_f1() -> None:
    best = analyse(build(*FOUR_TINS), *FOUND)["best_f1"]
    # F1 from 0.9 down: 2/5, 4/6, 4/7, 6/8, 6/9, 6/10.
    expected = {"score_threshold": 0.6, "precision": 0.75, "recall": 0.75, "f1": 0.75, "num_truths": 4}
    assert best["per_category"][str(TIN)] == pytest.approx(expected)
    assert best["overall"] == pytest.approx({**expected, "lowest_score": 0.4})
    without_truths = {"score_threshold": -1, "precision": -1, "recall": -1, "f1": -1, "num_truths": 0}
    assert best["per_category"][str(CUP)] == without_truths


def test_one_threshold_for_all_categories_is_another_than_each_ones_own() -> None:
    dataset = build((TIN, at(0)), (TIN, at(40)), (CUP, at(80)))
    found = [(TIN, 0.9, at(0)), (TIN, 0.3, at(40)), (CUP, 0.8, at(0, 200)), (CUP, 0.7, at(80)), (CUP, 0.5, at(0, 100))]
    best = analyse(dataset, *found)["best_f1"]
    assert best["per_category"][str(TIN)]["score_threshold"] == 0.3
    assert best["per_category"][str(CUP)]["score_threshold"] == 0.7
    # From 0.9 down: 2/4, 2/5, 4/6, 4/7, 6/8.
    assert best["overall"]["score_threshold"] == 0.3
    assert best["overall"]["f1"] == pytest.approx(0.75)


def test_equal_scores_stand_or_fall_together() -> None:
    best = analyse(build((TIN, at(0)), (TIN, at(40))), (TIN, 0.5, at(0)), (TIN, 0.5, at(0, 200)))["best_f1"]
    assert best["overall"]["precision"] == best["overall"]["recall"] == best["overall"]["f1"] == 0.5


def test_scores_below_zero_have_a_best_threshold_too() -> None:
    row = analyse(build((TIN, at(0)), (TIN, at(40))), (TIN, -1.0, at(0)), (TIN, -2.0, at(0, 200)))
    assert row["best_f1"]["overall"]["score_threshold"] == -1
    assert row["best_f1"]["overall"]["precision"] == 1
    assert row["errors"]["counts"]["background"] == 0  # which is below it


def test_where_nothing_is_right_there_is_no_threshold() -> None:
    row = analyse(build((TIN, at(0))), (TIN, 0.9, at(200)))
    expected = {"score_threshold": -1, "precision": -1, "recall": 0, "f1": 0, "num_truths": 1}
    assert row["best_f1"]["overall"] == {**expected, "lowest_score": 0.9}
    assert row["errors"]["counts"] == {
        "classification": 0,
        "localisation": 0,
        "duplicate": 0,
        "background": 1,
        "missed": 1,
    }
    nothing = analyse(build((TIN, at(0))))
    assert nothing["best_f1"]["overall"] == {**expected, "lowest_score": -1}
    assert nothing["errors"]["counts"]["missed"] == 1


def test_curves_are_those_that_coco_averages() -> None:
    row = analyse(build(*FOUR_TINS), *FOUND)
    curves = row["curves"]
    assert curves["recall"] == pytest.approx([index / 100 for index in range(101)])
    tin = curves["per_category"][str(TIN)]
    assert list(curves["per_category"]) == [str(TIN)]
    # Right ones are the first, second and fourth: precision 1, 1 and 3/4 at recall 1/4, 2/4 and 3/4.
    assert tin["precision_50"] == [1] * 51 + [0.75] * 25 + [0] * 25
    assert tin["score_threshold_50"] == [0.9] * 26 + [0.8] * 25 + [0.6] * 25 + [0] * 25
    assert tin["precision_75"] == tin["precision"] == curves["overall"]["precision"] == tin["precision_50"]
    assert sum(curves["overall"]["precision"]) / 101 == pytest.approx(row["AP"])


def test_confusions_have_truths_in_rows_and_background_last() -> None:
    dataset = build((TIN, at(0)), (TIN, at(40)), (CUP, at(80)), (CUP, at(120)), (BAG, at(160)))
    row = analyse(
        dataset,
        (TIN, 0.9, at(0)),
        (CUP, 0.9, at(42)),  # a tin taken for a cup: IoU 18/22
        (CUP, 0.8, at(80)),
        (TIN, 0.7, at(80)),  # that cup again
        (BAG, 0.7, at(0, 200)),  # nothing
        (BAG, 0.6, at(160)),
        (CUP, 0.1, at(120)),  # below the best threshold
        *[(TIN, 0.5, at(40 * column, 300)) for column in range(5)],
    )
    assert row["confusion"]["score_threshold"] == 0.6
    assert row["confusion"]["categories"] == [TIN, CUP, BAG, "background"]
    assert row["confusion"]["matrix"] == [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [1, 0, 1, 0]]


def test_the_better_scored_detection_takes_the_truth_whatever_its_category() -> None:
    matrix = analyse(build((TIN, at(0))), (CUP, 0.9, at(0)), (TIN, 0.8, at(0)))["confusion"]["matrix"]
    assert matrix == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]


def test_errors_are_told_apart() -> None:
    dataset = build((TIN, at(0)), (TIN, at(60)), (CUP, at(120)), (TIN, at(180)), (TIN, at(240)), (TIN, at(300)))
    row = analyse(
        dataset,
        (TIN, 0.9, at(0)),
        (TIN, 0.8, at(3)),  # duplicate: IoU 17/23
        (TIN, 0.8, at(72)),  # localisation: IoU 8/32, so that this tin is not missed
        (TIN, 0.8, at(120)),  # classification, so that this cup is not missed
        (TIN, 0.8, at(60, 200)),  # background
        (CUP, 0.8, at(252)),  # background: near a tin, and no cup
        (TIN, 0.7, at(300)),
        (TIN, 0.7, at(240)),
    )
    assert row["errors"]["score_threshold"] == 0.7
    counts = {"classification": 1, "localisation": 1, "duplicate": 1, "background": 2, "missed": 1}
    assert row["errors"]["counts"] == counts
    assert row["errors"]["shares"] == pytest.approx({kind: count / 6 for kind, count in counts.items()})


def test_without_errors_all_shares_are_zero() -> None:
    errors = analyse(build((TIN, at(0))), (TIN, 0.9, at(0)))["errors"]
    assert set(errors["counts"].values()) == set(errors["shares"].values()) == {0}


def test_crowds_are_no_truths_and_what_lies_in_them_is_neither_right_nor_wrong() -> None:
    dataset = build((TIN, at(0)), (TIN, (100, 100, 200, 200), 1))
    row = analyse(dataset, (TIN, 0.9, at(120, 120)), (TIN, 0.8, at(0)), (TIN, 0.7, at(160, 160)))
    best = row["best_f1"]["overall"]
    assert (best["score_threshold"], best["f1"], best["num_truths"]) == (0.8, 1, 1)
    assert sum(map(sum, row["confusion"]["matrix"])) == row["confusion"]["matrix"][0][0] == 1
    assert sum(row["errors"]["counts"].values()) == 0


def test_masks_and_boxes_are_analysed_each_by_its_own_overlap() -> None:
    corner = [[0, 0, 14, 0, 0, 14]]  # a quarter of the tin, though the box given with it is the tin's
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 400, "height": 400}],
        "categories": [{"id": TIN, "name": "tin"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": TIN, "bbox": list(at(0)), "area": 400, "iscrowd": 0}
            | {"segmentation": [[0, 0, 20, 0, 20, 20, 0, 20]]}
        ],
    }
    dataset = parse_coco(document, "truth.json")
    rows = [{"image_id": 1, "category_id": TIN, "score": 0.5, "bbox": list(at(0)), "segmentation": corner}]
    metrics = evaluate(dataset, rows, with_analysis=True)
    assert metrics["bbox"]["errors"]["counts"]["localisation"] == 0
    assert metrics["segm"]["errors"]["counts"]["localisation"] == 1
