"""Tables as a labelling job leaves them, from masks that are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from maskrcnn import storage
from maskrcnn.coco import rle
from maskrcnn.config import ThresholdConfig
from maskrcnn.labelling.maker import MakerSettings
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan import PartId, PlannedPart
from maskrcnn.labelling.results import ImageResult
from maskrcnn.labelling.table import RunStamp, build_part, part_to_parquet
from maskrcnn.model.detections import Detections

Mask = NDArray[np.uint8]
Found = tuple[int, float, Mask]
"""Category id, score, mask."""

CATEGORIES = {2: "can", 5: "box", 9: "bag"}
FAILED = ImageResult(error_kind="corrupt", error_message="cut off")
HEIGHT, WIDTH = 48, 64


def blob(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Mask:
    """Draw something with parts, holes and a ragged rim, as networks do on a bad day."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    centre_y, centre_x = rng.uniform(0.2, 0.8, 2) * (height, width)
    distance = np.hypot((y - centre_y) / height, (x - centre_x) / width)
    return ((distance + rng.normal(0, 0.05, (height, width)) < 0.3) & (distance > 0.08)).astype(np.uint8)


def labelled(found: Sequence[Found], *, with_masks: bool = True) -> ImageResult:
    """Give a labelled image; boxes lie a fraction of a pixel round their masks, as networks' do."""
    height, width = found[0][2].shape if found else (HEIGHT, WIDTH)
    rles = [rle.from_mask(mask) for _, _, mask in found]
    boxes = torch.tensor([rle.to_bbox(one) for one in rles], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2] + 0.3
    category_ids = torch.tensor([category_id for category_id, _, _ in found], dtype=torch.int64)
    scores = torch.tensor([score for _, score, _ in found], dtype=torch.float32)
    detections = Detections((height, width), boxes, scores, category_ids, category_ids, rles if with_masks else [])
    return ImageResult(width, height, detections)


def write_part(
    folder: Path,
    results: Mapping[str, ImageResult],
    *,
    plan: int = 1,
    part: int = 0,
    date: str | None = None,
    image_ids: Sequence[int | None] | None = None,
    with_masks: bool = True,
    columns: Mapping[str, Sequence[Any]] | None = None,
    bucket: str = "s3://shop/photos",
    categories: Mapping[int, str] = CATEGORIES,
) -> str:
    """Leave one part of a labelling job's table, and give the job's OUTPUT."""
    keys = {
        "image_uri": [f"{bucket}/{name}" for name in results],
        "etag": ["1"] * len(results),
        "attempt": pa.array([plan] * len(results), pa.int16()),
        "image_id": pa.array(image_ids or [None] * len(results), pa.int64()),
        **(columns or {}),
    }
    stamp = RunStamp("run", "abc", 0.3, dict(categories), "full" if with_masks else "none")
    planned = PlannedPart(PartId(plan, part), date, len(results))
    body = part_to_parquet(build_part(pa.table(keys), list(results.values()), stamp))
    storage.put_if_absent(Output(str(folder)).part_uri(planned), body)
    return str(folder)


def maker_settings(output_uri: str, bundle_uri: str) -> MakerSettings:
    """Give what a part maker on the CPU is told."""
    return MakerSettings(
        bundle_uri=bundle_uri,
        bundle_sha256="0" * 64,
        output_uri=output_uri,
        run_id="run",
        thresholds=ThresholdConfig(),
        mask_nms=None,
        slicing=None,
        category_names={},
        device="cpu",
        precision="fp32",
        batch_size=1,
        masks="full",
        max_pixels=10**8,
        num_threads=1,
    )
