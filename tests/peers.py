"""pycocotools' numbers as a list, and ours in the same order."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def pycocotools_numbers(
    document: dict[str, Any], predictions: list[dict[str, Any]], iou_type: str, limits: list[int]
) -> list[float]:
    """Score with pycocotools, and average as its summary does, at any limits."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(document)
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(copy.deepcopy(predictions)), iou_type)
        run.params.maxDets = limits
        run.evaluate()
        run.accumulate()
    precision, recall = run.eval["precision"][..., -1], run.eval["recall"]
    slices = [precision[..., 0], precision[0, ..., 0], precision[5, ..., 0]]
    slices += [precision[..., area] for area in (1, 2, 3)]
    slices += [recall[:, :, 0, index] for index in range(len(limits))]
    slices += [recall[:, :, area, -1] for area in (1, 2, 3)]
    slices += [precision[:, :, index, 0] for index in range(precision.shape[2])]
    return [float(each[each > -1].mean()) if (each > -1).any() else -1 for each in slices]


def numbers_of(row: dict[str, Any]) -> list[float]:
    """Give the numbers of one of our IoU types, and AP by category."""
    return [value for value in row.values() if isinstance(value, float)] + list(row["per_category_AP"].values())
