"""Shelves that never were, with masks that are exact: for the demo, the tests and the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from maskrcnn.synthetic.products import CATEGORIES
from maskrcnn.synthetic.shelf import ShelfImage, ShelfInstance, draw_shelf

__all__ = ["CATEGORIES", "ShelfImage", "ShelfInstance", "draw_shelf", "write_shelves"]


def write_shelves(
    folder_path: Path, num_images: int, seed: int, *, width: int = 160, height: int = 160, num_boards: int = 2
) -> Path:
    """Draw shelves into ``images/`` of a folder as JPEG, and ``annotations.json`` (COCO, RLE) beside it.

    Args:
        folder_path: where to write; made where it is missing.
        num_images: ``images/shelf-00001.jpg`` and so on.
        seed: folders of different seeds share no image.
        width: of an image, px.
        height: of an image, px.
        num_boards: shelves above each other in an image.

    Returns:
        The path of the annotations.
    """
    image_path = folder_path / "images"
    image_path.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, num_images + 1):
        shelf = draw_shelf((seed, image_id), width=width, height=height, num_boards=num_boards)
        file_name = f"shelf-{image_id:05d}.jpg"
        Image.fromarray(shelf.image).save(image_path / file_name, quality=92)
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for instance in shelf.instances:
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **_annotation(instance)})
    categories = [{"id": category_id, "name": name} for category_id, name in CATEGORIES.items()]
    annotations_path = folder_path / "annotations.json"
    document = {"images": images, "annotations": annotations, "categories": categories}
    annotations_path.write_text(json.dumps(document), encoding="utf-8")
    return annotations_path


def _annotation(instance: ShelfInstance) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(instance.mask, np.uint8))
    return {
        "category_id": instance.category_id,
        "bbox": coco_mask.toBbox(rle).tolist(),
        "area": int(coco_mask.area(rle)),
        "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
        "iscrowd": 0,
    }
