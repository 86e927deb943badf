"""Draw eight nights of shelf photos of three stores: on the last, one store is half sold out and one shelf is empty.

FOLDER/photos/2026-11-22/store-north/camera-1/0001.jpg …
FOLDER/annotations.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image

from maskrcnn.coco import rle
from maskrcnn.synthetic import CATEGORIES, draw_shelf

NIGHTS = [f"2026-11-{day}" for day in range(15, 23)]
STORES = ("east", "north", "south")
NUM_CAMERAS = 2
NUM_PHOTOS = 5
"""Of a camera and night."""
DRIFTING, EMPTY = "south", ("north", 2, 3)
"""A store; and a store, a camera and a photo."""


def stock(night: str, store: str, camera: int, photo: int) -> float:
    """Say which share of the products stands there."""
    if night != NIGHTS[-1]:
        return 1.0
    if (store, camera, photo) == EMPTY:
        return 0.0
    return 0.4 if store == DRIFTING else 1.0


def draw_nights(folder: Path) -> None:
    """Draw the photos, and the truth as ``annotations.json`` (COCO)."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    places = [
        (night, store, camera, photo)
        for night in NIGHTS
        for store in STORES
        for camera in range(1, NUM_CAMERAS + 1)
        for photo in range(1, NUM_PHOTOS + 1)
    ]
    for image_id, (night, store, camera, photo) in enumerate(places, start=1):
        shelf = draw_shelf((2026, image_id), stock=stock(night, store, camera, photo))
        file_name = f"{night}/store-{store}/camera-{camera}/{photo:04d}.jpg"
        path = folder / "photos" / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shelf.image).save(path, quality=92)
        height, width = shelf.image.shape[:2]
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for one in shelf.instances:
            mask = rle.from_mask(one.mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": one.category_id,
                    "bbox": rle.to_bbox(mask),
                    "area": rle.area(mask),
                    "iscrowd": 0,
                    "segmentation": rle.to_json(mask),
                }
            )
    categories = [{"id": category_id, "name": name} for category_id, name in CATEGORIES.items()]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(document), encoding="utf-8")


def main() -> None:
    """Draw into the folder that is named."""
    parser = argparse.ArgumentParser(description="Draw eight nights of shelf photos of three stores.")
    parser.add_argument("folder", type=Path)
    draw_nights(parser.parse_args().folder)


if __name__ == "__main__":
    main()
