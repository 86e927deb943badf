"""The repaired copy: what can be mended is, what cannot is left out or left alone, and the rest is untouched."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.coco import rle
from maskrcnn.coco.annotations import load_coco
from maskrcnn.coco.validate.dataset import Validation, validate_annotations
from maskrcnn.coco.validate.files import FileReports
from maskrcnn.coco.validate.mend import clip_polygon
from maskrcnn.coco.validate.repair import Repairs, repair_dataset
from maskrcnn.errors import ExistsError
from tests.coco_documents import Document, annotation, good_document, spoilt, square, triangle
from tests.flawed_documents import CASES, with_annotation, with_image

LEFT_ALONE = {
    "duplicate_image_id",  # which of them is meant cannot be known
    "duplicate_category_id",
    "duplicate_category_name",
    "category_id_value",  # nor which number would be right
}


class Repaired:
    """A document, repaired."""

    def __init__(self, folder: Path, document: Any, files: FileReports | None = None) -> None:
        source = folder / "train.json"
        source.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        validation = validate_annotations(str(source))
        if files is not None:
            validation = Validation(validation.scanned, files)
        self.uri = str(folder / "fixed.json")
        self.repairs: Repairs = repair_dataset(validation, self.uri)
        self.document: Document = json.loads(Path(self.uri).read_bytes())
        self.done: list[dict[str, Any]] = json.loads((folder / "fixed.repairs.json").read_bytes())
        self.findings = validate_annotations(self.uri).findings

    def annotation(self, number: int) -> dict[str, Any]:
        [row] = [row for row in self.document["annotations"] if row["id"] == number]
        return row


def test_a_good_document_goes_through_untouched(tmp_path: Path) -> None:
    repaired = Repaired(tmp_path, good_document())
    assert repaired.document == good_document()
    assert repaired.done == []
    assert repaired.repairs.num_rows == 0


UNREADABLE = {"not_json", "cut_off", "top_level_list", "results_file", "top_level_type"}


@pytest.mark.parametrize(("document", "codes"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_every_error_that_can_be_mended_is(tmp_path: Path, document: Any, codes: dict[str, int]) -> None:
    if codes.keys() & (UNREADABLE | {"missing_list", "empty_list", "list_type"}):
        return
    repaired = Repaired(tmp_path, document)
    left = {code for code in repaired.findings.counts if code != "few_instances"}
    cannot = LEFT_ALONE | {"size_missing", "image_size_value", "unused_category", "similar_category_names"}
    assert left <= codes.keys() & cannot
    if repaired.findings.num("error") == 0 and "size_missing" not in left:
        dataset = load_coco(repaired.uri)
        assert all(dataset.area(index) > 0 and dataset.rle(index) for index in range(dataset.num_annotations))
    mistakes = codes.keys() - cannot - {"few_instances", "list_twice"}
    assert repaired.done or not mistakes


@pytest.mark.parametrize(
    ("segmentation", "mended"),
    [
        (square(3, 1, 20), [square(3, 1, 20)]),
        ([[3, 1], [23, 1], [3, 21]], [triangle(3, 1, 20)]),
        ([[[3, 1], [23, 1], [3, 21]]], [triangle(3, 1, 20)]),
        ([[str(value) for value in triangle(3, 1, 20)]], [triangle(3, 1, 20)]),
        ([triangle(3, 1, 20), [1, 1, 2], [5, 5, 9, 9, 7, 7]], [triangle(3, 1, 20)]),
        ([[-10, 5, 15, 5, 15, 15, -10, 15]], [[0, 5, 15, 5, 15, 15, 0, 15]]),
        ({"size": [60, 40], "counts": [1200, 100, 1100]}, {"size": [40, 60], "counts": [1200, 100, 1100]}),
    ],
)
def test_shapes_are_mended_and_bbox_and_area_follow(tmp_path: Path, segmentation: Any, mended: Any) -> None:
    repaired = Repaired(tmp_path, spoilt("annotations", 3, segmentation=segmentation)).annotation(9)
    assert repaired["segmentation"] == mended
    mask = rle.from_segmentation(mended, 40, 60)
    assert repaired["bbox"] == rle.to_bbox(mask)
    assert repaired["area"] == rle.area(mask)


def test_extra_keys_and_sound_rows_stay_as_they_are(tmp_path: Path) -> None:
    document = spoilt("annotations", 3, bbox=..., attributes={"occluded": True})
    document |= {"licenses": [{"id": 1}], "note": "näher"}
    repaired = Repaired(tmp_path, document)
    expected = copy.deepcopy(document)
    expected["annotations"][3]["bbox"] = [3, 1, 19, 19]  # the triangle's tips cover no pixel
    assert repaired.document == expected
    assert list(repaired.document) == list(document)
    assert repaired.done == [
        {"subject": "annotation", "id": 9, "index": 3, "field": "bbox", "action": "taken from the mask", "was": None}
    ]
    assert repaired.repairs.counts == {"annotation bbox taken from the mask": 1}


def test_ids_that_are_there_twice_or_not_at_all_are_given_anew(tmp_path: Path) -> None:
    document = with_annotation(id=3)
    del document["annotations"][2]["id"]
    repaired = Repaired(tmp_path, document)
    assert [row["id"] for row in repaired.document["annotations"]][:4] == [0, 3, 100, 9]
    assert repaired.document["annotations"][-1]["id"] == 101
    assert repaired.repairs.counts == {"annotation id set to 100": 1, "annotation id set to 101": 1}


def test_where_ids_are_enormous_new_ones_fill_gaps(tmp_path: Path) -> None:
    document = with_annotation(id=2**63 - 1)
    del document["annotations"][2]["id"]
    assert Repaired(tmp_path, document).document["annotations"][2]["id"] == 1


def test_the_same_image_twice_goes_once_and_others_of_its_id_stay(tmp_path: Path) -> None:
    once = Repaired(tmp_path, with_image(**good_document()["images"][1]))
    assert once.document == good_document()
    (tmp_path / "two").mkdir()
    twice = Repaired(tmp_path / "two", with_image(id=7))
    assert len(twice.document["images"]) == 4
    assert twice.findings.counts["duplicate_image_id"] == 1


def test_a_crowd_as_polygon_becomes_an_rle(tmp_path: Path) -> None:
    row = Repaired(tmp_path, with_annotation(iscrowd=1)).annotation(500)
    assert rle.from_segmentation(row["segmentation"], 40, 60) == rle.from_polygons([triangle(33, 11, 20)], 40, 60)


def test_numbers_in_texts_become_numbers_and_find_each_other(tmp_path: Path) -> None:
    document = spoilt("images", 1, id="7")
    document["annotations"][1]["category_id"] = "5"
    assert Repaired(tmp_path, document).document == good_document()


def test_the_last_of_two_lists_counts(tmp_path: Path) -> None:
    text = json.dumps(good_document()).replace('"images": [', '"images": [3], "images": [').encode()
    assert Repaired(tmp_path, text).document == good_document()


def test_files_give_sizes_and_those_that_cannot_be_used_take_their_annotations_along(tmp_path: Path) -> None:
    document = spoilt("images", 0, width=..., height=None)
    files = FileReports(sizes={0: (40, 60), 1: (40, 60)}, unusable={1})
    repaired = Repaired(tmp_path, document, files).document
    assert [(row["id"], row["width"], row["height"]) for row in repaired["images"]] == [(0, 60, 40), (12, 60, 40)]
    assert {row["image_id"] for row in repaired["annotations"]} == {0}


def test_an_output_that_is_there_is_left_alone(tmp_path: Path) -> None:
    Repaired(tmp_path, good_document())
    with pytest.raises(ExistsError):
        Repaired(tmp_path, with_annotation())
    assert json.loads((tmp_path / "fixed.json").read_bytes()) == good_document()


def test_annotations_before_images_are_mended_as_well(tmp_path: Path) -> None:
    document = with_annotation(segmentation=[triangle(50, 11, 20)], bbox=[50, 11, 20, 20])
    turned = {name: document[name] for name in ("categories", "annotations", "images")}
    row = Repaired(tmp_path, turned).annotation(500)
    assert row["bbox"] == [50, 11, 10, 19]
    assert max(row["segmentation"][0][0::2]) == 60


def test_polygons_are_cut_as_their_pixels_are() -> None:
    rng = np.random.default_rng(3)
    for _ in range(100):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radii = rng.uniform(5, 40, 9)
        points = np.stack([30 + radii * np.cos(angles), 20 + radii * np.sin(angles)], axis=1)
        whole = rle.to_mask(rle.from_polygons([(points + 50).reshape(-1).tolist()], 200, 200))[50:90, 50:110]
        cut = clip_polygon(points, 60, 40)
        assert cut.min() >= 0
        assert (cut <= [60, 40]).all()
        drawn = rle.to_mask(rle.from_polygons([cut.reshape(-1).tolist()], 40, 60))
        assert (drawn != whole).sum() <= 0.05 * max(whole.sum(), 100)


def test_what_an_image_does_not_show_is_cut_away_wholly() -> None:
    assert len(clip_polygon(np.array(triangle(-50, 5, 20)).reshape(-1, 2), 60, 40)) == 0
    assert annotation(1, 0, 0, 0, 0)["area"] == 200
