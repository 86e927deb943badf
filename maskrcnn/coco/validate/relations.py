"""What is wrong between rows: ids that repeat or lead nowhere, categories that nobody uses, instances twice."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.ids import find_ids, repeats
from maskrcnn.coco.packed import NONE
from maskrcnn.coco.validate.findings import FEW_INSTANCES
from maskrcnn.coco.validate.lists import AnnotationList, CategoryList, RowList
from maskrcnn.coco.validate.scan import Scanned


def check_relations(scanned: Scanned, *, is_training: bool = True) -> None:
    """Find what is wrong between the rows of a dataset."""
    annotations = scanned.annotations
    for rows in (scanned.images, annotations, scanned.categories):
        _check_ids_unique(rows)
    _check_known(annotations, "image_id", scanned.images)
    _check_known(annotations, "category_id", scanned.categories)
    annotations.report_where("duplicate_instance", find_twins(annotations), "segmentation", _instance)
    _check_names(scanned.categories)
    if is_training:
        _check_enough(scanned.categories, count_instances(annotations, scanned.categories))


def find_twins(annotations: AnnotationList) -> NDArray[np.bool_]:
    """Say of each annotation whether one before it has its image, category and shape."""
    shapes = np.where(annotations.column("kinds") == NONE, 0, annotations.column("digests"))
    boxes = np.nan_to_num(annotations.column("bbox"), nan=-1.0)
    is_shaped = (annotations.column("kinds") != NONE) | (boxes[:, 2] > 0)
    is_shaped &= annotations.column("has_image_id") & annotations.column("has_category_id")
    # Where there is a mask it decides; else the box does.
    boxes = np.where((annotations.column("kinds") == NONE)[:, None], boxes, 0.0)
    keys = [annotations.column("image_id"), annotations.column("category_id"), shapes]
    table = np.stack([*keys, *boxes.view(np.int64).T], axis=1)
    is_twin = np.zeros(len(annotations), np.bool_)
    indices = np.flatnonzero(is_shaped)
    order = indices[np.lexsort([indices, *table[indices].T])]
    is_twin[order[1:]] = (table[order[1:]] == table[order[:-1]]).all(axis=1)
    return is_twin


def count_instances(annotations: AnnotationList, categories: CategoryList) -> NDArray[np.int64]:
    """Count each category's annotations, crowds left out."""
    places, is_known = find_ids(annotations.column("category_id"), categories.column("id"))
    is_instance = is_known & annotations.column("has_category_id") & ~annotations.column("iscrowd")
    return np.bincount(places[is_instance], minlength=len(categories)).astype(np.int64)


def _check_enough(categories: CategoryList, num_instances: NDArray[np.int64]) -> None:
    is_first = ~repeats(categories.column("id"))
    is_unused = is_first & (num_instances == 0)
    categories.report_where("unused_category", is_unused, "id", lambda i: categories.names[i])
    is_few = is_first & (num_instances > 0) & (num_instances < FEW_INSTANCES)
    categories.report_where("few_instances", is_few, "id", lambda i: f"{categories.names[i]}: {num_instances[i]}")


def _check_names(categories: CategoryList) -> None:
    is_repeat = repeats(categories.column("id"))
    by_name: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(categories.names):
        if name:
            by_name[" ".join(name.casefold().split())].append(index)
    is_same, is_similar = np.zeros((2, len(categories)), np.bool_)
    first = {}
    for alike in by_name.values():
        seen = {categories.names[alike[0]]}
        for index in alike[1:]:
            if not is_repeat[index]:
                is_same[index] = categories.names[index] in seen
                is_similar[index] = not is_same[index]
            seen.add(categories.names[index])
            first[index] = categories.names[alike[0]]
    categories.report_where("duplicate_category_name", is_same, "name", lambda i: repr(categories.names[i]))
    categories.report_where(
        "similar_category_names", is_similar, "name", lambda i: f"{categories.names[i]!r} and {first[i]!r}"
    )


def _check_ids_unique(rows: RowList) -> None:
    has_id = rows.column("has_id")
    is_repeat = np.zeros(len(rows), np.bool_)
    is_repeat[has_id] = repeats(rows.column("id")[has_id])
    rows.report_where(f"duplicate_{rows.subject}_id", is_repeat, "id", lambda i: int(rows.column("id")[i]))


def _check_known(annotations: AnnotationList, field: str, rows: RowList) -> None:
    values = annotations.column(field)
    _, is_known = find_ids(values, rows.column("id")[rows.column("has_id")])
    is_orphan = annotations.column(f"has_{field}") & ~is_known
    annotations.report_where(f"orphan_{field}", is_orphan, field, lambda i: int(values[i]))


def _instance(_: int) -> str:
    return "the same as one before"
