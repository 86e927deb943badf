from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import maskrcnn
from maskrcnn import storage
from maskrcnn.coco import rle
from maskrcnn.errors import InputError
from maskrcnn.labelling.columns import SCHEMA
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan import PartId, PlannedPart
from maskrcnn.labelling.results import ImageResult
from maskrcnn.labelling.table import RunStamp, build_part, part_to_parquet
from maskrcnn.model.detections import Detections

STAMP = RunStamp("run-1", "abc", 0.5, {3: "box", 8: "bag"}, "full")


def keys(*uris: str, etag: str = "1", attempt: int = 1) -> pa.Table:
    return pa.table(
        {
            "part": pa.array([0] * len(uris), pa.int32()),
            "image_uri": list(uris),
            "etag": [etag] * len(uris),
            "size": pa.array([1] * len(uris), pa.int64()),
            "attempt": pa.array([attempt] * len(uris), pa.int16()),
            "date": pa.nulls(len(uris), pa.string()),
            "store": [f"store of {uri}" for uri in uris],
        }
    )


def two_boxes() -> Detections:
    mask = torch.zeros(10, 20, dtype=torch.uint8)
    mask[2:5, 3:7] = 1
    return Detections(
        boxes=torch.tensor([[3.0, 2.0, 7.0, 5.0], [0.0, 0.0, 20.0, 10.0]]),
        scores=torch.tensor([0.9, 0.6]),
        labels=torch.tensor([1, 2]),
        category_ids=torch.tensor([3, 8]),
        rles=[rle.from_mask(mask.numpy()), rle.from_mask(torch.ones(10, 20, dtype=torch.uint8).numpy())],
        size=(10, 20),
    )


def nothing() -> Detections:
    empty = torch.zeros(0, dtype=torch.int64)
    return Detections((10, 20), torch.zeros(0, 4), torch.zeros(0), empty, empty)


RESULTS = [
    ImageResult(20, 10, two_boxes()),
    ImageResult(error_kind="not_found", error_message="gone" * 1000),
    ImageResult(20, 10, nothing()),
]


def test_a_part_has_the_documented_columns_then_the_users() -> None:
    rows = build_part(keys("a", "b", "c"), RESULTS, STAMP)
    assert rows.schema.names == [*SCHEMA.names, "store"]
    assert rows.schema.types[: len(SCHEMA)] == SCHEMA.types
    ok, error, empty = rows.to_pylist()
    assert (ok["status"], ok["error_kind"], ok["num_instances"], ok["width"], ok["height"]) == ("ok", None, 2, 20, 10)
    assert ok["instances"][0] == {
        "category_id": 3, "category": "box", "score": pytest.approx(0.9),
        "x": 3.0, "y": 2.0, "w": 4.0, "h": 3.0, "area": 12,
    }  # fmt: skip
    assert [instance["area"] for instance in ok["instances"]] == [12, 200]
    assert rle.to_mask({"size": [10, 20], "counts": ok["masks"][0]}).sum() == 12
    assert (error["status"], error["error_kind"], error["instances"], error["masks"]) == (
        "error",
        "not_found",
        None,
        None,
    )
    assert len(error["error_message"]) == 500
    assert (empty["status"], empty["num_instances"], empty["instances"], empty["masks"]) == ("ok", 0, [], [])
    assert ok["store"] == "store of a"
    assert ok["score_threshold"] == 0.5
    assert ok["labelled_at"].tzinfo is not None


def test_without_masks_there_is_no_area() -> None:
    found = two_boxes()
    bare = Detections(found.size, found.boxes, found.scores, found.labels, found.category_ids)
    stamp = RunStamp("run-1", "abc", 0.5, {3: "box", 8: "bag"}, "none")
    (row,) = build_part(keys("a"), [ImageResult(20, 10, bare)], stamp).to_pylist()
    assert row["masks"] is None
    assert [instance["area"] for instance in row["instances"]] == [None, None]


def test_a_part_of_failures_only_has_the_same_schema() -> None:
    rows = build_part(keys("a"), [RESULTS[1]], STAMP)
    assert rows.schema.types[: len(SCHEMA)] == SCHEMA.types


def write(output: Output, part: PlannedPart, rows: pa.Table) -> None:
    storage.put_if_absent(output.part_uri(part), part_to_parquet(rows))


def test_read_predictions_gives_the_current_rows(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    write(output, PlannedPart(PartId(1, 0), None, 3), build_part(keys("a", "b", "c"), RESULTS, STAMP))
    write(output, PlannedPart(PartId(2, 0), None, 1), build_part(keys("b", attempt=2), [RESULTS[0]], STAMP))
    write(output, PlannedPart(PartId(3, 0), None, 1), build_part(keys("a", etag="2"), [RESULTS[2]], STAMP))
    rows = maskrcnn.read_predictions(str(tmp_path)).to_pylist()
    current = {row["image_uri"]: (row["etag"], row["attempt"], row["status"], row["num_instances"]) for row in rows}
    assert len(rows) == 3
    assert current == {"a": ("2", 1, "ok", 0), "b": ("1", 2, "ok", 2), "c": ("1", 1, "ok", 0)}


def test_read_predictions_reads_only_what_is_asked_for(tmp_path: Path) -> None:
    output = Output(str(tmp_path))
    for place, date in enumerate(["2026-11-21", "2026-11-22"]):
        write(output, PlannedPart(PartId(1, place), date, 1), build_part(keys(f"img-{place}"), [RESULTS[0]], STAMP))
    rows = maskrcnn.read_predictions(str(tmp_path), columns=["image_uri", "num_instances"], dates=["2026-11-22"])
    assert rows.to_pylist() == [{"image_uri": "img-1", "num_instances": 2}]
    with pytest.raises(InputError, match="column colour is not in the table, which has image_uri, etag"):
        maskrcnn.read_predictions(str(tmp_path), columns=["colour"])


def test_a_folder_without_a_table_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--predictions holds no labelled images"):
        maskrcnn.read_predictions(str(tmp_path))


def test_the_file_has_no_types_of_an_engines_own(tmp_path: Path) -> None:
    (tmp_path / "part.parquet").write_bytes(part_to_parquet(build_part(keys("a", "b", "c"), RESULTS, STAMP)))
    metadata = pq.ParquetFile(tmp_path / "part.parquet")
    assert b"ray" not in b"".join((metadata.schema_arrow.metadata or {}).keys()).lower()
    assert "fixed_size_list" not in str(metadata.schema_arrow)
    assert {metadata.metadata.row_group(0).column(i).compression for i in range(5)} == {"ZSTD"}
