"""What a dataset holds, in numbers, beside what the training of a good model is known to need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.annotations import MEDIUM_PX, SMALL_PX
from maskrcnn.coco.ids import find_ids
from maskrcnn.coco.packed import NONE
from maskrcnn.coco.validate.relations import count_instances
from maskrcnn.coco.validate.scan import Scanned

ENOUGH_IMAGES, ENOUGH_INSTANCES, BEST_INSTANCES = 500, 1000, 2000

_QUANTILES = {"min": 0.0, "p10": 0.1, "median": 0.5, "p90": 0.9, "max": 1.0}


def count_statistics(scanned: Scanned, *, is_training: bool) -> dict[str, Any]:
    """Count instances by category, size and image, and aspect ratios; crowds are left out of all but their number.

    Args:
        scanned: the dataset.
        is_training: whether to learn from it; only then is there advice.
    """
    images, annotations, categories = scanned.images, scanned.annotations, scanned.categories
    is_crowd = annotations.column("iscrowd")
    instances = ~is_crowd & annotations.column("has_image_id")
    places, is_known = find_ids(annotations.column("image_id"), images.column("id"))
    per_image = np.bincount(places[instances & is_known], minlength=len(images))
    by_category = count_instances(annotations, categories)
    has_shape = annotations.column("kinds") != NONE
    areas = np.where(has_shape, annotations.column("areas"), annotations.column("area"))[instances]
    areas = areas[np.isfinite(areas)]
    extents = annotations.column("extents")
    sides = np.where(has_shape[:, None], extents[:, 2:] - extents[:, :2], annotations.column("bbox")[:, 2:])[instances]
    sides = sides[(sides > 0).all(axis=1)]
    num_instances = int(instances.sum())
    return {
        "images": len(images),
        "images_without_instances": int((per_image == 0).sum()),
        "instances": num_instances,
        "crowds": int(is_crowd.sum()),
        "categories": len(categories),
        "instances_by_category": [
            {"id": categories.id_of(index), "name": categories.names[index], "instances": int(by_category[index])}
            for index in np.argsort(-by_category, kind="stable").tolist()
        ],
        "sizes": {
            "small": int((areas < SMALL_PX).sum()),
            "medium": int(((areas >= SMALL_PX) & (areas < MEDIUM_PX)).sum()),
            "large": int((areas >= MEDIUM_PX).sum()),
        },
        "instances_per_image": _spread(per_image),
        "aspect_ratios": _spread(sides[:, 0] / sides[:, 1]),
        "advice": advise(len(images), num_instances) if is_training else [],
    }


def advise(num_images: int, num_instances: int) -> list[str]:
    """Say what the numbers mean for training."""
    advice = []
    if num_images < ENOUGH_IMAGES:
        advice.append(f"images: {num_images:,}, and at least {ENOUGH_IMAGES} are advised")
    if num_instances < ENOUGH_INSTANCES:
        least = f"at least {ENOUGH_INSTANCES:,} are advised, {BEST_INSTANCES:,} for the best"
        advice.append(f"instances: {num_instances:,}, and {least}")
    elif num_instances < BEST_INSTANCES:
        advice.append(f"instances: {num_instances:,} are enough, {BEST_INSTANCES:,} are advised for the best results")
    return advice


def _spread(values: NDArray[Any] | Sequence[float]) -> dict[str, float]:
    """Give quantiles and the mean; empty where there is nothing."""
    if not len(values):
        return {}
    quantiles = np.quantile(values, list(_QUANTILES.values()))
    spread = {name: round(float(value), 3) for name, value in zip(_QUANTILES, quantiles, strict=True)}
    return {**spread, "mean": round(float(np.mean(values)), 3)}
