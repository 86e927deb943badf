"""COCO files as columns: real files, and what is refused in which words."""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import pytest

from maskrcnn.coco import rle
from maskrcnn.coco.annotations import CocoDataset, load_coco, parse_coco
from maskrcnn.errors import AnnotationError, NotFoundError

SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]
TRIANGLE = [40, 5, 50, 5, 45, 15]


@pytest.fixture
def document() -> dict[str, Any]:
    """Two images, sparse categories out of order, every form of segmentation, annotations not sorted by image."""
    mask = np.zeros((40, 60), np.uint8)
    mask[3:8, 50:60] = 1
    return {
        "images": [
            {"id": 900, "file_name": "a/ä.jpg", "height": 40, "width": 60},
            {"id": 7, "file_name": "b.png", "height": 20, "width": 20},
            {"id": 8, "file_name": "empty.png", "height": 20, "width": 20},
        ],
        "categories": [{"id": 90, "name": "cup"}, {"id": 3, "name": "tin"}],
        "annotations": [
            {
                "id": 5,
                "image_id": 7,
                "category_id": 3,
                "bbox": [0, 0, 4, 20],
                "area": 80.5,
                "iscrowd": 1,
                "segmentation": {"size": [20, 20], "counts": [0, 80, 320]},
            },
            {
                "id": 6,
                "image_id": 900,
                "category_id": 90,
                "bbox": [10, 10, 20, 20],
                "area": 400,
                "iscrowd": 0,
                "segmentation": [SQUARE, TRIANGLE],
            },
            {
                "id": 2,
                "image_id": 900,
                "category_id": 3,
                "bbox": [50, 3, 10, 5],
                "segmentation": rle.to_json(rle.from_mask(mask)),
            },
            {"id": 4, "image_id": 900, "category_id": 3, "bbox": [1, 2, 3, 4], "segmentation": []},
        ],
    }


def test_annotations_are_sorted_by_image_and_keep_their_order_within(document: dict[str, Any]) -> None:
    dataset = parse_coco(json.dumps(document).encode(), "train.json")
    assert dataset.image_ids.tolist() == [900, 7, 8]
    assert list(dataset.file_names) == ["a/ä.jpg", "b.png", "empty.png"]
    assert dataset.annotation_ids.tolist() == [6, 2, 4, 5]
    assert dataset.image_indices.tolist() == [0, 0, 0, 1]
    assert [list(dataset.annotations_of(index)) for index in range(3)] == [[0, 1, 2], [3], []]
    assert dataset.category_ids.tolist() == [90, 3, 3, 3]
    assert dataset.bboxes.tolist() == [[10, 10, 20, 20], [50, 3, 10, 5], [1, 2, 3, 4], [0, 0, 4, 20]]
    assert dataset.iscrowd.tolist() == [False, False, False, True]
    assert dataset.first_without == {"iscrowd": 2, "area": 2, "segmentation": 4}
    assert dataset.size_of(3) == (20, 20)


def test_every_form_of_segmentation_comes_back_and_becomes_the_same_rle(document: dict[str, Any]) -> None:
    dataset = parse_coco(document, "train.json")
    assert dataset.segmentation(0) == [SQUARE, TRIANGLE]
    assert dataset.segmentation(1) == document["annotations"][2]["segmentation"]
    assert dataset.segmentation(2) is None
    assert dataset.segmentation(3) == {"size": [20, 20], "counts": rle.encode_counts([0, 80, 320]).decode()}
    merged = pycocotools.mask.merge(pycocotools.mask.frPyObjects([SQUARE, list(map(float, TRIANGLE))], 40, 60))
    assert dataset.rle(0) == merged
    assert [dataset.has_segmentation(index) for index in range(4)] == [True, True, False, True]
    with pytest.raises(AnnotationError, match=r"annotation 4 \(image 900\) segmentation is missing or empty, in train"):
        dataset.rle(2)


def test_an_area_that_is_missing_is_the_masks(document: dict[str, Any]) -> None:
    dataset = parse_coco(document, "train.json")
    assert dataset.area(3) == 80.5
    assert math.isnan(dataset.areas[1])
    assert dataset.area(1) == 50.0


