"""The pages of an evaluation and of a training: what they take, what they show, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.coco.annotations import load_coco
from maskrcnn.coco.evaluate import evaluate
from maskrcnn.coco.evaluate.scoreboard import to_json
from maskrcnn.coco.results import load_results
from maskrcnn.errors import InputError
from maskrcnn.report.curves import build_curves, load_training, thinned
from maskrcnn.report.scores import build_scores, gather_rare, load_metrics
from tests.labelled import LABELLED, to_results_json, write_truth


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("scores")
    dataset = load_coco(write_truth(folder / "truth.json"))
    found = evaluate(dataset, load_results(to_results_json(folder / "found.json", LABELLED)), with_analysis=True)
    (folder / "metrics.json").write_bytes(to_json(found))
    return load_metrics(str(folder / "metrics.json"))


def test_a_page_shows_masks_before_boxes_with_numbers_charts_and_categories(metrics: dict[str, Any]) -> None:
    masks, boxes = build_scores(metrics, {"3": "box", "8": "bag"}, "metrics.json")
    assert (masks.iou_type, boxes.iou_type) == ("segm", "bbox")
    assert masks.numbers["AP"] == metrics["segm"]["AP"]
    assert masks.numbers["APl"] is None
    assert [chart.name for chart in masks.charts] == [
        "segm-precision-recall",
        "segm-precision-recall-by-category",
        "segm-thresholds",
        "segm-errors",
        "segm-confusion",
    ]
    assert {one.name: one.num_truths for one in masks.categories} == {"box": 2, "bag": 2}
    assert masks.best is not None
    assert masks.best.f1 == pytest.approx(6 / 7)
    assert "classification" in masks.charts[3].svg
    assert "background" in masks.charts[4].svg


def test_scores_without_an_analysis_are_numbers_alone(metrics: dict[str, Any]) -> None:
    plain = {kind: {name: value for name, value in metrics[kind].items() if "AP" in name} for kind in ("segm",)}
    [scores] = build_scores(plain, {}, "metrics.json")
    assert scores.charts == []
    assert [one.name for one in scores.categories] == ["3", "8"]


def test_where_nothing_is_defined_the_page_still_stands(tmp_path: Path) -> None:
    dataset = load_coco(write_truth(tmp_path / "truth.json"))
    nothing = evaluate(dataset, [], with_analysis=True)
    scores = build_scores(json.loads(to_json(nothing)), {}, "metrics.json")
    assert scores[0].best is not None
    assert scores[0].best.score_threshold is None


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ("[", "--metrics must be JSON: "),
        ("[1]", "--metrics must be the --output of an evaluation, in "),
        ('{"images": {}}', "--metrics must be the --output of an evaluation, in "),
    ],
)
def test_a_file_that_is_no_evaluation_is_refused(tmp_path: Path, body: str, rule: str) -> None:
    (tmp_path / "metrics.json").write_text(body)
    with pytest.raises(InputError, match=rule):
        load_metrics(str(tmp_path / "metrics.json"))


def test_a_file_that_lacks_something_is_refused(metrics: dict[str, Any]) -> None:
    lacking = {"segm": {name: value for name, value in metrics["segm"].items() if name != "errors"}}
    with pytest.raises(InputError, match="--metrics must be .* lacks something: KeyError: 'errors', in m.json"):
        build_scores(lacking, {}, "m.json")


def test_a_metrics_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--metrics cannot be read: "):
        load_metrics(str(tmp_path / "none.json"))


def test_rare_categories_are_gathered_and_nothing_is_lost() -> None:
    matrix = np.arange(49).reshape(7, 7)
    labels, gathered = gather_rare([*"abcdef", "background"], matrix, 4)
    assert labels == ["e", "f", "others", "background"]
    assert gathered.sum() == matrix.sum()
    assert gathered[0, 1] == matrix[4, 5]
    assert gathered[2, 2] == matrix[:4, :4].sum()
    assert gathered[3, 2] == matrix[6, :4].sum()


def test_a_training_is_drawn_with_its_validations(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"step": step, "loss": 2.0, "losses": {"loss_mask": 1.0, "loss_box": 1.0}, "learning_rate": 0.1}
        for step in range(1000)
    ]
    lines.append({"step": 1000, "validation": {"segm": {"AP": 0.5, "AP50": 0.9}, "bbox": {"AP": -1.0}}})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    charts = {chart.name: chart for chart in build_curves(load_training(str(tmp_path)))}
    assert list(charts) == ["loss", "losses", "validation", "learning-rate"]
    assert charts["loss"].note == "The mean over 3 steps a point."
    assert ">segm AP50</text>" in charts["validation"].svg
    assert "bbox" not in charts["validation"].svg


def test_a_folder_without_a_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--training holds no metrics.jsonl, in .*; name the --output of a training"):
        load_training(str(tmp_path))


def test_thinning_keeps_means_and_passes_over_gaps() -> None:
    x, y = thinned(np.arange(5.0), np.array([1.0, 3.0, np.nan, 4.0, np.nan]), 3)
    assert list(x) == [0.5, 2.5, 4.0]
    assert list(y)[:2] == [2.0, 4.0]
    assert np.isnan(y[2])
    assert list(thinned(np.arange(3.0), np.arange(3.0), 3)[0]) == [0, 1, 2]
