"""What the gallery page is told of all images: packed numbers mean what the table says."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.report.index import GalleryIndex, ShownImage, common_folder, pack_numbers, steps_of
from maskrcnn.report.outcomes import RIGHT, WRONG, Outcomes


def unpack(text: str, dtype: str) -> list[Any]:
    return np.frombuffer(base64.b64decode(text), dtype).tolist()  # type: ignore[no-any-return]


@given(st.floats(0, 1, width=32), st.integers(0, 100))
def test_a_threshold_of_two_digits_keeps_what_the_table_keeps(score: float, hundredths: int) -> None:
    kept = np.float32(score) >= np.float32(hundredths / 100)
    # Scores within a millionth of the threshold are as good as at it.
    if abs(score - hundredths / 100) > 1e-6:
        assert (steps_of([score])[0] >= hundredths * 100) == kept


@pytest.mark.parametrize("score", [0.05, 0.3, 0.5, 0.55, 0.7, 0.9, 0.99, 1.0])
def test_a_32_bit_score_counts_as_what_was_written(score: float) -> None:
    assert steps_of(np.array([score], np.float32)).tolist() == [round(score * 10_000)]


@given(st.lists(st.integers(0, 2**16 - 1)))
def test_numbers_come_back(numbers: list[int]) -> None:
    assert unpack(pack_numbers(np.array(numbers, np.int64), "<u2"), "<u2") == numbers


def test_the_common_folder_ends_at_a_slash() -> None:
    assert common_folder(["s3://a/b/cat-1.jpg", "s3://a/b/cat-2.jpg"]) == "s3://a/b/"
    assert common_folder(["s3://a/b/c/1.jpg", "s3://a/bd/2.jpg"]) == "s3://a/"
    assert common_folder(["/x/1.jpg"]) == "/x/"
    assert common_folder([]) == ""


def test_images_are_told_in_order_each_with_its_instances() -> None:
    index = GalleryIndex("run")
    ids, scores = np.array([7, 3]), np.array([0.9, 0.25], np.float32)
    outcomes = Outcomes(np.array([RIGHT, WRONG], np.uint8), np.array([4, 5, 6]), np.array([0, -1, 1]))
    index.add(ShownImage("/p/a.jpg", (40, 60), None, ids, scores, outcomes, np.array([7, 9, 3])))
    index.add(ShownImage("/p/b.jpg", None, "corrupt: cut off"))
    index.add(ShownImage("/p/c.jpg", (10, 20), "not_found: gone"))
    value = index.to_value({3: "box", 7: "can", 9: "bag"})

    assert value["folder"] == "run"
    assert (value["prefix"], value["names"]) == ("/p/", ["a.jpg", "b.jpg", "c.jpg"])
    assert value["reasons"] == {1: "corrupt: cut off", 2: "not_found: gone"}
    assert unpack(value["states"], "u1") == [0, 1, 2]
    assert unpack(value["sizes"], "<u4") == [40, 60, 0, 0, 10, 20]
    assert unpack(value["counts"], "<u4") == [2, 0, 0]
    assert unpack(value["scores"], "<u2") == [9000, 2500]
    assert value["categories"] == ["box", "can", "bag"]
    assert unpack(value["labels"], "<u2") == [1, 0]
    assert unpack(value["outcomes"], "u1") == [RIGHT, WRONG]
    assert unpack(value["truth_counts"], "<u4") == [3, 0, 0]
    assert unpack(value["truth_labels"], "<u2") == [1, 2, 0]
    assert unpack(value["truth_scores"], "<u2") == [9001, 0, 2501]
    assert index.num_without_picture == 1


def test_without_a_truth_nothing_is_said_of_outcomes() -> None:
    index = GalleryIndex("run")
    index.add(ShownImage("a", (1, 1), None, np.array([3]), np.array([0.5], np.float32)))
    assert "outcomes" not in index.to_value({3: "box"})


def test_an_empty_gallery_has_a_value_too() -> None:
    assert GalleryIndex("run").to_value({})["names"] == []
