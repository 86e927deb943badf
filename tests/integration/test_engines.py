"""DuckDB, Polars and pandas read the table as it is; the view of current rows is what read_predictions gives."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pytest
import torch

from maskrcnn import read_predictions, storage
from maskrcnn.coco import rle
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan import NO_DATE, PartId, PlannedPart
from maskrcnn.labelling.results import ImageResult
from maskrcnn.labelling.table import RunStamp, build_part, part_to_parquet
from maskrcnn.model.detections import Detections
from tests.conftest import PROJECT_ROOT

SIZE = (30, 40)
NAMES = {3: "box", 8: "bag"}
STAMP = RunStamp("run-1", "abc", 0.5, NAMES, "full")


def labelled(*category_ids: int) -> ImageResult:
    boxes = torch.tensor([[n, n, n + 4, n + 5] for n in range(len(category_ids))], dtype=torch.float32).reshape(-1, 4)
    masks = []
    for n in range(len(category_ids)):
        drawn = np.zeros(SIZE, np.uint8)
        drawn[n : n + 5, n : n + 4] = 1
        masks.append(rle.from_mask(drawn))
    ids = torch.tensor(category_ids, dtype=torch.int64)
    scores = torch.linspace(0.9, 0.6, len(category_ids))
    return ImageResult(SIZE[1], SIZE[0], Detections(SIZE, boxes, scores, ids, ids, masks))


def failed(kind: Any) -> ImageResult:
    return ImageResult(error_kind=kind, error_message="as it is")


def put(output: Output, part: PartId, date: str | None, rows: list[tuple[str, str, int, ImageResult]]) -> None:
    """Write one part: (image, etag, attempt, what became of it)."""
    keys = pa.table(
        {
            "image_uri": [f"s3://shop/{name}" for name, _, _, _ in rows],
            "etag": [etag for _, etag, _, _ in rows],
            "attempt": pa.array([attempt for _, _, attempt, _ in rows], pa.int16()),
            "store": [f"store-{name[0]}" for name, _, _, _ in rows],
            "captured_at": pa.array([0] * len(rows), pa.timestamp("us", tz="UTC")),
        }
    )
    body = part_to_parquet(build_part(keys, [result for _, _, _, result in rows], STAMP))
    storage.put_if_absent(output.part_uri(PlannedPart(part, date, len(rows))), body)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dates and an image without one; nothing retried, nothing changed."""
    folder = tmp_path_factory.mktemp("predictions")
    output = Output(str(folder))
    first = [("a1", "1", 1, labelled(3, 3, 8)), ("a2", "1", 1, failed("corrupt")), ("b1", "1", 1, labelled())]
    put(output, PartId(1, 0), "2026-11-21", first)
    put(output, PartId(1, 1), "2026-11-21", [("b2", "1", 1, labelled(8))])
    put(output, PartId(2, 0), "2026-11-22", [("b3", "1", 1, labelled(3)), ("a3", "1", 1, failed("timeout"))])
    put(output, PartId(2, 1), "2026-11-22", [("a4", "1", 1, failed("corrupt"))])  # failures only
    put(output, PartId(2, 2), NO_DATE, [("a5", "1", 1, labelled(8))])
    return folder


PRODUCTS = {
    ("2026-11-21", "bag"): 2,
    ("2026-11-21", "box"): 2,
    ("2026-11-22", "box"): 1,
    (None, "bag"): 1,
}
FAILURES = {"corrupt": 2, "timeout": 1}


def statements(folder: Path) -> list[str]:
    """Give the statements of the queries that users take, over this output."""
    text = (PROJECT_ROOT / "docs" / "queries.sql").read_text().replace("OUTPUT", str(folder))
    return [statement.query for statement in duckdb.extract_statements(text)]


def test_the_documented_queries_answer(folder: Path) -> None:
    connection = duckdb.connect()
    view, statuses, products, products_by_date = statements(folder)
    connection.execute(view)
    assert connection.execute(statuses).fetchall() == [
        ("ok", None, 5),
        ("error", "corrupt", 2),
        ("error", "timeout", 1),
    ]
    by_category = connection.execute(products).fetchall()
    assert [(name, count) for name, count, _ in by_category] == [("bag", 3), ("box", 3)]
    assert by_category[1][2] == pytest.approx((0.9 + 0.75 + 0.9) / 3)
    by_date = connection.execute(products_by_date).fetchall()
    assert {(date and date.isoformat(), name): count for date, name, count in by_date} == PRODUCTS


def test_duckdb_reads_masks_and_the_users_columns(folder: Path) -> None:
    connection = duckdb.connect()
    rows = f"'{folder}/table/**/*.parquet'"
    assert connection.execute(f"SELECT count(*) FROM {rows}").fetchone() == (8,)
    by_store = connection.execute(f"SELECT store, sum(num_instances) FROM {rows} GROUP BY ALL ORDER BY ALL").fetchall()
    assert by_store == [("store-a", 4), ("store-b", 2)]
    query = f"SELECT height, width, masks, instances[1].area FROM {rows} WHERE image_uri = 's3://shop/a1'"
    height, width, masks, area = connection.execute(query).fetchall()[0]
    assert len(masks) == 3
    assert rle.to_mask({"size": [height, width], "counts": masks[0]}).sum() == area == 20
    failures = f"SELECT error_kind, count(*) FROM {rows} WHERE status = 'error' GROUP BY ALL"
    assert dict(connection.execute(failures).fetchall()) == FAILURES
    of_failures = f"SELECT DISTINCT instances, masks FROM {rows} WHERE status = 'error'"
    assert connection.execute(of_failures).fetchall() == [(None, None)]


