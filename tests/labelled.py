"""A small annotated set, and what a labelling job leaves of it: for the tests of the evaluate command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from maskrcnn import storage
from maskrcnn.coco import rle
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan import PartId, PlannedPart
from maskrcnn.labelling.results import ImageResult
from maskrcnn.labelling.table import RunStamp, build_part, part_to_parquet
from maskrcnn.model.detections import Detections

SIZE = (40, 60)
CATEGORIES = {3: "box", 8: "bag"}


def mask(x: int, y: int, w: int, h: int) -> rle.Rle:
    drawn = np.zeros(SIZE, np.uint8)
    drawn[y : y + h, x : x + w] = 1
    return rle.from_mask(drawn)


def found(*rows: tuple[int, float, tuple[int, int, int, int]], with_masks: bool = True) -> ImageResult:
    boxes = torch.tensor([[x, y, x + w, y + h] for _, _, (x, y, w, h) in rows], dtype=torch.float32).reshape(-1, 4)
    category_ids = torch.tensor([category_id for category_id, _, _ in rows], dtype=torch.int64)
    scores = torch.tensor([score for _, score, _ in rows], dtype=torch.float32)
    rles = [mask(*place) for _, _, place in rows] if with_masks else []
    return ImageResult(SIZE[1], SIZE[0], Detections(SIZE, boxes, scores, category_ids, category_ids, rles))


FAILED = ImageResult(error_kind="corrupt", error_message="cut off")
TRUTH = {1: [(3, (2, 2, 10, 8)), (8, (30, 5, 12, 20))], 2: [(3, (5, 5, 20, 20))], 7: [(8, (1, 1, 9, 9))]}
FILE_NAMES = {1: "front/a.jpg", 2: "front/b.jpg", 7: "back/a.jpg"}
LABELLED = {
    "front/a.jpg": found((3, 0.9, (2, 2, 10, 8)), (8, 0.8, (30, 6, 12, 20)), (3, 0.4, (40, 20, 10, 10))),
    "front/b.jpg": found((3, 0.7, (5, 5, 20, 20))),
    "back/a.jpg": FAILED,
    "back/not-annotated.jpg": found((3, 0.6, (5, 5, 20, 20)), (8, 0.6, (5, 5, 20, 20))),
}


def write_truth(path: Path, file_names: dict[int, str] = FILE_NAMES) -> str:
    annotations = [
        {"image_id": image_id, "category_id": category_id, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        | {"segmentation": {"size": SIZE, "counts": mask(*box)["counts"].decode()}}
        for image_id, objects in TRUTH.items()
        for category_id, box in objects
    ]
    document = {
        "images": [
            {"id": image_id, "file_name": name, "width": SIZE[1], "height": SIZE[0]}
            for image_id, name in file_names.items()
        ],
        "annotations": [{"id": index, **each} for index, each in enumerate(annotations, start=1)],
        "categories": [{"id": category_id, "name": name} for category_id, name in CATEGORIES.items()],
    }
    path.write_text(json.dumps(document))
    return str(path)


def write_table(
    folder: Path | str, results: dict[str, ImageResult], *, image_ids: list[int | None] | None = None, number: int = 1
) -> str:
    """Leave what a labelling job leaves: images of a bucket, and their rows."""
    keys = pa.table(
        {
            "image_uri": [f"s3://shop/photos/{name}" for name in results],
            "etag": ["1"] * len(results),
            "attempt": pa.array([number] * len(results), pa.int16()),
            "image_id": pa.array(image_ids or [None] * len(results), pa.int64()),
        }
    )
    has_masks = any(result.detections and result.detections.rles for result in results.values())
    stamp = RunStamp("run", "abc", 0.3, CATEGORIES, "full" if has_masks else "none")
    output = Output(str(folder))
    part = PlannedPart(PartId(number, 0), None, len(results))
    storage.put_if_absent(output.part_uri(part), part_to_parquet(build_part(keys, list(results.values()), stamp)))
    return str(folder)


def to_results_json(path: Path, results: dict[str, ImageResult], file_names: dict[int, str] = FILE_NAMES) -> str:
    """Write the same detections as a COCO results file, by hand."""
    ids = {name: image_id for image_id, name in file_names.items()}
    rows: list[dict[str, Any]] = []
    for name, result in results.items():
        one = result.detections
        for place in range(result.num_instances):
            assert one is not None
            x0, y0, x1, y1 = one.boxes[place].tolist()
            rows.append(
                {
                    "image_id": ids.get(name, 999),
                    "category_id": int(one.category_ids[place]),
                    "score": float(one.scores[place]),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "segmentation": {"size": SIZE, "counts": one.rles[place]["counts"].decode()},
                }
            )
    path.write_text(json.dumps(rows))
    return str(path)
