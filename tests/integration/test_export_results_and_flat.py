"""The coco-results export scores as its table does; the flat one is read by the engines that people use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from pycocotools.coco import COCO

from maskrcnn.coco import rle
from maskrcnn.commands.evaluate import EvaluateArguments, run_evaluation
from maskrcnn.commands.export import ExportArguments
from maskrcnn.errors import InputError
from maskrcnn.exports import flat
from maskrcnn.exports.job import ExportReport, export_predictions
from maskrcnn.labelling.table import read_predictions
from tests.integration.test_evaluate_command import LABELLED, write_table, write_truth
from tests.labelled_parts import FAILED, blob, labelled, write_part


def run(table: str, format: str, output: Path, **options: Any) -> ExportReport:
    return export_predictions(ExportArguments(table, format, str(output), **options).to_config())  # type: ignore[arg-type]


def score(tmp_path: Path, truth: str, predictions: str) -> dict[str, Any]:
    run_evaluation(EvaluateArguments(truth, predictions=predictions, output=str(tmp_path / "metrics.json")))
    metrics: dict[str, Any] = json.loads((tmp_path / "metrics.json").read_text())
    metrics.pop("dropped_predictions", None)
    return metrics


NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


@pytest.mark.parametrize("image_ids", [None, [1, 2, 7, 999]])
def test_exported_results_score_as_the_table_does(tmp_path: Path, image_ids: list[int] | None) -> None:
    truth = write_truth(tmp_path / "truth.json")
    table = write_table(tmp_path / "out", LABELLED, image_ids=image_ids)  # type: ignore[arg-type]
    report = run(table, "coco-results", tmp_path / "results.json", annotations=truth)
    assert (report.num_images, report.num_detections) == (2, 4)
    assert report.notes[1:] == [f"1 images that are not in {truth} are left out"]
    by_file, by_table = score(tmp_path, truth, str(tmp_path / "results.json")), score(tmp_path, truth, table)
    for iou_type in ("bbox", "segm"):
        numbers, expected = by_file[iou_type], by_table[iou_type]
        assert numbers["per_category_AP"] == pytest.approx(expected["per_category_AP"], abs=1e-6)
        assert {name: numbers[name] for name in NAMES} == pytest.approx({name: expected[name] for name in NAMES})
        assert numbers["confusion"]["matrix"] == expected["confusion"]["matrix"]
    loaded = COCO(truth).loadRes(str(tmp_path / "results.json"))
    assert len(loaded.getAnnIds()) == 4


def test_results_read_back_as_the_very_numbers_of_the_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = [(2, float(score), blob(seed)) for seed, score in enumerate(np.sort(rng.random(20))[::-1])]
    table = write_part(tmp_path / "out", {"a.jpg": labelled(found)}, image_ids=[7])
    run(table, "coco-results", tmp_path / "results.json")
    results = json.loads((tmp_path / "results.json").read_text())
    [row] = read_predictions(table).to_pylist()
    assert len(results) == 20
    for result, instance, mask in zip(results, row["instances"], row["masks"], strict=True):
        assert (result["image_id"], result["category_id"]) == (7, 2)
        assert np.float32(result["score"]) == np.float32(instance["score"])
        assert [np.float32(side) for side in result["bbox"]] == [np.float32(instance[side]) for side in "xywh"]
        assert result["segmentation"] == {"size": [48, 64], "counts": mask.decode()}
        assert len(str(result["score"])) <= 12  # no more digits than 32 bits have


def test_results_need_image_ids(tmp_path: Path) -> None:
    table = write_part(tmp_path / "out", {"a.jpg": labelled([]), "b.jpg": labelled([])}, image_ids=[7, None])
    with pytest.raises(InputError, match="--format coco-results needs an image_id .*; name the COCO JSON .*--annotati"):
        run(table, "coco-results", tmp_path / "results.json")
    assert not (tmp_path / "results.json").exists()


def test_results_without_masks_are_boxes(tmp_path: Path) -> None:
    found = {"a.jpg": labelled([(2, 0.5, blob(1))], with_masks=False)}
    table = write_part(tmp_path / "out", found, with_masks=False, image_ids=[3])
    report = run(table, "coco-results", tmp_path / "results.json")
    [result] = json.loads((tmp_path / "results.json").read_text())
    assert set(result) == {"image_id", "category_id", "bbox", "score"}
    assert report.notes == ["1 detections have no mask in the table, and are boxes only"]


def dated_table(folder: Path) -> str:
    """Leave a table in folders by date, whose second plan brought a column."""
    first = {"1.jpg": labelled([(2, 0.9, blob(1)), (5, 0.5, blob(2))]), "2.jpg": labelled([]), "3.jpg": FAILED}
    second = {"4.jpg": labelled([(9, 0.7, blob(3))])}
    write_part(folder, first, date="2026-11-21", columns={"store": ["north", "south", "east"], "score": [1, 2, 3]})
    columns = {"store": ["west"], "score": [4], "shelf": [12]}
    return write_part(folder, second, plan=2, date="2026-11-22", columns=columns)


def test_flat_has_a_row_a_detection_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    report = run(dated_table(tmp_path / "out"), "flat", tmp_path / "flat.parquet")
    assert (report.num_images, report.num_detections) == (3, 3)
    rows = pq.read_table(tmp_path / "flat.parquet").to_pylist()
    assert list(rows[0]) == [
        "image_uri", "etag", "image_id", "width", "height",
        "detection", "category_id", "category", "score", "x", "y", "w", "h", "area", "mask",
        "run_id", "bundle_sha256", "labelled_at", "date", "store", "image_score", "shelf",
    ]  # fmt: skip
    brief = [(row["image_uri"][-5:], row["detection"], row["category"], row["date"], row["store"]) for row in rows]
    assert brief == [
        ("1.jpg", 0, "can", "2026-11-21", "north"),
        ("1.jpg", 1, "box", "2026-11-21", "north"),
        ("4.jpg", 0, "bag", "2026-11-22", "west"),
    ]
    assert [row["image_score"] for row in rows] == [1, 1, 4]
    assert [row["shelf"] for row in rows] == [None, None, 12]
    for row, seed in zip(rows, (1, 2, 3), strict=True):
        mask = rle.to_mask({"size": [row["height"], row["width"]], "counts": row["mask"]})
        np.testing.assert_array_equal(mask, blob(seed))
        assert row["area"] == mask.sum()


def test_flat_is_read_by_duckdb_polars_and_pandas(tmp_path: Path) -> None:
    path = str(tmp_path / "flat.parquet")
    run(dated_table(tmp_path / "out"), "flat", Path(path))
    query = f"SELECT category, count(*), max(area) FROM '{path}' WHERE score > 0.6 GROUP BY category ORDER BY category"
    expected = [("bag", 1, int(blob(3).sum())), ("can", 1, int(blob(1).sum()))]
    assert duckdb.sql(query).fetchall() == expected
    by_polars = pl.read_parquet(path).filter(pl.col("score") > 0.6).sort("category")
    assert by_polars.select("category", pl.lit(1), "area").rows() == expected
    by_pandas = pd.read_parquet(path)
    assert by_pandas[by_pandas.score > 0.6].sort_values("category").area.tolist() == [row[2] for row in expected]


def test_flat_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "ROWS_PER_GROUP", 50)
    images = {f"{place}.jpg": labelled([(2, 0.9, blob(seed)) for seed in range(3)]) for place in range(100)}
    table = write_part(tmp_path / "out", images)
    run(table, "flat", tmp_path / "flat.parquet")
    metadata = pq.ParquetFile(tmp_path / "flat.parquet").metadata
    sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    assert sum(sizes) == 300
    assert sizes == [96, 96, 96, 12]


def test_flat_of_a_sample_has_the_rank(tmp_path: Path) -> None:
    run(dated_table(tmp_path / "out"), "flat", tmp_path / "flat.parquet", sample=2)
    rows = pq.read_table(tmp_path / "flat.parquet").to_pylist()
    assert [(row["image_uri"][-5:], row["sample_rank"]) for row in rows] == [("1.jpg", 1), ("1.jpg", 1), ("4.jpg", 2)]


def test_flat_has_no_two_columns_of_one_name(tmp_path: Path) -> None:
    own = {"image_x": ["theirs"], "x": ["own"], "image_image_x": ["last"], "score": ["fine"]}
    table = write_part(tmp_path / "out", {"a.jpg": labelled([(2, 0.9, blob(1))])}, columns=own)
    run(table, "flat", tmp_path / "flat.parquet")
    names = pq.read_schema(tmp_path / "flat.parquet").names
    assert len(set(names)) == len(names)
    [row] = pq.read_table(tmp_path / "flat.parquet").to_pylist()
    found = {name: row[name] for name in ("image_x", "image_image_x", "image_image_image_x", "image_score")}
    assert list(found.values()) == ["theirs", "last", "own", "fine"]


def test_flat_of_nothing_is_a_table_without_rows(tmp_path: Path) -> None:
    report = run(dated_table(tmp_path / "out"), "flat", tmp_path / "flat.parquet", score_threshold=1.0)
    assert report.num_detections == len(pq.read_table(tmp_path / "flat.parquet")) == 0
