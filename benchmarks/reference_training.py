"""torchvision's way of training, as its reference scripts do it: what our own is measured against."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maskrcnn.coco.annotations import CocoDataset
from maskrcnn.coco.file_names import safe_join
from maskrcnn.images import BadImage, decode


class FullMasks(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Images with a full-size mask for every instance; every other one is mirrored."""

    def __init__(self, coco: CocoDataset, images_uri: str) -> None:
        self._coco, self._images_uri = coco, images_uri

    def __len__(self) -> int:
        return self._coco.num_images

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        coco = self._coco
        pixels = decode(Path(safe_join(self._images_uri, coco.file_names[index])).read_bytes())
        if isinstance(pixels, BadImage):
            raise ValueError(pixels.reason)
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float() / 255
        usable = [each for each in coco.annotations_of(index) if not coco.iscrowd[each]]
        masks = np.stack([coco_mask.decode(dict(coco.rle(each))) for each in usable])
        x, y, width, height = coco.bboxes[usable].T
        target = {
            "boxes": torch.tensor(np.stack([x, y, x + width, y + height], 1), dtype=torch.float32),
            "labels": torch.from_numpy(coco.categories.labels_of(coco.category_ids[usable])),
            "masks": torch.from_numpy(masks),
        }
        if index % 2:
            image = image.flip(-1)
            target["masks"] = target["masks"].flip(-1)
            target["boxes"][:, [0, 2]] = image.shape[-1] - target["boxes"][:, [2, 0]]
        return image, target


def as_tuples(batch: list[Any]) -> tuple[Any, ...]:
    """Collate as torchvision's reference scripts do."""
    return tuple(zip(*batch, strict=True))


def reference_steps(
    network: Any,
    optimizer: torch.optim.Optimizer,
    dataset: FullMasks,
    *,
    batch_size: int,
    num_workers: int,
    precision: str,
) -> Iterator[None]:
    """Train for ever, a step each time: the model's own transform and losses, which are read in every step.

    Args:
        network: torchvision's, in training mode, on its device.
        optimizer: of its parameters.
        dataset: what it learns from.
        batch_size: images of a step.
        num_workers: processes that load; 0: this one.
        precision: bf16, or fp32.
    """
    device = next(network.parameters()).device
    while True:
        loader = DataLoader(
            dataset, batch_size, shuffle=True, num_workers=num_workers, collate_fn=as_tuples, drop_last=True
        )
        for batch in loader:
            images = [image.to(device) for image in batch[0]]
            targets = [{name: tensor.to(device) for name, tensor in target.items()} for target in batch[1]]
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                losses = network(images, targets)
                loss = sum(losses.values())
            if not math.isfinite(loss.item()):
                raise ValueError("a loss is not finite")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield
