"""COCO's numbers of a network in training: every rank predicts its share of the images, the first one scores them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from maskrcnn.coco.annotations import CocoDataset
from maskrcnn.coco.evaluate import Metrics, evaluate
from maskrcnn.coco.results import CocoResults, merge_results
from maskrcnn.config import Precision, PreprocessConfig, ThresholdConfig
from maskrcnn.errors import AnnotationError
from maskrcnn.model.bundle import Category
from maskrcnn.model.coco_results import predict_dataset
from maskrcnn.model.predictor import Predictor

SCORE_THRESHOLD = 0.05
"""AP weighs every score, so that few detections are cut off."""


@dataclass(frozen=True)
class ValidationTurns:
    """When a network in training is validated, besides at the end; 0: not by that measure."""

    every_steps: int
    every_s: float

    def is_turn(self, step: int) -> bool:
        """Say whether it is the turn by the count of steps."""
        return self.every_steps > 0 and step > 0 and step % self.every_steps == 0

    def num_left(self, step: int, max_steps: int, seconds: float) -> int:
        """Give how many are still to come when a step is done, its own and the one at the end among them.

        Args:
            step: number of steps done.
            max_steps: of the training.
            seconds: that the steps left will take.
        """
        by_steps = (max_steps - 1) // self.every_steps - (step - 1) // self.every_steps if self.every_steps else 0
        by_clock = int(seconds / self.every_s) if self.every_s else 0
        return max(by_steps, by_clock) + 1


def validate(
    network: Any,
    dataset: CocoDataset,
    images_uri: str,
    *,
    preprocess: PreprocessConfig,
    max_detections: int,
    categories: tuple[Category, ...],
    precision: Precision,
    rank: int = 0,
    world_size: int = 1,
    group: dist.ProcessGroup | None = None,
) -> Metrics | None:
    """Score a network on a dataset; it is left in eval mode.

    Args:
        network: a torchvision Mask R-CNN, the same on every rank.
        dataset, images_uri: what to predict, and the truth.
        preprocess, max_detections, categories, precision: as the bundle will have them.
        rank, world_size: whose share this process predicts.
        group: that can gather Python objects; None for a single process.

    Returns:
        bbox and segm numbers as ``coco.evaluate`` gives them, on rank 0; None elsewhere.

    Raises:
        InputError: an image that is missing or cannot be used.
    """
    thresholds = ThresholdConfig(score_threshold=SCORE_THRESHOLD, max_detections=max(100, max_detections))
    predictor = Predictor(network.eval(), preprocess, thresholds, precision=precision, categories=categories)
    share = range(rank, dataset.num_images, world_size)
    results = predict_dataset(predictor, dataset, images_uri, indices=share)
    parts: list[CocoResults | None] = [results]
    if group is not None:
        parts = [None] * world_size
        dist.gather_object(results, parts if rank == 0 else None, group=group)
    if rank != 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return evaluate(dataset, merge_results([part for part in parts if part is not None]))


def check_scorable(dataset: CocoDataset) -> None:
    """Refuse a validation set that lacks what the scores need, before anything is trained.

    Raises:
        AnnotationError: naming the first annotation and the field.
    """
    for name in ("segmentation", "bbox", "area"):
        if name in dataset.first_without:
            thing = f"annotation {dataset.first_without[name]} {name}"
            raise AnnotationError(thing, "must be there to validate", dataset.place)
