"""The evaluate command: a results file and a labelled folder against annotations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskrcnn import storage
from maskrcnn.commands.evaluate import EvaluateArguments, run_evaluation
from maskrcnn.config import UnusualValueWarning
from maskrcnn.errors import InputError
from maskrcnn.report.job import write_report
from maskrcnn.report.settings import ReportConfig
from tests.labelled import FAILED, LABELLED, found, to_results_json, write_table, write_truth


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
    missing, cut, header, bbox, segm, *_, dropped = capsys.readouterr().out.splitlines()
    assert missing == "1 of 3 images failed or are not in the table; they count as empty"
    assert cut == (
        "the table has no detections below its score threshold of 0.3: AP and AR are lower than the bundle's own, "
        "which --bundle gives"
    )
    assert header.split()[:3] == ["AP", "AP50", "AP75"]
    assert (bbox.split()[0], segm.split()[0]) == ("bbox", "segm")
    assert dropped == "dropped predictions: 2 of an unknown image"


def test_image_ids_of_the_table_come_before_its_names(tmp_path: Path) -> None:
    renamed = {1: "x.jpg", 2: "y.jpg", 7: "front/a.jpg"}  # the last would mislead
    truth = write_truth(tmp_path / "truth.json", renamed)
    table = write_table(tmp_path / "out", LABELLED, image_ids=[1, 2, 7, 999])
    expected = to_results_json(tmp_path / "results.json", LABELLED)
    said = r"image 1 is x.jpg in .*truth.json and s3://shop/photos/front/a.jpg in .*/out, and so for 2 more; ids decide"
    with pytest.warns(UnusualValueWarning, match=said):
        by_table = score(tmp_path, annotations=truth, predictions=table)
    assert by_table == score(tmp_path, annotations=truth, predictions=expected)


def test_a_category_of_another_name_is_told_and_nothing_but_other_names_is_refused(tmp_path: Path) -> None:
    truth = Path(write_truth(tmp_path / "truth.json"))
    table = write_table(tmp_path / "out", LABELLED)

    def rename(*names: str) -> None:
        categories = [{"id": number, "name": name} for number, name in zip((3, 8), names, strict=True)]
        truth.write_text(json.dumps(json.loads(truth.read_text()) | {"categories": categories}))

    rename("Box", "crate")
    said = "category 8 is 'bag' in .*/out and 'crate' in .*truth.json, and categories are matched by id; "
    with pytest.warns(UnusualValueWarning, match=said):
        score(tmp_path, annotations=str(truth), predictions=table)
    rename("bag", "box")
    refused = "category 3 is 'box' in .*/out and 'bag' in .*truth.json, and no id has the same name in both; "
    with pytest.raises(InputError, match=refused):
        score(tmp_path, annotations=str(truth), predictions=table)
    with pytest.raises(InputError, match=refused):
        write_report(ReportConfig(table, str(tmp_path / "site"), annotations_uri=str(truth)))
    assert not (tmp_path / "site").exists()


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


def test_the_output_has_the_analysis_and_replaces_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = write_truth(tmp_path / "truth.json")
    (tmp_path / "metrics.json").write_text("an older one")
    table = write_table(tmp_path / "out", LABELLED)
    metrics = score(tmp_path, annotations=truth, predictions=table, iou_types=("bbox", "segm", "boundary"))
    assert set(metrics) == {"bbox", "segm", "boundary", "dropped_predictions"}
    # The bag that lies a pixel too low is no longer right where outlines of a pixel must agree.
    assert metrics["boundary"]["best_f1"]["overall"]["recall"] == 0.5
    for name in ("bbox", "segm"):
        row = metrics[name]
        assert row["confusion"]["categories"] == [3, 8, "background"]
        # One bag is in the image that failed; the box at 0.4 is nothing.
        assert row["best_f1"]["overall"] == pytest.approx(
            {"score_threshold": 0.7, "precision": 1, "recall": 0.75, "f1": 6 / 7, "num_truths": 4, "lowest_score": 0.4}
        )
        assert row["confusion"]["matrix"] == [[2, 0, 0], [0, 1, 1], [0, 0, 0]]
        assert row["errors"]["shares"]["missed"] == 1
        assert len(row["curves"]["overall"]["precision"]) == len(row["curves"]["recall"]) == 101
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("box ", "bag "))] == ["box", "bag"]
    expected = "score threshold 0.699 gives the best F1, 0.857 (precision 1.000, recall 0.750), at IoU 0.5 of segm"
    assert expected in lines


def test_everything_may_lie_in_a_bucket(tmp_path: Path, bucket: str) -> None:
    """The table at the bucket's root, where no object has a name of its own."""
    truth, results = write_truth(tmp_path / "truth.json"), to_results_json(tmp_path / "results.json", LABELLED)
    expected = score(tmp_path, annotations=truth, predictions=results)
    for path in (truth, results):
        storage.put(f"{bucket}/{Path(path).name}", Path(path).read_bytes())
    write_table(bucket, LABELLED)
    for predictions in (bucket, f"{bucket}/results.json"):
        arguments = EvaluateArguments(f"{bucket}/truth.json", predictions=predictions, output=f"{bucket}/metrics.json")
        assert run_evaluation(arguments) == 0
        assert json.loads(storage.read_bytes(f"{bucket}/metrics.json")) == expected


def test_a_table_that_another_tool_has_rewritten_scores_the_same(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.json")
    table = write_table(tmp_path / "out", LABELLED)
    expected = score(tmp_path, annotations=truth, predictions=table)
    [part] = (tmp_path / "out" / "table").glob("*.parquet")
    pl.read_parquet(part).write_parquet(part)
    assert pq.read_schema(part).field("masks").type == pa.large_list(pa.large_binary())
    assert score(tmp_path, annotations=truth, predictions=table) == expected


def test_a_table_without_a_single_detection_scores_zero(tmp_path: Path) -> None:
    truth = write_truth(tmp_path / "truth.json")
    table = write_table(tmp_path / "out", {"front/a.jpg": found(), "front/b.jpg": FAILED})
    metrics = score(tmp_path, annotations=truth, predictions=table)
    assert metrics["bbox"]["AP"] == metrics["segm"]["AP"] == 0
    assert metrics["segm"]["errors"]["counts"]["missed"] == 4


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
