"""What is checked before any worker starts: the sets fit together, and every image is there."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from maskrcnn import storage
from maskrcnn.coco.annotations import CocoDataset, parse_coco
from maskrcnn.config import PreprocessConfig
from maskrcnn.errors import AnnotationError, InputError
from maskrcnn.training.augment import AugmentConfig
from maskrcnn.training.preflight import check_categories, check_images, check_trainable
from maskrcnn.training.samples import CocoSamples
from maskrcnn.training.validation import check_scorable

SQUARE = [1, 1, 3, 1, 3, 3, 1, 3]
WHOLE = {"bbox": [1, 1, 2, 2], "area": 4, "iscrowd": 0, "segmentation": [SQUARE]}


def dataset(
    place: str = "train.json",
    *,
    file_names: list[str] | None = None,
    annotations: list[dict[str, Any]] | None = None,
    categories: dict[int, str] | None = None,
) -> CocoDataset:
    names = file_names if file_names is not None else ["a.jpg"]
    document = {
        "images": [{"id": i, "file_name": name, "width": 8, "height": 6} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": 0, "category_id": 2, **each}
            for i, each in enumerate(annotations if annotations is not None else [WHOLE], start=7)
        ],
        "categories": [{"id": i, "name": name} for i, name in (categories or {2: "box", 5: "can"}).items()],
    }
    return parse_coco(document, place)


@pytest.mark.parametrize(
    ("categories", "difference"),
    [
        ({2: "box"}, "category 5 is 'can' in the one and is not there in the other"),
        ({2: "box", 5: "tin"}, "category 5 is 'can' in the one and is 'tin' in the other"),
        ({2: "box", 4: "bag", 5: "can"}, "category 4 is not there in the one and is 'bag' in the other"),
        ({5: "box", 2: "can"}, "category 2 is 'box' in the one and is 'can' in the other"),
        ({2: "Box", 5: "can"}, "category 2 is 'box' in the one and is 'Box' in the other"),
    ],
)
def test_a_validation_set_of_other_categories_is_refused(categories: dict[int, str], difference: str) -> None:
    with pytest.raises(InputError) as caught:
        check_categories(dataset(), dataset("val.json", categories=categories))
    assert str(caught.value) == f"--val-annotations must have the categories of train.json: {difference}, in val.json"


def test_the_order_of_categories_in_a_file_means_nothing() -> None:
    check_categories(dataset(), dataset("val.json", categories={5: "can", 2: "box"}))


def images_uri(kind: str, tmp_path: Path) -> str:
    return str(tmp_path) if kind == "local" else f"memory://{uuid.uuid4().hex}/images"


kinds = pytest.mark.parametrize("kind", ["local", "remote"])


@kinds
def test_images_that_are_all_there_pass(kind: str, tmp_path: Path) -> None:
    names = ["a.jpg", "deep/er/b c.jpg", ".hidden.jpg", ".deep/c.jpg", "p+q&%.jpg"]
    uri = images_uri(kind, tmp_path)
    for name in [*names, "one more.jpg"]:
        storage.put(storage.join(uri, name), b"x")
    check_images(dataset(file_names=names), uri, "--images")
    check_images(dataset(file_names=names), uri + "/", "--images")


@kinds
def test_missing_images_are_counted_and_named(kind: str, tmp_path: Path) -> None:
    uri = images_uri(kind, tmp_path)
    storage.put(storage.join(uri, "b.jpg"), b"x")
    with pytest.raises(InputError) as caught:
        check_images(dataset(file_names=["c.jpg", "b.jpg", "in/a.jpg", ".d.jpg"]), uri, "--val-images")
    assert str(caught.value) == (
        f"--val-images must hold every image of train.json: 3 of 4 are missing: .d.jpg, c.jpg, in/a.jpg, in {uri}"
    )


@kinds
@pytest.mark.parametrize(("number", "rest"), [(100, ""), (101, " and 1 more"), (250, " and 150 more")])
def test_of_very_many_missing_images_the_first_are_named(kind: str, tmp_path: Path, number: int, rest: str) -> None:
    names = [f"{index:04d}.jpg" for index in range(number)]
    uri = images_uri(kind, tmp_path)
    with pytest.raises(InputError) as caught:
        check_images(dataset(file_names=names), uri, "--images")
    assert f"{number} of {number} are missing: {', '.join(names[:100])}{rest}, in {uri}" in str(caught.value)


@kinds
def test_a_folder_is_no_image(kind: str, tmp_path: Path) -> None:
    uri = images_uri(kind, tmp_path)
    storage.put(storage.join(uri, "a.jpg", "b.jpg"), b"x")
    with pytest.raises(InputError, match=r"1 of 1 are missing: a\.jpg"):
        check_images(dataset(), uri, "--images")


@kinds
@pytest.mark.parametrize("name", ["../a.jpg", "in/../../a.jpg", "/etc/passwd", "s3://other/a.jpg", "%2e%2e/a.jpg"])
def test_a_name_that_leaves_the_folder_is_refused(kind: str, tmp_path: Path, name: str) -> None:
    with pytest.raises(AnnotationError, match="must not leave its folder|must be relative to its folder") as caught:
        check_images(dataset(file_names=["a.jpg", name]), images_uri(kind, tmp_path), "--images")
    assert repr(name) in str(caught.value)


def check_training_set(coco: CocoDataset) -> None:
    samples = CocoSamples(coco, "in", PreprocessConfig(), AugmentConfig())
    check_trainable(samples.counts, coco.categories, "place")


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        ([], "it has 1 images, 0 crowds, in place"),
        (
            [
                {**WHOLE, "iscrowd": 1, "segmentation": {"size": [6, 8], "counts": [0, 48]}},
                {"bbox": [1, 1, 2, 2]},
                {"bbox": [1, 1, 2, 2]},
                {**WHOLE, "bbox": [1, 1, 0, 2]},
            ],
            "it has 1 images, 1 crowds, 2 with no mask, 1 with degenerate box, in place",
        ),
    ],
)
def test_a_set_without_an_instance_is_refused(annotations: list[dict[str, Any]], told: str) -> None:
    with pytest.raises(InputError) as caught:
        check_training_set(dataset(annotations=annotations))
    assert str(caught.value) == f"--annotations must hold an instance with a mask; {told}"


def test_one_instance_is_enough() -> None:
    check_training_set(dataset(annotations=[{}, WHOLE]))


def test_two_categories_of_one_name_are_refused_before_they_are_learnt() -> None:
    with pytest.raises(AnnotationError) as caught:
        check_training_set(dataset(categories={2: "box", 5: "can", 9: "box"}))
    assert str(caught.value) == (
        "categories 2 and 9 must differ in name, and are both 'box', in place; "
        "rename one, or give the annotations of both one category"
    )


def test_names_that_differ_in_case_only_are_two_categories() -> None:
    check_training_set(dataset(categories={2: "box", 5: "Box"}))


@pytest.mark.parametrize("lacking", ["segmentation", "bbox", "area"])
def test_a_validation_set_that_cannot_be_scored_is_refused(lacking: str) -> None:
    partly = {name: value for name, value in WHOLE.items() if name != lacking}
    with pytest.raises(AnnotationError) as caught:
        check_scorable(dataset("val.json", annotations=[WHOLE, partly, partly]))
    assert str(caught.value) == f"annotation 8 {lacking} must be there to validate, in val.json"


def test_a_validation_set_need_not_say_what_is_no_crowd() -> None:
    check_scorable(dataset(annotations=[{name: value for name, value in WHOLE.items() if name != "iscrowd"}]))
    check_scorable(dataset(annotations=[]))