def test_labels_are_contiguous_and_ordered_by_category_id(document: dict[str, Any]) -> None:
    categories = parse_coco(document, "train.json").categories
    assert categories.ids == (3, 90)
    assert categories.names == ("tin", "cup")
    assert [categories.label_of(category_id) for category_id in (3, 90)] == [1, 2]
    assert categories.labels_of([90, 3, 3]).tolist() == [2, 1, 1]
    assert [categories.category_id_of(label) for label in (1, 2)] == [3, 90]
    assert categories.name_of(90) == "cup"
    for unknown in (-1, 4, 91):
        with pytest.raises(AnnotationError, match=f"must be one of the file's categories, got {unknown}"):
            categories.label_of(unknown)
    for unknown in (0, 3):
        with pytest.raises(AnnotationError, match=r"label must be in \[1, 2\]"):
            categories.category_id_of(unknown)


def test_columns_hold_no_python_object_an_annotation_and_survive_pickle(document: dict[str, Any]) -> None:
    dataset = parse_coco(document, "train.json")
    columns = [value for value in vars(dataset).values() if isinstance(value, np.ndarray)]
    columns += [value for value in vars(dataset.segmentations).values() if isinstance(value, np.ndarray)]
    assert len(columns) == 14
    assert all(column.dtype != object and column.flags.c_contiguous for column in columns)
    copied: CocoDataset = pickle.loads(pickle.dumps(dataset))
    assert list(copied.file_names) == list(dataset.file_names)
    assert [copied.segmentation(index) for index in range(4)] == [dataset.segmentation(index) for index in range(4)]


def test_a_file_without_annotations_is_a_dataset(document: dict[str, Any]) -> None:
    dataset = parse_coco({**document, "annotations": []}, "train.json")
    assert dataset.num_annotations == 0
    assert dataset.bboxes.shape == (0, 4)
    assert [list(dataset.annotations_of(index)) for index in range(3)] == [[], [], []]


@pytest.mark.parametrize(
    ("field_path", "value", "message"),
    [
        (("images",), None, "images must be a list, got NoneType"),
        (("categories",), None, "categories must be a list, got NoneType"),
        (("categories",), [], "categories must hold at least one"),
        (("annotations",), {}, "annotations must be a list, got dict"),
        (("annotations", 1), 3, "annotations[1] must be an object, got int"),
        (("images", 0, "id"), "900", "images[0] id must be a whole number, got '900'"),
        (("images", 0, "id"), True, "images[0] id must be a whole number, got True"),
        (("images", 0, "id"), 2**80, "images[0] id must be a whole number, got 1208"),
        (("images", 1, "id"), 900, "image id 900 must be unique among images"),
        (("images", 0, "width"), 0, "image 900 width must be a whole number of 1 or more, got 0"),
        (("images", 0, "width"), 2**30, "image 900 width x height must be at most 536870911 px, got 1073741824 x"),
        (("images", 0, "height"), None, "image 900 height must be a whole number of 1 or more, got None"),
        (("images", 0, "file_name"), None, "image 900 file_name must be a text, got None"),
        (("categories", 1, "id"), 90, "category id 90 must be unique among categories"),
        (
            ("categories", 1, "id"),
            2**31,
            "categories[1] id must be a whole number in [-2147483648, 2147483647], got 21",
        ),
        (("categories", 1, "id"), -(2**31) - 1, "categories[1] id must be a whole number in [-2147483648, 2147483647]"),
        (("categories", 1, "name"), "", "category 3 name must be a text, got ''"),
        (("annotations", 0, "id"), 6, "annotation id 6 must be unique among annotations"),
        (("annotations", 0, "image_id"), 1, "annotation 5 image_id must be the id of one of the images, got 1"),
        (
            ("annotations", 0, "category_id"),
            4,
            "annotation 5 (image 7) category_id must be the id of one of the categories, got 4",
        ),
        (("annotations", 0, "bbox"), [1, 2, 3], "annotation 5 (image 7) bbox must be [x, y, width, height] in px"),
        (("annotations", 0, "bbox"), ["1", 2, 3, 4], "annotation 5 (image 7) bbox must be [x, y, width, height]"),
        (("annotations", 0, "area"), "big", "annotation 5 (image 7) area must be a number, got 'big'"),
        (
            ("annotations", 0, "segmentation"),
            {"size": [20, 21], "counts": "0"},
            "annotation 5 (image 7) segmentation size must be its image's [height, width] [20, 20], got [20, 21]",
        ),
        (("annotations", 0, "segmentation"), "x", "annotation 5 (image 7) segmentation must be polygons or an RLE"),
        (
            ("annotations", 0, "segmentation"),
            [SQUARE, [1, 2, 3, 4]],
            "annotation 5 (image 7) segmentation polygon 1 must have 3 or more points (x, y), got 4 numbers",
        ),
        (
            ("annotations", 0, "segmentation"),
            [SQUARE, [1, 2, 3, 4, 5, math.nan]],
            "annotation 5 (image 7) segmentation polygon 1 must be finite",
        ),
        (("annotations", 0, "segmentation"), [["1", 2, 3, 4, 5, 6]], "segmentation polygon 0 must be a flat list"),
        (("annotations", 0, "segmentation"), [[[1, 2], [3, 4], [5, 6]]], "polygon 0 must be a flat list"),
        (("annotations", 0, "segmentation"), [[]], "polygon 0 must have 3 or more points (x, y), got 0 numbers"),
        (("annotations", 0, "segmentation"), [[0, 0, 9, 0, 9, 201]], "must lie near its image of 20 x 20 px"),
    ],
)
def test_what_cannot_be_used_is_refused_by_file_id_field_and_rule(
    document: dict[str, Any], field_path: tuple[str | int, ...], value: Any, message: str
) -> None:
    broken = copy.deepcopy(document)
    at: Any = broken
    for step in field_path[:-1]:
        at = at[step]
    at[field_path[-1]] = value
    with pytest.raises(AnnotationError) as caught:
        parse_coco(broken, "s3://bucket/train.json")
    text = str(caught.value)
    assert message in text
    assert text.endswith("in s3://bucket/train.json")
    assert "\n" not in text


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_bytes_that_are_no_json_are_refused(body: bytes) -> None:
    with pytest.raises(AnnotationError, match="file must be JSON: .*, in train.json"):
        parse_coco(body, "train.json")


