"""Results files read through a window: columns of all batches, and broken rows named by their place in the file."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn import storage
from maskrcnn.coco import rle
from maskrcnn.coco.annotations import parse_coco
from maskrcnn.coco.document import stream_batches
from maskrcnn.coco.results import (
    CocoResults,
    check_categories,
    check_images,
    load_results,
    merge_results,
    parse_results,
)
from maskrcnn.errors import AnnotationError, InputError, StorageError

MASK = np.pad(np.ones((20, 30)), 10)
ROW = {"image_id": 7, "category_id": 3, "score": 0.5, "bbox": [10, 10, 30, 20]}
WITH_MASK = {**ROW, "segmentation": rle.to_json(rle.from_mask(MASK))}
MASK_ONLY = {**WITH_MASK, "bbox": None}


def write(path: Path, rows: Any) -> str:
    path.write_text(json.dumps(rows))
    return str(path)


@pytest.mark.parametrize("window_bytes", [1, 50, 1 << 20])
def test_batches_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window_bytes: int) -> None:
    monkeypatch.setattr("maskrcnn.coco.results.stream_batches", lambda *a: stream_batches(*a, window_bytes))
    rows = [{**WITH_MASK, "score": index / 10, "image_id": index} for index in range(9)]
    rows[3] = {**ROW, "segmentation": None, "image_id": 3, "score": 0.3}
    rows[4] = {**rows[4], "segmentation": [[10, 10, 40, 10, 40, 30, 10, 30]]}
    rows[5] = {**rows[5], "segmentation": {"size": [40, 50], "counts": [2000]}}
    results = load_results(write(tmp_path / "results.json", rows))
    assert results.scores.tolist() == pytest.approx([index / 10 for index in range(9)])
    assert results.image_ids.tolist() == list(range(9))
    assert results.segmentations is not None
    assert results.segmentations.sizes[[0, 3, 4, 5]].tolist() == [[40, 50], [0, 0], [0, 0], [40, 50]]
    masks = [rle.to_mask(results.rle(index, (40, 50))) for index in range(9)]
    assert [(mask == MASK).all() for mask in masks] == [index != 5 for index in range(9)]


def test_masks_are_passed_over_where_boxes_are_enough(tmp_path: Path) -> None:
    broken = {**WITH_MASK, "segmentation": {"size": [40, 50], "counts": "?"}}
    uri = write(tmp_path / "results.json", [WITH_MASK, broken])
    assert load_results(uri, with_masks=False).segmentations is None
    with pytest.raises(AnnotationError, match=r"predictions\[1\] \(image 7\) segmentation counts"):
        load_results(uri)
    masks_only = write(tmp_path / "masks.json", [{key: WITH_MASK[key] for key in WITH_MASK if key != "bbox"}])
    assert load_results(masks_only, with_masks=False).segmentations is not None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW, {**ROW, "bbox": None}], r"predictions\[1\] \(image 7\) bbox must be there, since other predictions"),
        ([{**WITH_MASK, "bbox": []}, ROW], r"predictions\[0\] \(image 7\) bbox must be there, since other"),
        ([{**ROW, "bbox": []}], r"predictions\[0\] \(image 7\) segmentation must be there where there is no bbox"),
        (
            [{**WITH_MASK, "bbox": None}, {**ROW, "bbox": None, "segmentation": []}],
            r"predictions\[1\] .* must be there",
        ),
        ([ROW, 3], r"predictions\[1\] must be an object, got int"),
        ([ROW, {**ROW, "score": None}], r"predictions\[1\] \(image 7\) score must be there, and finite"),
        ([ROW, {**WITH_MASK, "segmentation": "x"}], r"predictions\[1\] .* segmentation must be polygons or an RLE"),
        ([ROW, {**WITH_MASK, "segmentation": {"size": [0, 1]}}], r"predictions\[1\] .* size must be \[height, width\]"),
        ([ROW, {**WITH_MASK, "segmentation": [[0, 0, 9, 0, 9, 9], ["x"]]}], r"segmentation polygon 1 must be a flat"),
    ],
)
@pytest.mark.parametrize("window_bytes", [1, 1 << 20])
def test_a_broken_row_is_named_whatever_its_batch(
    monkeypatch: pytest.MonkeyPatch, rows: list[Any], message: str, window_bytes: int
) -> None:
    monkeypatch.setattr("maskrcnn.coco.results.stream_batches", lambda *a: stream_batches(*a, window_bytes))
    with pytest.raises(AnnotationError, match=message):
        parse_results(json.dumps(rows).encode(), "results.json")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", r"file must be JSON: Expecting value: line 1 column 1 \(char 0\), in results.json"),
        (b"[1", r"file must be JSON: Expecting ',' delimiter"),
        (b"[] x", r"file must be JSON: Extra data"),
        (b'"abc"', "predictions must be a list, got str"),
        (b"null", "predictions must be a list, got NoneType"),
        (
            b'{"images": [',
            "must be a list of predictions, got an object, .*; an object is a dataset, given with --annot",
        ),
    ],
)
def test_what_is_no_list_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        parse_results(body, "results.json")


def test_loading_takes_a_fraction_of_the_parsed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskrcnn.coco.results.stream_batches", lambda *a: stream_batches(*a, 1 << 14))
    uri = write(tmp_path / "results.json", [{**WITH_MASK, "image_id": index} for index in range(4000)])
    tracemalloc.start()
    parsed = json.loads(Path(uri).read_bytes())
    held = tracemalloc.get_traced_memory()[0]
    assert len(parsed) == 4000
    del parsed
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    load_results(uri)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak < held / 2


def test_a_disk_that_fails_while_it_is_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(storage, "open_input", lambda uri: Failing())
    with pytest.raises(StorageError, match="x.json: Input/output error"):
        load_results("x.json")


def test_the_predictions_of_workers_are_put_together() -> None:
    polygon = {**ROW, "segmentation": [[0, 0, 9, 0, 9, 9], [20, 20, 29, 20, 29, 29]]}
    parts = [parse_results([WITH_MASK, polygon], "a"), parse_results([], "b"), parse_results([polygon, WITH_MASK], "c")]
    merged = merge_results(parts)
    whole = parse_results([WITH_MASK, polygon, polygon, WITH_MASK], "a")
    assert [merged.rle(index, (40, 50)) for index in range(4)] == [whole.rle(index, (40, 50)) for index in range(4)]
    assert merged.image_ids.tolist() == whole.image_ids.tolist()


def test_predictions_of_another_dataset_are_told_with_an_example() -> None:
    document = {
        "images": [{"id": 7, "file_name": "a.png", "width": 50, "height": 40}],
        "annotations": [],
        "categories": [{"id": number, "name": "x"} for number in range(1, 8)],
    }
    dataset = parse_coco(document, "val.json")

    def results(**changes: Any) -> CocoResults:
        return parse_results([{**ROW, **changes}], "results.json")

    for fine in (results(), parse_results([], "results.json")):
        check_images(fine, dataset)
        check_categories(fine, dataset)
    with pytest.raises(InputError, match="--predictions must be of images in val.json, by image_id, and none is, as 8"):
        check_images(results(image_id=8), dataset)
    rule = r"category_id must be of categories in val.json \(1, 2, 3, 4, 5, …\), and none is, as 90, in results.json"
    with pytest.raises(InputError, match=rule):
        check_categories(results(category_id=90), dataset)
