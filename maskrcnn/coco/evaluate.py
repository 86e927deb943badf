"""COCO's scores: the 12 numbers and AP per category, through pycocotools' own matching, on validated input."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from maskrcnn.coco import rle
from maskrcnn.coco.annotations import CocoDataset
from maskrcnn.coco.results import CocoResults, load_results, parse_results
from maskrcnn.errors import AnnotationError, InputError

__all__ = ["CocoResults", "IouType", "Metrics", "evaluate", "format_metrics", "load_results", "parse_results"]

IouType = Literal["bbox", "segm"]
Metrics = dict[str, Any]

_AREAS = {"s": 1, "m": 2, "l": 3}
_IOU_50, _IOU_75 = 0, 5


def evaluate(
    dataset: CocoDataset,
    results: CocoResults | list[dict[str, Any]],
    *,
    iou_types: Sequence[IouType] = ("bbox", "segm"),
    max_detections: Sequence[int] = (1, 10, 100),
) -> Metrics:
    """Score predictions against annotations.

    Args:
        dataset: the annotations.
        results: the predictions, as columns or as parsed COCO results. Those of images or categories that the dataset
            does not have are dropped, and counted.
        iou_types: by the overlap of boxes, of masks, or both.
        max_detections: limits on the predictions that count in an image and category, best first; AR is given at each,
            everything else at the largest.

    Returns:
        For each IoU type AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl (AR by the limits), and
        per_category_AP by category id; -1 where undefined. `dropped_predictions` counts what was dropped, if any.

    Raises:
        AnnotationError: an annotation or prediction that lacks what the scores need, or has a broken segmentation.
        InputError: no limit, or one below 1.

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
    metrics: Metrics = {}
    for iou_type in iou_types:
        scoring = _Scoring(dataset, iou_type, limits)
        scoring.add_truths(dataset)
        scoring.add_detections(dataset, results, kept)
        metrics[iou_type] = _summarise(scoring.run(), dataset.categories.ids, limits)
    if len(kept) < len(results):
        num_foreign = int((~in_images).sum())
        unknown_category = len(results) - len(kept) - num_foreign
        metrics["dropped_predictions"] = {"unknown_image": num_foreign, "unknown_category": unknown_category}
    return metrics


def format_metrics(metrics: Metrics) -> str:
    """Lay the numbers out as a table for people, a line an IoU type; `-` where undefined."""
    scores = {name: row for name, row in metrics.items() if name != "dropped_predictions"}
    lines: list[str] = []
    for name, row in scores.items():
        columns = [column for column in row if column != "per_category_AP"]
        if not lines:
            lines.append(" " * 4 + "".join(f"{column:>7}" for column in columns))
        lines.append(
            f"{name:4}" + "".join(f"{row[column]:7.3f}" if row[column] >= 0 else f"{'-':>7}" for column in columns)
        )
    if dropped := metrics.get("dropped_predictions"):
        reasons = [f"{number} of an {reason.replace('_', ' ')}" for reason, number in dropped.items() if number]
        lines.append(f"dropped predictions: {', '.join(reasons)}")
    return "\n".join(lines)


class _Scoring(COCOeval):  # type: ignore[misc]
    """pycocotools' matching and accumulation, fed with checked objects instead of files, and silent."""

    def __init__(self, dataset: CocoDataset, iou_type: IouType, limits: list[int]) -> None:
        super().__init__(iouType=iou_type)
        self.params.imgIds = dataset.image_ids.tolist()
        self.params.catIds = list(dataset.categories.ids)
        self.params.maxDets = limits
        self._iou_type = iou_type
        self._gts: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
        self._dts: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)

    def add_truths(self, dataset: CocoDataset) -> None:
        """Add every annotation; all must have what the scores need."""
        shape = "bbox" if self._iou_type == "bbox" else "segmentation"
        for field in (shape, "area", "iscrowd"):
            if field in dataset.first_without:
                thing = f"annotation {dataset.first_without[field]} {field}"
                raise AnnotationError(thing, f"must be there to score {self._iou_type}", dataset.place)
        for index in range(dataset.num_annotations):
            image_id = int(dataset.image_ids[dataset.image_indices[index]])
            category_id = int(dataset.category_ids[index])
            is_crowd = int(dataset.iscrowd[index])
            truth = {
                # Counted from 1, since COCOeval writes the id of the match, and 0 for none.
                "id": index + 1,
                "area": float(dataset.areas[index]),
                "iscrowd": is_crowd,
                "ignore": is_crowd,
                shape: dataset.rle(index) if shape == "segmentation" else dataset.bboxes[index].tolist(),
            }
            self._gts[image_id, category_id].append(truth)

    def add_detections(self, dataset: CocoDataset, results: CocoResults, kept: NDArray[np.int64]) -> None:
        """Add the predictions whose indices are kept."""
        sides = zip(dataset.heights.tolist(), dataset.widths.tolist(), strict=True)
        size_of = dict(zip(dataset.image_ids.tolist(), sides, strict=True))
        has_boxes = results.bboxes is not None
        for index in kept.tolist():
            image_id = int(results.image_ids[index])
            detection: dict[str, Any] = {"id": index + 1, "score": float(results.scores[index])}
            if has_boxes:
                detection["bbox"] = results.bboxes[index].tolist()  # type: ignore[index]
                detection["area"] = detection["bbox"][2] * detection["bbox"][3]
            if self._iou_type == "segm" or not has_boxes:
                detection["segmentation"] = mask = results.rle(index, size_of[image_id])
                detection.setdefault("bbox", rle.to_bbox(mask) if self._iou_type == "bbox" else [])
                if not has_boxes:
                    detection["area"] = rle.area(mask)
            self._dts[image_id, int(results.category_ids[index])].append(detection)

    def run(self) -> dict[str, NDArray[np.float64]]:
        """Match and accumulate: precision (T, R, K, A, M) and recall (T, K, A, M)."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.evaluate()
            self.accumulate()
        return {"precision": self.eval["precision"], "recall": self.eval["recall"]}

    def _prepare(self) -> None:
        """Keep what was added."""


def _summarise(
    accumulated: dict[str, NDArray[np.float64]], category_ids: Sequence[int], limits: Sequence[int]
) -> dict[str, Any]:
    # pycocotools' own summary looks for a limit of 100, and gives -1 where there is none.
    precision = accumulated["precision"][..., -1]  # (T, R, K, A)
    recall = accumulated["recall"]  # (T, K, A, M)
    summary: dict[str, Any] = {
        "AP": _mean(precision[:, :, :, 0]),
        "AP50": _mean(precision[_IOU_50, :, :, 0]),
        "AP75": _mean(precision[_IOU_75, :, :, 0]),
        **{f"AP{name}": _mean(precision[:, :, :, area]) for name, area in _AREAS.items()},
        **{f"AR{limit}": _mean(recall[:, :, 0, index]) for index, limit in enumerate(limits)},
        **{f"AR{name}": _mean(recall[:, :, area, -1]) for name, area in _AREAS.items()},
    }
    summary["per_category_AP"] = {
        str(category_id): _mean(precision[:, :, index, 0]) for index, category_id in enumerate(category_ids)
    }
    return summary


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0