def test_a_results_file_is_told_from_a_dataset() -> None:
    with pytest.raises(AnnotationError, match=r"got a list, in p\.json; a list is a results file"):
        parse_coco(b'[{"image_id": 1}]', "p.json")


def test_a_box_that_is_not_finite_counts_as_missing(document: dict[str, Any]) -> None:
    document["annotations"][3]["bbox"] = [math.inf, math.inf, -math.inf, -math.inf]
    dataset = parse_coco(document, "train.json")
    assert np.isnan(dataset.bboxes[2]).all()
    assert dataset.first_without["bbox"] == 4


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        load_coco(str(tmp_path / "no.json"))


@pytest.mark.parametrize("name", ["coco_cc_by", "dsb2018_nuclei", "fruits_nuts", "lpbf_defects", "microcontroller"])
def test_real_sets_load_as_pycocotools_reads_them(shared_path: Path, name: str) -> None:
    uri = str(shared_path / "data" / name / "annotations.json")
    document = json.loads(Path(uri).read_text())
    dataset = load_coco(uri)
    rows = {row["id"]: row for row in document["annotations"]}
    images = {image["id"]: image for image in document["images"]}
    assert sorted(dataset.annotation_ids.tolist()) == sorted(rows)
    assert dataset.first_without == {}
    for index in range(0, dataset.num_annotations, 7):
        row = rows[dataset.annotation_ids[index]]
        image = images[row["image_id"]]
        assert dataset.image_ids[dataset.image_indices[index]] == row["image_id"]
        assert dataset.bboxes[index].tolist() == row["bbox"]
        assert dataset.area(index) == row["area"]
        forms = row["segmentation"]
        if isinstance(forms, dict) and isinstance(forms["counts"], str):
            assert dataset.segmentation(index) == forms
            continue
        expected = pycocotools.mask.frPyObjects(forms, image["height"], image["width"])
        if isinstance(forms, list):
            expected = pycocotools.mask.merge(expected)
        assert dataset.rle(index) == expected


def test_published_files_with_faults_load_all_the_same(shared_path: Path) -> None:
    folder = shared_path / "reference" / "annotations_only"
    taco = load_coco(str(folder / "taco_annotations_unofficial.json"))
    assert (taco.num_images, taco.num_annotations, len(taco.categories)) == (3831, 8334, 60)
    assert sum(not taco.has_segmentation(index) for index in range(taco.num_annotations)) == 15
    flakes = load_coco(str(folder / "roboflow_flakes_test_empty_segmentation.json"))
    assert flakes.first_without == {"segmentation": 53}


def test_duplicate_annotation_ids_are_refused(shared_path: Path) -> None:
    with pytest.raises(AnnotationError, match="annotation id 1 must be unique among annotations, in .*sample.json"):
        load_coco(str(shared_path / "reference" / "mmdet" / "coco_wrong_format_sample.json"))
