"""The two sides of a score: the truths, and the predictions that count, sorted and numbered for the matching."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco import rle
from maskrcnn.coco.annotations import CocoDataset
from maskrcnn.coco.ids import find_ids
from maskrcnn.coco.packed import POLYGONS
from maskrcnn.coco.results import CocoResults
from maskrcnn.coco.survey import measure


@dataclass(frozen=True)
class Truths:
    """G annotations, in the file's order within an image."""

    indices: NDArray[np.int64]
    """(G,) of the dataset's annotations."""
    categories: NDArray[np.int64]
    """(G,) places among the dataset's category ids, ascending."""
    images: NDArray[np.int64]
    """(G,) places among the dataset's image ids in ascending order."""
    areas: NDArray[np.float64]
    """(G,) px"""
    is_crowd: NDArray[np.bool_]
    """(G,)"""


@dataclass(frozen=True)
class Detections:
    """D predictions that count: by category, best score first; of equal ones the lower image id, then as given."""

    indices: NDArray[np.int64]
    """(D,) of the predictions."""
    categories: NDArray[np.int64]
    """(D,) as in `Truths`."""
    images: NDArray[np.int64]
    """(D,) as in `Truths`."""
    scores: NDArray[np.float64]
    """(D,)"""
    ranks: NDArray[np.int64]
    """(D,) place among those of the same image and category, best first."""


def list_truths(dataset: CocoDataset) -> Truths:
    """List a dataset's annotations as truths."""
    return Truths(
        indices=np.arange(dataset.num_annotations),
        categories=dataset.categories.labels_of(dataset.category_ids) - 1,
        images=_ranks_of_images(dataset)[dataset.image_indices],
        areas=dataset.areas,
        is_crowd=dataset.iscrowd,
    )


def list_detections(dataset: CocoDataset, results: CocoResults, kept: NDArray[np.int64], limit: int) -> Detections:
    """List predictions as detections, the best of each image and category.

    Args:
        dataset: the annotations.
        results: the predictions.
        kept: indices of those whose image and category the dataset has.
        limit: on detections in an image and category.
    """
    categories = dataset.categories.labels_of(results.category_ids[kept]) - 1
    images = np.searchsorted(np.sort(dataset.image_ids), results.image_ids[kept])
    scores = results.scores[kept]
    by_image = np.lexsort((-scores, images, categories))
    groups = group_by_image_and_category(images, categories)[by_image]
    begins = np.flatnonzero(np.diff(groups, prepend=-1))
    ranks = np.empty(len(kept), np.int64)
    ranks[by_image] = np.arange(len(kept)) - np.repeat(begins, np.diff(begins, append=len(kept)))
    order = np.lexsort((images, -scores, categories))
    order = order[ranks[order] < limit]
    return Detections(kept[order], categories[order], images[order], scores[order], ranks[order])


def group_by_image_and_category(images: NDArray[np.int64], categories: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the pairs of an image and a category."""
    return categories << 32 | images


def sizes_of_images(dataset: CocoDataset, image_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give (N, 2) height and width, px, of images that the dataset has."""
    indices, _ = find_ids(image_ids, dataset.image_ids)
    return np.stack([dataset.heights[indices], dataset.widths[indices]], axis=1)


def measure_results(
    results: CocoResults, indices: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the areas and boxes of predictions: both by their boxes where they have them, as COCO does, else by masks.

    Args:
        results: the predictions.
        indices: (K,) which ones.
        sizes: (K, 2) height and width of their images, px.

    Returns:
        (K,) areas, px, and (K, 4) boxes, XYWH, absolute px.

    Raises:
        AnnotationError: polygons that cannot be drawn.

    Source: pycocotools `coco.py`, `COCO.loadRes`.
    """
    if results.bboxes is not None:
        boxes = results.bboxes[indices]
        with np.errstate(over="ignore"):
            return boxes[:, 2] * boxes[:, 3], boxes
    assert results.segmentations is not None
    packed = results.segmentations.packed
    all_areas, all_boxes = measure(packed.counts, results.segmentations.sizes[:, 0])
    areas, boxes = all_areas[indices].astype(np.float64), all_boxes[indices]
    for place in np.flatnonzero(packed.kinds[indices] == POLYGONS).tolist():
        height, width = sizes[place].tolist()
        drawn = results.rle(int(indices[place]), (height, width))
        areas[place], boxes[place] = rle.area(drawn), rle.to_bbox(drawn)
    return areas, boxes


def _ranks_of_images(dataset: CocoDataset) -> NDArray[np.int64]:
    ranks = np.empty(dataset.num_images, np.int64)
    ranks[np.argsort(dataset.image_ids)] = np.arange(dataset.num_images)
    return ranks
