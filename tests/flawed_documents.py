"""Every kind of mistake in a COCO document, each with the codes that the validator must give it."""

from __future__ import annotations

import json
import math
from typing import Any

from tests.coco_documents import Document, annotation, good_document, spoilt, square, triangle


def without(name: str) -> Document:
    document = good_document()
    del document[name]
    return document


def with_annotation(**changes: Any) -> Document:
    """Another annotation beside the good ones, with these fields."""
    document = good_document()
    document["annotations"].append(annotation(500, 0, 5, 33, 11) | changes)
    return document


def with_segmentation(segmentation: Any) -> Document:
    return spoilt("annotations", 3, segmentation=segmentation)


def with_counts(counts: Any, size: Any = (40, 60)) -> Document:
    return with_segmentation({"size": list(size), "counts": counts})


def with_category(**category: Any) -> Document:
    document = good_document()
    document["categories"].append({"id": 8, "name": "new", **category})
    document["annotations"] += [annotation(600 + place, 0, 8, place, 3) for place in range(10)]
    return document


def with_large_category_id(category_id: int) -> Document:
    document = with_category(id=category_id)
    for row in document["annotations"]:
        row["category_id"] = category_id if row["category_id"] == 8 else row["category_id"]
    return document


def with_image(**image: Any) -> Document:
    document = good_document()
    row = {"id": 70, "file_name": "70.png", "width": 60, "height": 40, **image}
    document["images"].append({name: value for name, value in row.items() if value is not ...})
    return document


def twice(name: str) -> bytes:
    text = json.dumps(good_document())
    return text.replace(f'"{name}": [', f'"{name}": [3], "{name}": [').encode()


RESULTS = json.dumps([{"image_id": 0, "category_id": 0, "bbox": [0, 0, 1, 1], "score": 0.5}]).encode()
SELF = "annotations"

