"""RLE against worked examples: runs, strings, polygons and masks side by side."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest

from maskrcnn.coco import rle
from maskrcnn.errors import AnnotationError

SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


@pytest.fixture(scope="module")
def cases(shared_path: Path) -> dict[str, Any]:
    return json.loads((shared_path / "reference" / "rle_cases.json").read_text())


def test_masks_counts_and_strings_are_one_and_the_same(cases: dict[str, Any]) -> None:
    for case in cases["mask_to_counts"]:
        encoded = rle.from_mask(np.array(case["mask"]))
        assert rle.to_json(encoded) == {"size": case["size"], "counts": case["compressed"]}
        assert rle.encode_counts(case["counts"]) == encoded["counts"]
        assert rle.decode_counts(case["compressed"]).tolist() == case["counts"]
        assert rle.from_uncompressed({"size": case["size"], "counts": case["counts"]}) == encoded
        assert rle.to_mask(encoded).tolist() == case["mask"]
        assert rle.area(encoded) == case["area"]
        assert rle.to_bbox(encoded) == case["bbox"]


def test_polygons_are_rasterised_as_coco_does(cases: dict[str, Any]) -> None:
    for polygon, expected, area in zip(cases["poly"], cases["poly_rles"], cases["poly_area"], strict=True):
        encoded = rle.from_segmentation([polygon], 20, 20)
        assert rle.to_json(encoded) == expected
        assert rle.area(encoded) == area


def test_boxes_drawn_as_polygons_give_the_boxes_rle_and_merge(cases: dict[str, Any]) -> None:
    def corners(box: list[float]) -> list[float]:
        x, y, w, h = box
        return [x, y, x, y + h, x + w, y + h, x + w, y]

    polygons = [corners(box) for box in cases["bboxes"]]
    for polygon, expected in zip(polygons, cases["bbox_rles"], strict=True):
        assert rle.to_json(rle.from_polygons([polygon], 20, 20)) == expected
    assert rle.to_json(rle.from_polygons(polygons, 20, 20)) == cases["bbox_rles_merged"]


def test_the_codec_compresses_runs_that_stop_short_but_the_door_refuses_them(cases: dict[str, Any]) -> None:
    assert rle.encode_counts(cases["uncompressed_rle"]["counts"]).decode() == cases["compressed_rle"]["counts"]
    for short in (cases["uncompressed_rle"], cases["compressed_rle"]):
        with pytest.raises(AnnotationError, match="must sum to 1350 x 1080 = 1458000 px, got 100"):
            rle.from_segmentation(short, 1350, 1080)


@pytest.mark.parametrize("name", ["counts_size_mismatch", "invalid_counts"])
def test_broken_cases_are_refused(cases: dict[str, Any], name: str) -> None:
    with pytest.raises(AnnotationError):
        rle.from_segmentation(cases[name], *cases[name]["size"])


def test_runs_of_zero_are_legal_and_leave_box_and_area_right(cases: dict[str, Any]) -> None:
    case = cases["zero_leading"]
    encoded = rle.from_segmentation(case, *case["size"])
    for form in (case, encoded):
        assert rle.to_bbox(form) == case["bbox"]
        assert rle.area(form) == case["area"]
    # pycocotools agrees once the runs of 0 are gone, so that its overlaps can be trusted.
    assert pycocotools.mask.toBbox(encoded).tolist() == case["bbox"]


def test_interior_zeros_join_their_neighbours() -> None:
    encoded = rle.from_uncompressed({"size": [3, 4], "counts": [0, 0, 2, 0, 0, 3, 0, 1, 6, 0]})
    assert rle.decode_counts(encoded["counts"]).tolist() == [2, 4, 6]
    begins_with_foreground = rle.from_uncompressed({"size": [3, 4], "counts": [0, 2, 0, 4, 6, 0, 0]})
    assert rle.decode_counts(begins_with_foreground["counts"]).tolist() == [0, 6, 6]


@pytest.mark.parametrize(
    ("counts", "rule"),
    [
        (b"0/9", "bytes 48 to 111 only, got 47 at byte 1"),
        (b"p", "bytes 48 to 111 only, got 112"),
        (b"00\x00", "got 0 at byte 2"),
        (b"\xff" * 9, "got 255"),
        (b"oo", "is cut off"),
        (b"oooooo1", "at most 6 bytes a run, got 7"),
        (b"O", "got -1 as run 0"),
        (b"1112223H", "got -3 as run 7"),
        ("é", "must be ASCII text"),
    ],
)
def test_hostile_strings_are_refused_with_the_place(counts: bytes | str, rule: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        rle.decode_counts(counts, thing="annotation 17 segmentation", place="train.json")
    assert rule in str(caught.value)
    assert str(caught.value).startswith("annotation 17 segmentation counts must")
    assert str(caught.value).endswith("in train.json")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("segmentation", "rule"),
    [
        (None, "must be polygons or an RLE, got NoneType"),
        ("0", "must be polygons or an RLE, got str"),
        ([], "must hold at least one polygon"),
        ([[]], "3 or more points"),
        ([[1, 1, 5, 5]], "3 or more points (x, y), got 4 numbers"),
        ([[1, 1, 5, 5, 3, 3, 4]], "3 or more points (x, y), got 7 numbers"),
        ([[1, 1, 5, 5, 3, float("nan")]], "must be finite"),
        ([[1, 1, 5, 5, 3, float("inf")]], "must be finite"),
        ([[1, 1, 5, 5, 3, 1e9]], "must lie near its image of 8 x 6 px, got a coordinate of 1e+09 px"),
        ([[1, 1, 5, 5, 3, -1e300]], "must lie near its image"),
        ([["1", "1", "5", "5", "3", "3"]], "flat list of numbers"),
        ([[[1, 1], [5, 5], [3, 3]]], "flat list of numbers"),
        ([[1, 1, [5], 5, 3, 3]], "flat list of numbers"),
        ([SQUARE, None], "segmentation polygon 1 must be a flat list"),
        ({}, "segmentation size must be [height, width]"),
        ({"size": [6, 8]}, "segmentation counts must be a string, got NoneType"),
        ({"size": [6.5, 8], "counts": "0"}, "segmentation size must be"),
        ({"size": [-6, -8], "counts": "0"}, "segmentation size must be"),
        ({"size": [6, 9], "counts": "0"}, "must be its image's [height, width] [6, 8], got [6, 9]"),
        ({"size": [6, 8], "counts": [48.5]}, "whole numbers"),
        ({"size": [6, 8], "counts": [50, -2]}, "runs of 0 to"),
        ({"size": [6, 8], "counts": [2**70]}, "flat list of numbers"),
        ({"size": [6, 8], "counts": ["48"]}, "flat list of numbers"),
        ({"size": [6, 8], "counts": [40]}, "must sum to 6 x 8 = 48 px, got 40"),
        ({"size": [6, 8], "counts": ""}, "must sum to 6 x 8 = 48 px, got 0"),
        ({"size": [6, 8], "counts": b"k1000000"}, "must sum to"),
    ],
)
def test_broken_segmentations_are_refused(segmentation: Any, rule: str) -> None:
    with pytest.raises(AnnotationError) as caught:
        rle.from_segmentation(segmentation, 6, 8)
    assert rule in str(caught.value)


def test_an_endless_outline_is_refused_before_memory_is_spent() -> None:
    zigzag = [0, 0, 6000, 6000] * 1000
    with pytest.raises(AnnotationError, match="outline of at most 4000000 px, got 12000000"):
        rle.from_polygons([zigzag], 6000, 6000)


def test_a_mask_beyond_what_pycocotools_can_hold_is_refused() -> None:
    with pytest.raises(AnnotationError, match="at most 536870911 px"):
        rle.check_rle({"size": [2**16, 2**16], "counts": "0"})
    with pytest.raises(AnnotationError, match="at most 536870911 px"):
        rle.from_polygons([SQUARE], 2**16, 2**16)


def test_a_polygon_may_leave_its_image() -> None:
    encoded = rle.from_polygons([[-3, -3, 20, -3, 20, 20, -3, 20]], 10, 12)
    assert rle.area(encoded) == 120


def test_masks_of_any_dtype_and_order_encode_alike() -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[1:3, 2:5] = 255
    mask[2, 3] = 7
    expected = rle.from_mask(mask > 0)
    for form in (mask, mask.astype(np.float32), np.asfortranarray(mask), mask[::-1][::-1]):
        assert rle.from_mask(form) == expected
    assert rle.to_bbox(expected) == [2.0, 1.0, 3.0, 2.0]
    with pytest.raises(AnnotationError, match=r"\(height, width\)"):
        rle.from_mask(np.zeros((2, 3, 4)))


def test_only_the_columns_asked_for_are_drawn() -> None:
    encoded = rle.from_uncompressed({"size": [2, 4], "counts": [1, 4, 3]})
    assert rle.to_mask(encoded).tolist() == [[0, 1, 1, 0], [1, 1, 0, 0]]
    assert rle.to_mask_columns(encoded, 1, 3).tolist() == [[1, 1], [1, 0]]
    assert rle.to_mask_columns(encoded, 3, 4).tolist() == [[0], [0]]
    assert rle.to_mask_columns(encoded, 2, 2).shape == (2, 0)


def test_an_empty_batch_encodes_to_nothing() -> None:
    nothing = np.zeros(0, np.int64)
    assert rle.encode_counts_batch(nothing, np.array([0])) == []
    assert rle.encode_counts_batch(nothing, np.array([0, 0, 0])) == [b"", b""]


def test_json_holds_text() -> None:
    encoded = rle.from_mask(np.eye(5))
    assert rle.from_segmentation(json.loads(json.dumps(rle.to_json(encoded))), 5, 5) == encoded


def test_the_overlap_of_two_masks_is_theirs_over_their_union() -> None:
    first, second = np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8)
    first[:2, :4], second[:2, 2:] = 1, 1
    assert rle.iou(rle.from_mask(first), rle.from_mask(second)) == pytest.approx(4 / 12)


def test_runs_of_zero_are_spelled_away_before_pycocotools_sees_them() -> None:
    spelled = {"size": [4, 3], "counts": rle.encode_counts([0, 2, 0, 3, 7])}
    plain, runs = rle.normalised(spelled, size=(4, 3))
    assert runs.tolist() == [0, 5, 7]
    assert plain == rle.from_mask(rle.to_mask(plain))
    assert rle.runs_to_bbox(runs, 4) == [0, 0, 2, 4]
