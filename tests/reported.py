"""A labelled folder with photos, a truth and hostile names, for the tests of reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from maskrcnn.coco import rle
from maskrcnn.labelling.results import ImageResult
from tests.labelled_parts import HEIGHT, WIDTH, Mask, labelled, write_part

NUM_IMAGES = 60
HOSTILE_NAME = "\"><img src=x onerror=alert(1)>&quot;'\u2028`${1}.jpg"
HOSTILE_CATEGORY = "<script>alert(2)</script>\u2029\"'{{ 1 }}"
HOSTILE_REASON = "</script><b>cut</b> off"
CATEGORIES = {2: "can", 5: HOSTILE_CATEGORY, 9: "bag"}


def square(x: int, y: int, side: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + side, x : x + side] = 1
    return mask


def draw_photo(path: Path, number: int) -> None:
    pixels = np.full((HEIGHT, WIDTH, 3), (4 * number % 256, 90, 160), np.uint8)
    Image.fromarray(pixels).save(path, "JPEG")


def write_labelled(folder: Path, *, with_masks: bool = True) -> tuple[str, str]:
    """Leave a labelled folder of 60 photos and their truth, and give both.

    Photo 0 has a hostile name; 58 has no file, 59 could not be labelled. Image n has n % 4 detections: a can with a
    score of 0.9, another category's with 0.6, a can with 0.3 that finds nothing. The truth also has a bag in every
    tenth image, which is found in none.
    """
    images = folder / "images"
    images.mkdir()
    results: dict[str, ImageResult] = {}
    documents: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    for number in range(NUM_IMAGES):
        name = HOSTILE_NAME if number == 0 else f"photo-{number:02d}.jpg"
        if number < 58:
            draw_photo(images / name, number)
        found = [(2, 0.9, square(4, 4, 16)), (5, 0.6, square(30, 6, 12)), (2, 0.3, square(40, 30, 10))]
        results[name] = labelled(found[: number % 4], with_masks=with_masks)
        documents["images"].append({"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH})
        objects = [(2, (4, 4, 16)), (5, (30, 6, 12))][: number % 4] + [(9, (20, 30, 8))] * (number % 10 == 0)
        for category_id, (x, y, side) in objects:
            documents["annotations"].append(
                {
                    "id": len(documents["annotations"]) + 1,
                    "image_id": number,
                    "category_id": category_id,
                    "bbox": [x, y, side, side],
                    "area": side * side,
                    "iscrowd": 0,
                    "segmentation": rle.to_json(rle.from_mask(square(x, y, side))),
                }
            )
    results[f"photo-{NUM_IMAGES - 1}.jpg"] = ImageResult(error_kind="corrupt", error_message=HOSTILE_REASON)
    table = write_part(folder / "labels", results, bucket=str(images), categories=CATEGORIES, with_masks=with_masks)
    categories = [{"id": category_id, "name": name} for category_id, name in CATEGORIES.items()]
    truth = folder / "truth.json"
    truth.write_text(json.dumps({**documents, "categories": categories}))
    return table, str(truth)