CASES: list[tuple[str, Any, dict[str, int]]] = [
    ("no JSON", b"images: []", {"not_json": 1}),
    ("a byte that is no text", json.dumps(good_document()).encode() + b"\xff", {"not_json": 1}),
    ("cut off in a list", json.dumps(good_document()).encode()[:900], {"cut_off": 1}),
    ("cut off in a text", b'{"images": [{"file_na', {"cut_off": 1}),
    ("cut off in a word", b'{"images": [{"a": tru', {"cut_off": 1}),
    ("cut off in a character", '{"images": [{"a": "ä'.encode()[:-1], {"cut_off": 1}),
    ("nothing at all", b"", {"cut_off": 1}),
    ("a list", b"[{}, {}]", {"top_level_list": 1}),
    ("a results file", RESULTS, {"results_file": 1}),
    ("a number", b"3", {"top_level_type": 1}),
    ("no images", without("images"), {"missing_list": 1, "orphan_image_id": 21}),
    ("no annotations", without("annotations"), {"missing_list": 1, "unused_category": 2}),
    ("no categories", without("categories"), {"missing_list": 1, "orphan_category_id": 21}),
    ("no category at all", good_document() | {"categories": []}, {"empty_list": 1, "orphan_category_id": 21}),
    ("images that are no list", good_document() | {"images": {}}, {"list_type": 1, "orphan_image_id": 21}),
    ("a row that is no object", good_document() | {"images": [*good_document()["images"], 7]}, {"row_type": 1}),
    ("a list twice", twice("images"), {"list_twice": 1}),
    ("an image id twice", with_image(id=0), {"duplicate_image_id": 1}),
    ("an annotation id twice", with_annotation(id=3), {"duplicate_annotation_id": 1}),
    ("a category id twice", good_document() | {"categories": [*good_document()["categories"], {"id": 5, "name": "x"}]},
     {"duplicate_category_id": 1}),
    ("an image id as a text", with_image(id="70"), {"field_type": 1}),
    ("no image id", with_image(id=None), {"field_type": 1}),
    ("no category id", with_annotation(category_id=1.5), {"field_type": 1}),
    ("no id", spoilt(SELF, 3, id=...), {"missing_field": 1}),
    ("no image_id", spoilt(SELF, 20, image_id=...), {"missing_field": 1}),
    ("an id beyond 64 bits", spoilt(SELF, 3, id=2**63), {"field_type": 1}),
    ("a category id beyond 32 bits", with_large_category_id(2**31), {"category_id_value": 1}),
    ("a category id far below 0", with_large_category_id(-(2**31) - 1), {"category_id_value": 1}),
    ("no file name", with_image(file_name=...), {"missing_field": 1}),
    ("an empty file name", with_image(file_name=" "), {"field_type": 1}),
    ("no name of a category", with_category(name=None), {"field_type": 1}),
    ("an unknown image", with_annotation(image_id=4), {"orphan_image_id": 1}),
    ("an unknown category", with_annotation(category_id=4), {"orphan_category_id": 1}),
    ("no segmentation", spoilt(SELF, 3, segmentation=...), {"segmentation_missing": 1}),
    ("a null segmentation", with_segmentation(None), {"segmentation_null": 1}),
    ("an empty segmentation", with_segmentation([]), {"segmentation_empty": 1}),
    ("a segmentation of another type", with_segmentation("[[1, 2]]"), {"segmentation_type": 1}),
    ("a flat list", with_segmentation(square(1, 1, 9)), {"polygon_flat_list": 1}),
    ("points as pairs", with_segmentation([[1, 1], [9, 1], [9, 9]]), {"polygon_points_as_pairs": 1}),
    ("points as pairs, nested", with_segmentation([[[1, 1], [9, 1], [9, 9]]]), {"polygon_points_as_pairs": 1}),
    ("coordinates as texts", with_segmentation([["1", "1", "9", "1", "9", "9"]]), {"polygon_strings": 1}),
    ("a null in a polygon", with_segmentation([[1, 1, 9, None, 9, 9]]), {"polygon_type": 1}),
    ("a truth in a polygon", with_segmentation([[True, 1, 9, 1, 9, 9]]), {"polygon_type": 1}),
    ("a truth further on in a polygon", with_segmentation([[1, 1, 9, 1, 9, True]]), {"polygon_type": 1}),
    ("a truth in a bbox", spoilt(SELF, 3, bbox=[3, True, 20, 20]), {"field_type": 1}),
    ("an object as polygon", with_segmentation([{"x": 1}]), {"polygon_type": 1}),
    ("half a point", with_segmentation([[1, 1, 9, 1, 9, 9, 1]]), {"polygon_odd_count": 1}),
    ("two points", with_segmentation([[1, 1, 9, 1]]), {"polygon_too_few_points": 1}),
    ("no point", with_segmentation([[]]), {"polygon_too_few_points": 1}),
    ("NaN", with_segmentation([[1, 1, 9, math.nan, 9, 9]]), {"polygon_not_finite": 1}),
    ("infinity", with_segmentation([[1, 1, 9, math.inf, 9, 9]]), {"polygon_not_finite": 1}),
    ("a number of 400 digits", with_segmentation([[1, 1, 9, 10**400, 9, 9]]), {"polygon_not_finite": 1}),
    ("points on a line", with_segmentation([[1, 1, 5, 5, 9, 9]]), {"polygon_zero_area": 1}),
    ("one point thrice", with_segmentation([[4, 4, 4, 4, 4, 4]]), {"polygon_zero_area": 1}),
    ("one part of two is broken", with_segmentation([triangle(3, 1, 20), [1, 1, 2]]), {"polygon_odd_count": 1}),
    ("far outside", with_annotation(segmentation=[[0, 0, 1e9, 0, 0, 9]], bbox=[0, 0, 20, 20]),
     {"polygon_far_outside": 1}),
    ("wholly outside", with_annotation(segmentation=[triangle(70, 5, 20)], bbox=[70, 5, 20, 20]),
     {"mask_empty": 1, "bbox_outside": 1}),
    ("an outline without end", with_annotation(segmentation=[[0, 0, 60, 0, 0, 39] * 40_000], bbox=[0, 0, 60, 39]),
     {"polygon_too_long": 1, "area_disagrees": 1}),
    ("an RLE without counts", with_segmentation({"size": [40, 60]}), {"rle_type": 1}),
    ("an RLE with a size of three", with_counts("Pp", (40, 60, 3)), {"rle_type": 1}),
    ("an RLE with counts of texts", with_counts(["1", "2"]), {"rle_type": 1}),
    ("an RLE with half a px", with_counts([1200.5, 1199.5]), {"rle_type": 1}),
    ("an RLE beyond all sizes", with_counts([0], (2**20, 2**20)), {"rle_too_large": 1}),
    ("width and height swapped", with_counts([1200, 100, 1100], (60, 40)), {"rle_size_swapped": 1}),
    ("the size of another image", with_counts([1200, 100, 1100], (48, 50)), {"rle_size_differs": 1}),
    ("a sum that is short", with_counts([1200, 1199]), {"rle_wrong_sum": 1}),
    ("a run that is endless", with_counts([1200, math.inf]), {"rle_wrong_sum": 1}),
    ("a negative run", with_counts([1300, -100, 1200]), {"rle_negative_run": 1}),
    ("characters of no RLE", with_counts("Ü1"), {"rle_invalid_characters": 1}),
    ("a cut-off RLE", with_counts("`"), {"rle_invalid_characters": 1}),
    ("a compressed negative run", with_counts("N"), {"rle_negative_run": 1}),
    ("an RLE without a px", with_counts([2400]), {"mask_empty": 1}),
    ("a sliver between pixels", with_annotation(segmentation=[[33.6, 11, 33.7, 11, 33.65, 31]], bbox=[33, 11, 1, 20]),
     {"mask_empty": 1}),
    ("a bbox of three", spoilt(SELF, 3, bbox=[1, 2, 3]), {"bbox_length": 1}),
    ("a bbox of texts", spoilt(SELF, 3, bbox=["1", 2, 3, 4]), {"field_type": 1}),
    ("a bbox without width", spoilt(SELF, 3, bbox=[3, 1, 0, 20]), {"bbox_not_positive": 1}),
    ("a bbox of NaN", spoilt(SELF, 3, bbox=[3, 1, math.nan, 20]), {"bbox_not_finite": 1}),
    ("no bbox", spoilt(SELF, 3, bbox=...), {"bbox_missing": 1}),
    ("a negative area", spoilt(SELF, 3, area=-1), {"area_not_positive": 1}),
    ("an area as a text", spoilt(SELF, 3, area="200"), {"field_type": 1}),
    ("no area", spoilt(SELF, 3, area=...), {"area_missing": 1}),
    ("iscrowd of 2", spoilt(SELF, 3, iscrowd=2), {"iscrowd_value": 1}),
    ("no iscrowd", spoilt(SELF, 3, iscrowd=...), {"iscrowd_missing": 1}),
    ("no width", with_image(width=...), {"size_missing": 1}),
    ("a height of 0", with_image(height=0), {"image_size_value": 1}),
    ("an image beyond all sizes", with_image(height=2**20, width=2**20), {"image_size_value": 1}),
    ("a height as a text", with_image(height="40"), {"image_size_value": 1}),
    ("a file name that climbs", with_image(file_name="../../etc/passwd"), {"file_name_leaves_root": 1}),
    ("a file name of another host", with_image(file_name="http://host/a.png"), {"file_name_leaves_root": 1}),
    ("the bbox's area", spoilt(SELF, 3, area=400), {"area_equals_bbox": 1}),
    ("an area thrice the mask's", spoilt(SELF, 3, area=600), {"area_disagrees": 1}),
    ("the bbox's area, of parts that cover each other",
     with_annotation(segmentation=[triangle(33, 11, 20), triangle(33, 11, 18)], area=400), {"area_equals_bbox": 1}),
    ("a bbox of another object", spoilt(SELF, 3, bbox=[30, 10, 20, 20]), {"bbox_disagrees": 1}),
    ("a bbox that leaves", spoilt(SELF, 3, bbox=[-30, 1, 53, 20]), {"bbox_disagrees": 1, "bbox_outside": 1}),
    ("a polygon that leaves", with_annotation(segmentation=[triangle(50, 11, 20)], bbox=[50, 11, 20, 20]),
     {"bbox_outside": 1, "polygon_outside": 1}),
    ("a crowd as polygon", with_annotation(iscrowd=1), {"crowd_as_polygon": 1}),
    ("an instance twice", with_annotation(**{**good_document()["annotations"][6], "id": 501}),
     {"duplicate_instance": 1}),
    ("a category that is not used",
     good_document() | {"categories": [*good_document()["categories"], {"id": 6, "name": "x"}]},
     {"unused_category": 1}),
    ("a category of one", spoilt(SELF, 2, category_id=5), {"few_instances": 1}),
    ("two categories of one name", with_category(name="Dose"), {"duplicate_category_name": 1}),
    ("names that are nearly the same", with_category(name=" dose"), {"similar_category_names": 1}),
]  # fmt: skip
