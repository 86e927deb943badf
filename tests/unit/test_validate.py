"""What the validator says of each kind of mistake, and that it says nothing of what is fine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.coco.annotations import load_coco
from maskrcnn.coco.validate.dataset import Validation, compare_splits, validate_annotations
from maskrcnn.coco.validate.findings import ERRORS, WARNINGS, Findings
from maskrcnn.errors import NotFoundError
from tests.coco_documents import Document, annotation, good_document, spoilt, square, triangle
from tests.flawed_documents import CASES, with_annotation, with_image, with_segmentation

Check = Callable[[Any], Validation]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Validate a document, parsed or as bytes."""

    def run(document: Any) -> Validation:
        path = tmp_path / "train.json"
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        return validate_annotations(str(path))

    return run


def said(validation: Validation) -> list[tuple[str, int]]:
    return [(code, validation.findings.counts[code]) for code in validation.findings.codes()]


@pytest.mark.parametrize(("document", "codes"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_mistake_is_named_once_and_nothing_else(check: Check, document: Any, codes: dict[str, int]) -> None:
    validation = check(document)
    assert dict(said(validation)) == codes
    for finding in validation.findings:
        assert finding.file.endswith("train.json")
        assert (finding.severity == "error") == (finding.code in ERRORS)
        assert len(finding.value) <= 80


BY_FILES = {"image_not_found", "image_unreadable", "image_size_differs", "exif_unrotated", "exif_turned"}
BETWEEN_SETS = {"same_image_twice", "leakage", "categories_differ"}


def test_every_code_has_a_case() -> None:
    shown = {code for _, _, codes in CASES for code in codes}
    assert shown | BY_FILES | BETWEEN_SETS == ERRORS.keys() | WARNINGS.keys()


@pytest.mark.parametrize(("document", "codes"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_has_no_error_can_be_loaded_and_drawn(
    check: Check, tmp_path: Path, document: Any, codes: dict[str, int]
) -> None:
    if check(document).findings.num("error") or codes.keys() & {"size_missing"}:
        return
    dataset = load_coco(str(tmp_path / "train.json"))
    assert all(dataset.area(index) > 0 and dataset.rle(index) for index in range(dataset.num_annotations))


@pytest.mark.parametrize(
    "document",
    [
        good_document(),
        with_annotation(area=211, segmentation=[triangle(33, 11, 20)]),  # a little off the raster's
        with_annotation(segmentation=[[33, 11, 53, 11, 53.4, 31.9, 33, 31]], bbox=[33, 11, 20, 20], area=400),  # a box
        with_annotation(segmentation=[triangle(40.6, 11, 20)], bbox=[40.6, 11, 20, 20]),  # leaves by half a px
        with_annotation(area=190, segmentation=[triangle(33, 11, 20), triangle(33, 11, 19), triangle(33, 11, 18)]),
        with_annotation(area=16, segmentation=[[33, 11, 53, 11, 53, 11.6, 33, 11.6]], bbox=[33, 11, 20, 1]),
        with_annotation(area=200, segmentation=[[33, 11, 53, 31, 53, 11, 33, 31]]),  # a bow tie
        with_image(license=3, coco_url="http://…", date_captured="today"),
        good_document() | {"licenses": [], "videos": {"a": [1]}},
    ],
)
def test_nothing_is_said_of_what_is_fine(check: Check, document: Document) -> None:
    assert said(check(document)) == []


def test_a_shape_that_leaves_its_image_is_judged_by_what_is_shown(check: Check) -> None:
    shown = with_annotation(segmentation=[square(50, 11, 20)], bbox=[50, 11, 10, 20], area=200)
    assert said(check(shown)) == [("polygon_outside", 1)]


@pytest.mark.parametrize(
    "polygon", [[0, 0, 1e308, 0, -1e308, 1e-3], [0, 0, 1.9e6, 0, 1.9e6, 0.1], [-1e9, 0, 5, 0, 5, 1e-9]]
)
def test_slivers_beyond_all_images_are_no_work(check: Check, polygon: list[float]) -> None:
    begin = time.monotonic()
    findings = check(with_annotation(segmentation=[polygon] * 50)).findings
    assert findings.counts["polygon_far_outside"] == 1
    assert time.monotonic() - begin < 5


def test_a_finding_names_everything(check: Check) -> None:
    [finding] = check(with_segmentation([triangle(3, 1, 20), [1, 1, 9, 1, 9]])).findings
    assert (finding.severity, finding.code, finding.subject, finding.field) == (
        "error", "polygon_odd_count", "annotation", "segmentation",
    )  # fmt: skip
    assert (finding.id, finding.index, finding.value) == (9, 3, "polygon 1: 5 numbers")
    assert finding.rule == "a polygon must have as many y as x"
    assert str(finding) == "annotation 9 segmentation: polygon 1: 5 numbers"


def test_rows_without_an_id_are_named_by_their_place(check: Check) -> None:
    document = spoilt("annotations", 3, id=..., bbox=[0, 0, 0, 0])
    document["annotations"].insert(0, "no object")
    names = [str(finding) for finding in check(document).findings]
    assert names == [
        "annotation [4] bbox: [0, 0, 0, 0]", "annotation [4] id", "annotation [0] annotations: str",
    ]  # fmt: skip


def test_errors_come_first_then_what_is_most_frequent(check: Check) -> None:
    document = spoilt("annotations", 1, iscrowd=..., bbox=...)
    document["annotations"][2].update(bbox=None, segmentation=None)
    assert said(check(document)) == [("segmentation_null", 1), ("bbox_missing", 2), ("iscrowd_missing", 1)]


def test_all_are_counted_and_the_first_are_kept(check: Check) -> None:
    document = good_document()
    document["annotations"] = [annotation(place, 0, 0, 0, 0, bbox=[place, 0, -1, 1]) for place in range(1500)]
    validation = check(document)
    assert validation.findings.counts["bbox_not_positive"] == 1500
    kept = validation.findings.of_code("bbox_not_positive")
    assert [finding.id for finding in kept] == list(range(1000))
    assert validation.findings.counts["duplicate_instance"] == 1499


def test_long_values_are_cut(check: Check) -> None:
    [finding] = check(spoilt("annotations", 3, bbox=[1] * 1000)).findings
    assert len(finding.value) == 80
    assert finding.value.endswith("…")


@pytest.mark.parametrize("name", ["coco_cc_by", "dsb2018_nuclei", "fruits_nuts", "lpbf_defects", "microcontroller"])
def test_real_sets_have_no_errors(shared_path: Path, name: str) -> None:
    findings = validate_annotations(str(shared_path / "data" / name / "annotations.json")).findings
    assert findings.num("error") == 0
    assert set(findings.counts) <= {"few_instances", "unused_category", "bbox_disagrees"}


def test_known_mistakes_of_published_files_are_found(shared_path: Path) -> None:
    folder = shared_path / "reference"

    def findings_of(name: str) -> Findings:
        return validate_annotations(str(folder / name)).findings

    taco = findings_of("annotations_only/taco_annotations_unofficial.json")
    assert taco.counts["segmentation_empty"] == 15
    assert taco.counts["bbox_not_finite"] == 15
    assert taco.counts["bbox_outside"] >= 14
    flakes = validate_annotations(
        str(folder / "annotations_only/roboflow_flakes_test_empty_segmentation.json")
    ).findings
    assert [finding.id for finding in flakes.of_code("segmentation_empty")] == [53]
    repeated = findings_of("mmdet/coco_wrong_format_sample.json")
    assert repeated.counts["duplicate_annotation_id"] == 1


def test_sets_of_other_categories_and_images_in_both_are_found(check: Check) -> None:
    train = check(good_document())
    other = good_document()
    other["categories"][1]["name"] = "lid"
    other["images"][0]["file_name"] = "new.png"
    val = check(other)
    compare_splits(train, val)
    assert said(train) == []
    assert said(val) == [("categories_differ", 1), ("leakage", 2)]
    assert [str(finding) for finding in val.findings.of_code("categories_differ")] == [
        "category name: 'крышка' in training, 'lid' in validation"
    ]
    assert [finding.id for finding in val.findings.of_code("leakage")] == [7, 12]


def test_sets_that_are_none_are_not_compared(check: Check) -> None:
    broken = check(b"{")
    compare_splits(check(good_document()), broken)
    compare_splits(broken, check(good_document()))
    assert said(broken) == [("cut_off", 1)]


def test_a_file_that_is_not_there_is_no_finding(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        validate_annotations(str(tmp_path / "none.json"))
