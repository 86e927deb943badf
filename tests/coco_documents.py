"""A small COCO document without a flaw, for tests to spoil."""

from __future__ import annotations

import copy
from typing import Any

from maskrcnn.coco import rle

Document = dict[str, Any]


def square(x: float, y: float, side: float) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def triangle(x: float, y: float, side: float) -> list[float]:
    return [x, y, x + side, y, x, y + side]


def annotation(number: int, image_id: int, category_id: int, x: float, y: float, **changes: Any) -> dict[str, Any]:
    """A triangle of 20 px whose bbox and area are right."""
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": [triangle(x, y, 20)],
        "bbox": [x, y, 20, 20],
        "area": 200,
        "iscrowd": 0,
        **changes,
    }


def good_document() -> Document:
    """Three images of 60 x 40 px, two categories of ten instances each; ids have gaps and begin at 0."""
    annotations = [annotation(3 * place, place % 2 * 7, place % 2 * 5, place % 10, place // 2) for place in range(20)]
    mask = rle.from_polygons([square(30, 10, 12)], 40, 60)
    annotations[4] |= {"segmentation": rle.to_json(mask), "bbox": [30, 10, 12, 12], "area": 144}
    annotations[5] |= {"segmentation": {"size": [40, 60], "counts": rle.check_rle(mask).tolist()}}
    annotations[5] |= {"bbox": [30, 10, 12, 12], "area": 144}
    annotations[6] |= {"segmentation": [triangle(1, 1, 20), square(40, 21, 10)], "bbox": [1, 1, 49, 30], "area": 290}
    annotations.append(annotation(99, 7, 0, 0, 0, iscrowd=1, segmentation=rle.to_json(mask), bbox=[30, 10, 12, 12]))
    annotations[-1]["area"] = 144
    images = [{"id": number, "file_name": name, "width": 60, "height": 40} for number, name in IMAGES.items()]
    categories = [{"id": 0, "name": "Dose"}, {"id": 5, "name": "крышка"}]
    return {"info": {"year": 2026}, "images": images, "annotations": annotations, "categories": categories}


IMAGES = {0: "a/ä b.png", 7: "b.png", 12: "empty.png"}


def spoilt(place: str, index: int, **changes: Any) -> Document:
    """Give a good document with fields of one row changed; a field set to `...` is taken away."""
    document = copy.deepcopy(good_document())
    row = document[place][index]
    for name, value in changes.items():
        if value is ...:
            del row[name]
        else:
            row[name] = value
    return document
