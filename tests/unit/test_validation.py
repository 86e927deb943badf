"""Validation during a training: ranks share the images, and the numbers are those of one process."""

from __future__ import annotations

import json
from pathlib import Path

import torch.distributed as dist
from PIL import Image
from torchvision.models.detection.mask_rcnn import MaskRCNN

from maskrcnn.coco import rle
from maskrcnn.coco.annotations import load_coco
from maskrcnn.coco.evaluate import Metrics
from maskrcnn.config import ThresholdConfig
from maskrcnn.model.predictor import Predictor
from maskrcnn.training.validation import validate
from tests.live_network import CATEGORIES, PREPROCESS, build_small_network, noise, quick_networks
from tests.ranks import run_ranks

NUM_IMAGES = 3
LEFT_OUT = 4
"""Of a network's own detections, every how many-th the truth leaves out, so that precision is below 1."""


def write_dataset(folder: Path, network: MaskRCNN) -> str:
    """Write images, and most of what a network finds on them as their truth."""
    predictor = Predictor(network, PREPROCESS, ThresholdConfig(0.05, max_detections=100), categories=CATEGORIES)
    images, annotations = [], []
    for image_id in range(1, NUM_IMAGES + 1):
        pixels = noise(80, 100, seed=image_id)
        name = f"{image_id}.png"
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / name)
        images.append({"id": image_id, "file_name": name, "width": 100, "height": 80})
        [found] = predictor([pixels])
        for place in range(len(found)):
            if place % LEFT_OUT == 0 or rle.area(found.rles[place]) == 0:
                continue
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(found.category_ids[place]),
                    "segmentation": rle.to_json(found.rles[place]),
                    "bbox": rle.to_bbox(found.rles[place]),
                    "area": int(rle.area(found.rles[place])),
                    "iscrowd": 0,
                }
            )
    assert len(annotations) > 10
    categories = [{"id": category.id, "name": category.name} for category in CATEGORIES]
    path = folder / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return str(path)


def validate_as(
    rank: int, group: dist.ProcessGroup | None, network: MaskRCNN, folder: str, world_size: int
) -> Metrics | None:
    with quick_networks():
        return validate(
            network,
            load_coco(f"{folder}/truth.json"),
            folder,
            preprocess=PREPROCESS,
            max_detections=100,
            categories=CATEGORIES,
            precision="fp32",
            rank=rank,
            world_size=world_size,
            group=group,
        )


def test_two_ranks_give_the_numbers_of_one_process(tmp_path: Path) -> None:
    with quick_networks():
        network = build_small_network()
        write_dataset(tmp_path, network)
    alone = validate_as(0, None, network, str(tmp_path), 1)
    (tmp_path / "ranks").mkdir()
    first, second = run_ranks(tmp_path / "ranks", 2, validate_as, network, str(tmp_path), 2)
    assert second is None, "only the first rank scores"
    assert alone is not None
    assert 0.3 < alone["segm"]["AP"] < 0.99
    assert first == alone
