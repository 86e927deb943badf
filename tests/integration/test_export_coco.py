"""The coco export, read back by pycocotools and by supervision: the masks that come back are the masks that went in."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from maskrcnn.coco.annotations import load_coco
from maskrcnn.commands.export import ExportArguments, describe_export, export
from maskrcnn.exports.job import ExportReport, export_predictions
from tests.labelled_parts import FAILED, HEIGHT, WIDTH, Found, blob, labelled, write_part

RING = np.zeros((HEIGHT, WIDTH), np.uint8)
RING[0:30, 0:40], RING[5:25, 5:35], RING[10:20, 10:20] = 1, 0, 1
SPECKS = np.zeros((HEIGHT, WIDTH), np.uint8)
SPECKS[[0, 1, 47, 20], [0, 1, 63, 30]] = 1
EMPTY = np.zeros((HEIGHT, WIDTH), np.uint8)

IMAGES: dict[str, list[Found]] = {
    "a/1.jpg": [(9, 0.9, blob(1)), (2, 0.7, RING)],
    "a/2.jpg": [],
    "b/3.jpg": [(2, 0.95, SPECKS), (9, 0.85, np.ones((HEIGHT, WIDTH), np.uint8)), (9, 0.5, EMPTY)],
    "b/c/4.jpg": [(5, 0.6, blob(seed)) for seed in range(4, 12)],
}


@pytest.fixture
def table(tmp_path: Path) -> str:
    write_part(tmp_path / "out", {name: labelled(found) for name, found in list(IMAGES.items())[:2]})
    rest = {name: labelled(found) for name, found in list(IMAGES.items())[2:]}
    return write_part(tmp_path / "out", {**rest, "b/bad.jpg": FAILED}, part=1)


def run(table: str, output: Path, **options: Any) -> tuple[ExportReport, dict[str, Any]]:
    report = export_predictions(ExportArguments(table, "coco", str(output), **options).to_config())
    return report, json.loads(output.read_text())


def masks_by_image(path: Path) -> dict[str, list[np.ndarray[Any, Any]]]:
    """Read the file as anyone does."""
    coco = COCO(str(path))
    return {
        image["file_name"]: [coco.annToMask(one) for one in coco.loadAnns(coco.getAnnIds([image["id"]]))]
        for image in coco.loadImgs(coco.getImgIds())
    }


@pytest.mark.parametrize("form", [{"segmentation": "rle"}, {"polygon_tolerance": 0.0}])
def test_every_pixel_comes_back(table: str, tmp_path: Path, form: dict[str, Any]) -> None:
    report, _ = run(table, tmp_path / "coco.json", **form)
    back = masks_by_image(tmp_path / "coco.json")
    assert list(back) == list(IMAGES)
    for name, found in IMAGES.items():
        for came, (_, _, went) in zip(back[name], (one for one in found if one[2].any()), strict=True):
            np.testing.assert_array_equal(came, went)
    assert (report.num_images, report.num_detections) == (4, 12)
    if "segmentation" not in form:
        assert (report.mean_iou, report.worst_iou) == (1.0, 1.0)


def test_the_dataset_is_whole(table: str, tmp_path: Path) -> None:
    _, document = run(table, tmp_path / "coco.json")
    assert document["categories"] == [
        {"id": one, "name": name, "supercategory": ""} for one, name in [(2, "can"), (5, "box"), (9, "bag")]
    ]
    assert document["images"][0] == {"id": 1, "file_name": "a/1.jpg", "width": WIDTH, "height": HEIGHT}
    assert [image["id"] for image in document["images"]] == [1, 2, 3, 4]
    annotations = document["annotations"]
    assert [one["id"] for one in annotations] == list(range(1, 13))
    assert {one["iscrowd"] for one in annotations} == {0}
    ring = annotations[1]
    assert {name: ring[name] for name in ("image_id", "category_id", "bbox", "area", "score")} == {
        "image_id": 1, "category_id": 2, "bbox": [0, 0, 40, 30], "area": int(RING.sum()), "score": 0.7,
    }  # fmt: skip
    assert len(ring["segmentation"]) == 2  # the ring with its slit, and the island
    assert load_coco(str(tmp_path / "coco.json")).num_annotations == 12


def test_a_mask_without_pixels_is_left_out_and_told(table: str, tmp_path: Path) -> None:
    report, document = run(table, tmp_path / "coco.json")
    assert len(document["annotations"]) == sum(map(len, IMAGES.values())) - 1
    assert report.notes == [
        "1 images that could not be labelled are left out",
        "1 detections whose mask has no pixel are left out",
    ]


def test_the_overlap_of_polygons_is_measured_and_told(table: str, tmp_path: Path) -> None:
    report, document = run(table, tmp_path / "coco.json", categories=("box", "can"))
    went = [mask for found in IMAGES.values() for category_id, _, mask in found if category_id != 9]
    came = [mask for masks in masks_by_image(tmp_path / "coco.json").values() for mask in masks]
    ious = [(one & other).sum() / (one | other).sum() for one, other in zip(came, went, strict=True)]
    assert report.mean_iou == pytest.approx(np.mean(ious))
    assert report.worst_iou == pytest.approx(min(ious))
    assert 0.9 <= min(ious) < np.mean(ious) < 1
    num_points = sum(len(part) for one in document["annotations"] for part in one["segmentation"])
    _, exact = run(table, tmp_path / "exact.json", categories=("box", "can"), polygon_tolerance=0)
    assert num_points < 0.8 * sum(len(part) for one in exact["annotations"] for part in one["segmentation"])
    assert f"mean {report.mean_iou:.4f}, worst {report.worst_iou:.4f}" in describe_export(report)


@pytest.mark.parametrize("form", ["rle", "polygons"])
def test_supervision_reads_it(table: str, tmp_path: Path, form: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*OpenCV.*", category=UserWarning)
        import supervision

    run(table, tmp_path / "coco.json", segmentation=form, score_threshold=0.55, polygon_tolerance=0)
    dataset = supervision.DetectionDataset.from_coco(str(tmp_path), str(tmp_path / "coco.json"), force_masks=True)
    assert sorted(dataset.classes) == ["bag", "box", "can"]
    for name, found in IMAGES.items():
        kept = [(category_id, mask) for category_id, score, mask in found if score >= 0.55]
        detections = dataset.annotations[str(tmp_path / name)]
        assert len(detections) == len(kept)
        for came, (_, went) in zip(detections.mask if kept else [], kept, strict=True):
            if form == "rle":
                np.testing.assert_array_equal(came, went.astype(bool))
            else:  # it takes corners for centres of pixels, so that a polygon also covers the pixels right and below
                assert not (went.astype(bool) & ~came).any()
                grown = went.astype(bool)
                grown[1:] |= grown[:-1].copy()
                grown[:, 1:] |= grown[:, :-1].copy()
                assert (came & ~grown).mean() < 0.02


def test_a_table_without_masks_gives_boxes_and_says_so(tmp_path: Path) -> None:
    found = {name: labelled(each, with_masks=False) for name, each in IMAGES.items()}
    table = write_part(tmp_path / "out", found, with_masks=False)
    report, document = run(table, tmp_path / "coco.json")
    ring = document["annotations"][1]
    assert (ring["bbox"], ring["area"], ring["segmentation"]) == ([0, 0, 40.3, 30.3], round(40.3 * 30.3, 2), [])
    assert report.notes == ["13 detections have no mask in the table, and are boxes only"]
    assert report.mean_iou is None


def test_image_ids_of_the_table_are_kept_where_every_image_has_its_own(tmp_path: Path) -> None:
    images = {"1.jpg": labelled([(2, 0.9, blob(1))]), "2.jpg": labelled([(2, 0.9, blob(2))]), "3.jpg": FAILED}
    for place, (ids, expected) in enumerate(
        [([70, 11, None], [70, 11]), ([70, None, 12], [1, 2]), ([70, 70, 12], [1, 2])]
    ):
        table = write_part(tmp_path / f"out-{place}", images, image_ids=ids)
        _, document = run(table, tmp_path / f"{place}.json")
        assert [image["id"] for image in document["images"]] == expected
        assert [one["image_id"] for one in document["annotations"]] == expected


def test_the_current_rows_are_exported(table: str, tmp_path: Path) -> None:
    write_part(tmp_path / "out", {"a/1.jpg": labelled([(5, 0.9, RING)])}, plan=2)
    _, document = run(table, tmp_path / "coco.json")
    again = [image for image in document["images"] if image["file_name"] == "a/1.jpg"]
    assert len(again) == 1
    assert [one["category_id"] for one in document["annotations"] if one["image_id"] == again[0]["id"]] == [5]


def test_file_names_are_relative_to_the_folder_that_is_named(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, document = run(table, tmp_path / "1.json")
    assert report.image_root == "s3://shop/photos/"
    report, document = run(table, tmp_path / "2.json", image_root="s3://shop/")
    assert document["images"][3]["file_name"] == "photos/b/c/4.jpg"
    assert export(ExportArguments(table, "coco", str(tmp_path / "3.json"))) == 0
    assert "file names are relative to s3://shop/photos/" in capsys.readouterr().out


def test_a_bundle_lists_all_its_categories(table: str, tmp_path: Path, tiny_bundle: str) -> None:
    _, document = run(table, tmp_path / "1.json", categories=("can",), bundle=tiny_bundle)
    assert [(one["id"], one["name"]) for one in document["categories"]] == [(2, "can"), (5, "box"), (9, "bag")]
    assert {one["category_id"] for one in document["annotations"]} == {2}
