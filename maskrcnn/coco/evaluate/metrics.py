"""COCO's scores: the 12 numbers and AP per category, equal to pycocotools', and what else the matches tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.annotations import CocoDataset
from maskrcnn.coco.evaluate.analysis import analyse
from maskrcnn.coco.evaluate.boundary import BoundaryOverlaps
from maskrcnn.coco.evaluate.overlaps import BoxOverlaps, MaskOverlaps, Overlaps
from maskrcnn.coco.evaluate.scoring import AREAS, Scores, score
from maskrcnn.coco.evaluate.sides import Detections, list_detections, list_truths, measure_results, sizes_of_images
from maskrcnn.coco.results import CocoResults, parse_results
from maskrcnn.coco.rle import Rle
from maskrcnn.errors import AnnotationError, InputError

IouType = Literal["bbox", "segm", "boundary"]
Metrics = dict[str, Any]

_IOU_50, _IOU_75 = 0, 5


def evaluate(
    dataset: CocoDataset,
    results: CocoResults | list[dict[str, Any]],
    *,
    iou_types: Sequence[IouType] = ("bbox", "segm"),
    max_detections: Sequence[int] = (1, 10, 100),
    with_analysis: bool = False,
) -> Metrics:
    """Score predictions against annotations.

    Args:
        dataset: the annotations.
        results: the predictions, as columns or as parsed COCO results. Those of images or categories that the dataset
            does not have are dropped, and counted.
        iou_types: by the overlap of boxes, of masks, or of masks and their boundaries.
        max_detections: limits on the predictions that count in an image and category, best first; AR is given at each,
            everything else at the largest.
        with_analysis: add what `maskrcnn.coco.evaluate.analysis` finds.

    Returns:
        For each IoU type AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl (AR by the limits), and
        per_category_AP by category id; -1 where undefined. `dropped_predictions` counts what was dropped, if any.

    Raises:
        AnnotationError: an annotation or prediction that lacks what the scores need, or has a broken segmentation.
        InputError: no limit, or one below 1.

    The numbers are pycocotools', but where an annotation has the id 0, which it takes for no match.

    Source: pycocotools `cocoeval.py`, `COCOeval`; areas of predictions as `coco.py`, `COCO.loadRes`.
    """
    if not isinstance(results, CocoResults):
        results = parse_results(results, "predictions")
    limits = sorted(set(max_detections))
    if not limits or limits[0] < 1:
        raise InputError("--max-detections", f"must be numbers of 1 or more, got {list(max_detections)}")
    in_images = np.isin(results.image_ids, dataset.image_ids)
    in_categories = np.isin(results.category_ids, np.array(dataset.categories.ids))
    kept = np.flatnonzero(in_images & in_categories)
    truths = list_truths(dataset)
    detections = list_detections(dataset, results, kept, limits[-1])
    sizes = sizes_of_images(dataset, results.image_ids[detections.indices])
    if results.bboxes is None or set(iou_types) != {"bbox"}:
        results.check_sizes(detections.indices, sizes)
    areas, boxes = measure_results(results, detections.indices, sizes)
    metrics: Metrics = {}
    for iou_type in iou_types:
        _check_truths(dataset, iou_type)
        if iou_type == "bbox":
            overlaps: Overlaps = BoxOverlaps(boxes, dataset.bboxes, truths.is_crowd)
        else:
            overlaps = _mask_overlaps(dataset, results, detections, sizes, is_boundary=iou_type == "boundary")
        scores = score(truths, detections, areas, overlaps, num_categories=len(dataset.categories), limits=limits)
        metrics[iou_type] = _summarise(scores, dataset.categories.ids, limits)
        if with_analysis:
            metrics[iou_type] |= analyse(truths, detections, scores, overlaps, dataset.categories.ids)
    if len(kept) < len(results):
        num_foreign = int((~in_images).sum())
        unknown_category = len(results) - len(kept) - num_foreign
        metrics["dropped_predictions"] = {"unknown_image": num_foreign, "unknown_category": unknown_category}
    return metrics


def _check_truths(dataset: CocoDataset, iou_type: IouType) -> None:
    """Refuse annotations that lack what the scores need."""
    for field in ("bbox" if iou_type == "bbox" else "segmentation", "area", "iscrowd"):
        if field in dataset.first_without:
            thing = f"annotation {dataset.first_without[field]} {field}"
            raise AnnotationError(thing, f"must be there to score {iou_type}", dataset.place)


def _mask_overlaps(
    dataset: CocoDataset,
    results: CocoResults,
    detections: Detections,
    sizes: NDArray[np.int64],
    *,
    is_boundary: bool,
) -> MaskOverlaps:
    indices, sides = detections.indices.tolist(), [(height, width) for height, width in sizes.tolist()]

    def mask_of(detection: int) -> Rle:
        return results.rle(indices[detection], sides[detection])

    kind = BoundaryOverlaps if is_boundary else MaskOverlaps
    return kind(mask_of, dataset.rle, dataset.iscrowd)


def _summarise(scores: Scores, category_ids: Sequence[int], limits: Sequence[int]) -> dict[str, Any]:
    # pycocotools' own summary looks for a limit of 100, and gives -1 where there is none.
    precision, recall = scores.precision, scores.recall
    sizes = [(name, area) for area, name in enumerate(AREAS) if name]
    summary: dict[str, Any] = {
        "AP": _mean(precision[:, :, :, 0]),
        "AP50": _mean(precision[_IOU_50, :, :, 0]),
        "AP75": _mean(precision[_IOU_75, :, :, 0]),
        **{f"AP{name}": _mean(precision[:, :, :, area]) for name, area in sizes},
        **{f"AR{limit}": _mean(recall[:, :, 0, index]) for index, limit in enumerate(limits)},
        **{f"AR{name}": _mean(recall[:, :, area, -1]) for name, area in sizes},
    }
    summary["per_category_AP"] = {
        str(category_id): _mean(precision[:, :, index, 0]) for index, category_id in enumerate(category_ids)
    }
    return summary


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0