def test_polars_reads_it(folder: Path) -> None:
    rows = pl.scan_parquet(f"{folder}/table/**/*.parquet", hive_partitioning=True)
    instances = rows.filter(pl.col("num_instances") > 0).explode("instances", empty_as_null=True, keep_nulls=True)
    by_date = (
        instances.select(pl.col("date").cast(pl.String), pl.col("instances").struct.field("category"))
        .group_by("date", "category")
        .len()
        .collect()
    )
    assert {(date, name): count for date, name, count in by_date.iter_rows()} == PRODUCTS
    failures = rows.filter(pl.col("status") == "error").group_by("error_kind").len().collect()
    assert dict(failures.iter_rows()) == FAILURES
    one = rows.filter(pl.col("image_uri") == "s3://shop/a1").collect().row(0, named=True)
    assert rle.to_mask({"size": [one["height"], one["width"]], "counts": one["masks"][0]}).sum() == 20
    assert one["instances"][0]["area"] == 20
    assert one["store"] == "store-a"
    assert one["labelled_at"].tzinfo is not None


def test_pandas_reads_it(folder: Path) -> None:
    # pyarrow alone would make a dictionary of the dates, and has none with a null, the images without a date.
    dates = pa_dataset.partitioning(pa.schema([("date", pa.string())]), flavor="hive")
    rows = pd.read_parquet(folder / "table", partitioning=dates)
    assert len(rows) == 8
    instances = rows[rows["num_instances"] > 0].explode("instances")
    found = zip(instances["date"], instances["instances"], strict=True)
    assert Counter((None if pd.isna(date) else date, each["category"]) for date, each in found) == PRODUCTS
    assert rows[rows["status"] == "error"]["error_kind"].value_counts().to_dict() == FAILURES
    [one] = rows[rows["image_uri"] == "s3://shop/a1"].to_dict("records")
    size = [int(one["height"]), int(one["width"])]  # floats in pandas, which has no nulls in integers
    assert rle.to_mask({"size": size, "counts": one["masks"][0]}).sum() == 20
    assert one["store"] == "store-a"
    assert rows["labelled_at"].dt.tz is not None


def test_pandas_reads_columns_and_a_date_without_further_words(folder: Path) -> None:
    rows = pd.read_parquet(folder / "table", columns=["image_uri", "num_instances"])
    assert rows["num_instances"].sum() == 6
    of_date = pd.read_parquet(folder / "table" / "date=2026-11-21")
    assert (len(of_date), of_date["num_instances"].sum()) == (4, 4)


def write_history(folder: Path, seed: int) -> None:
    """Write plans of new images, changed images and retries of any version, new or old, dates changing too."""
    rng = random.Random(seed)
    output = Output(str(folder))
    attempts: dict[tuple[str, str], int] = {}
    for plan in range(1, 8):
        for part in range(2):  # a plan holds an image once
            rows = []
            for name in rng.sample([f"{letter}{part}" for letter in "abcdefgh"], 5):
                versions = [etag for image, etag in attempts if image == name]
                is_retry = bool(versions) and rng.random() < 0.5
                # Names of versions do not tell their order.
                etag = rng.choice(versions) if is_retry else f"{rng.random():.6f}"
                attempts[name, etag] = attempts.get((name, etag), 0) + 1
                rows.append((name, etag, attempts[name, etag], rng.choice([labelled(3), failed("timeout")])))
            put(output, PartId(plan, part), rng.choice(["2026-11-21", "2026-11-22", NO_DATE]), rows)


@pytest.mark.parametrize("seed", range(3))
def test_the_view_gives_the_current_rows(tmp_path: Path, seed: int) -> None:
    write_history(tmp_path, seed)
    connection = duckdb.connect()
    connection.execute(statements(tmp_path)[0])
    names = ["image_uri", "etag", "attempt", "status", "num_instances", "store"]
    found = connection.execute(f"SELECT {', '.join(names)} FROM predictions").fetchall()
    expected = read_predictions(str(tmp_path), columns=names).to_pylist()
    assert sorted(found) == sorted(tuple(row[name] for name in names) for row in expected)
    num_rows = connection.execute(f"SELECT count(*) FROM '{tmp_path}/table/**/*.parquet'").fetchone()
    assert num_rows == (70,)
    assert len(found) == 16


def test_an_old_version_that_is_tried_again_does_not_become_current(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    put(output, PartId(9, 0), None, [("a", "old", 1, failed("timeout"))])
    put(output, PartId(10, 0), None, [("a", "new", 1, failed("timeout"))])
    put(output, PartId(11, 0), None, [("a", "new", 2, labelled(3))])
    put(output, PartId(12, 0), None, [("a", "old", 2, labelled(8))])
    connection = duckdb.connect()
    connection.execute(statements(tmp_path)[0])
    assert connection.execute("SELECT etag, attempt FROM predictions").fetchall() == [("new", 2)]
    columns = connection.execute("SELECT * FROM predictions").description or []
    assert [column[0] for column in columns] == read_predictions(str(tmp_path)).column_names


def test_columns_that_a_later_run_adds_are_null_before(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    put(output, PartId(1, 0), None, [("a", "1", 1, labelled(3))])
    keys = pa.table({"image_uri": ["s3://shop/b"], "etag": ["1"], "attempt": pa.array([1], pa.int16()), "aisle": [7]})
    body = part_to_parquet(build_part(keys, [labelled(8)], STAMP))
    storage.put_if_absent(output.part_uri(PlannedPart(PartId(2, 0), None, 1)), body)
    connection = duckdb.connect()
    connection.execute(statements(tmp_path)[0])
    rows = connection.execute("SELECT image_uri, aisle, store FROM predictions ORDER BY ALL").fetchall()
    assert rows == [("s3://shop/a", None, "store-a"), ("s3://shop/b", 7, None)]
