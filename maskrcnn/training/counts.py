"""What a training set holds, counted for people."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.annotations import CocoDataset


@dataclass(frozen=True)
class DatasetCounts:
    """What a training set holds, for people: what is learnt from, and what is left out and why."""

    num_images: int
    num_negatives: int
    num_crowds: int
    instances_by_category: dict[str, int]
    left_out: dict[str, int]
    first_left_out: dict[str, str] = field(default_factory=dict)
    """For each reason, the first annotation as messages name it."""


def count_learnt(
    coco: CocoDataset, is_usable: NDArray[np.bool_], left_out: dict[str, NDArray[np.bool_]]
) -> DatasetCounts:
    """Count what a file holds.

    Args:
        coco: the annotations.
        is_usable: (M,) the annotations that are learnt from.
        left_out: for each reason, (M,) the annotations that are not.
    """
    with_instances = len(np.unique(coco.image_indices[is_usable]))
    labels, numbers = np.unique(coco.category_ids[is_usable], return_counts=True)
    by_id = dict(zip(labels.tolist(), numbers.tolist(), strict=True))
    names = zip(coco.categories.ids, coco.categories.names, strict=True)
    return DatasetCounts(
        num_images=coco.num_images,
        num_negatives=coco.num_images - with_instances,
        num_crowds=int(coco.iscrowd.sum()),
        instances_by_category={name: by_id.get(category_id, 0) for category_id, name in names},
        left_out={reason: int(which.sum()) for reason, which in left_out.items() if which.any()},
        first_left_out={
            reason: coco.describe(int(which.argmax())) for reason, which in left_out.items() if which.any()
        },
    )
