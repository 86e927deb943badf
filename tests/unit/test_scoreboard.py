"""The table for people: every line fits a terminal, and says what the numbers say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from maskrcnn.coco.evaluate.scoreboard import format_metrics, to_json

NUMBERS = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"), 0.5)


def analysed(num_categories: int, **overall: float) -> dict[str, Any]:
    best = {"score_threshold": 0.43999, "precision": 0.84, "recall": 0.79, "f1": 0.8142, "num_truths": 12_345}
    counts = {"classification": 1, "localisation": 2, "duplicate": 3, "background": 0, "missed": 4}
    return {
        **NUMBERS,
        "per_category_AP": {str(number): 0.25 for number in range(1, num_categories + 1)},
        "best_f1": {
            "overall": {**best, "lowest_score": 0.05, **overall},
            "per_category": {str(number): {**best, "num_truths": number} for number in range(1, num_categories + 1)},
        },
        "errors": {"counts": counts, "shares": {kind: count / 10 for kind, count in counts.items()}},
    }


def test_without_an_analysis_there_are_the_numbers_alone() -> None:
    lines = format_metrics({"bbox": NUMBERS, "segm": {**NUMBERS, "APs": -1.0}}).splitlines()
    assert len(lines) == 3
    assert [line.split()[:2] for line in lines] == [["AP", "AP50"], ["bbox", "0.500"], ["segm", "0.500"]]
    assert lines[2].split()[4] == "-"


def test_the_best_threshold_and_the_errors_are_told_in_words() -> None:
    *_, threshold, errors = format_metrics({"segm": analysed(2)}).splitlines()
    # Rounded down, so that what 0.43999 keeps is kept.
    assert threshold == (
        "score threshold 0.439 gives the best F1, 0.814 (precision 0.840, recall 0.790), at IoU 0.5 of segm"
    )
    assert errors == (
        "  10 errors there: classification 10%, localisation 20%, duplicate 30%, background 0%, missed 40%"
    )


def test_categories_are_named_the_most_frequent_first() -> None:
    lines = format_metrics({"bbox": analysed(23), "segm": analysed(23)}, {"23": "tin", "22": "a\x1b[31m" + "b" * 40})
    header, first, second, third, *_ = lines.splitlines()[4:]
    assert header.split()[:4] == ["segm", "by", "category", "truths"]
    assert first.split() == ["tin", "23", "0.250", "0.814", "0.840", "0.790", "0.439"]
    assert second.split()[0] == "a?[31m" + "b" * 25 + "…"
    assert third.split()[0] == "21"
    assert "and 3 less frequent ones in --output" in lines.splitlines()
    assert max(map(len, lines.splitlines())) <= 100


@pytest.mark.parametrize("iou_type", ["bbox", "boundary"])
def test_other_iou_types_head_the_categories_where_there_are_no_masks(iou_type: str) -> None:
    assert f"\n{iou_type} by category" in format_metrics({iou_type: analysed(1)})


def test_a_threshold_at_the_lowest_score_says_so() -> None:
    lines = format_metrics({"bbox": analysed(1, lowest_score=0.43999)}).splitlines()
    assert lines[-2] == "  no prediction has a lower score: predict with a lower threshold to see whether F1 rises"


def test_where_nothing_is_right_there_is_no_threshold_to_tell() -> None:
    row = analysed(1, score_threshold=-1, precision=-1, recall=0, f1=0)
    row["errors"]["counts"] = dict.fromkeys(row["errors"]["counts"], 0)
    *_, threshold, errors = format_metrics({"bbox": row}).splitlines()
    assert threshold == "no score threshold gives an F1 above 0, at IoU 0.5 of bbox"
    assert errors == "  no errors there"


def test_json_has_each_list_of_numbers_on_one_line() -> None:
    metrics = {"segm": {"AP": 0.5, "matrix": [[1, 2], [3, 4]], "recall": [0.25, 0.5], "none": []}}
    text = to_json(metrics).decode()
    assert json.loads(text)["segm"] == metrics["segm"]
    assert '"recall": [0.25, 0.5]' in text
    assert "      [1, 2],\n      [3, 4]\n" in text
