"""What is checked before any worker starts: that the sets fit together, and that every image is there."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

from maskrcnn import storage
from maskrcnn.coco.annotations import CocoDataset
from maskrcnn.coco.categories import CategoryMap
from maskrcnn.coco.file_names import safe_join
from maskrcnn.errors import AnnotationError, InputError
from maskrcnn.training.counts import DatasetCounts

MAX_NAMED = 100
"""Missing images that the message names one by one."""


def check_categories(train: CocoDataset, val: CocoDataset) -> None:
    """Refuse a validation set whose categories are not those of the training set.

    Raises:
        InputError: naming the first category that differs.
    """
    difference = _first_difference(train.categories, val.categories)
    if difference:
        raise InputError("--val-annotations", f"must have the categories of {train.place}: {difference}", val.place)


def _first_difference(train: CategoryMap, val: CategoryMap) -> str:
    wanted, found = dict(zip(train.ids, train.names, strict=True)), dict(zip(val.ids, val.names, strict=True))
    for category_id in sorted(wanted | found):
        one, other = wanted.get(category_id), found.get(category_id)
        if one != other:
            there, here = (f"is {name!r}" if name is not None else "is not there" for name in (one, other))
            return f"category {category_id} {there} in the one and {here} in the other"
    return ""


def check_trainable(counts: DatasetCounts, categories: CategoryMap, place: str) -> None:
    """Refuse a set without a single instance to learn from, or whose categories a bundle could not tell apart.

    Raises:
        InputError: saying what it has instead.
    """
    _check_names_differ(categories, place)
    if not sum(counts.instances_by_category.values()):
        left_out = ", ".join(f"{number} with {reason}" for reason, number in counts.left_out.items())
        rule = f"must hold an instance with a mask; it has {counts.num_images} images, {counts.num_crowds} crowds"
        raise InputError("--annotations", rule + (f", {left_out}" if left_out else ""), place)


def _check_names_differ(categories: CategoryMap, place: str) -> None:
    first_ids: dict[str, int] = {}
    for category_id, name in zip(categories.ids, categories.names, strict=True):
        if name in first_ids:
            rule = f"must differ in name, and are both {name!r}"
            remedy = "rename one, or give the annotations of both one category"
            raise AnnotationError(f"categories {first_ids[name]} and {category_id}", rule, place, remedy)
        first_ids[name] = category_id


def digest_samples(dataset: CocoDataset, learnt_indices: NDArray[np.int64]) -> str:
    """Give the SHA-256 of what decides the order and the meaning of the samples; masks may be mended in between.

    Args:
        dataset: what is learnt.
        learnt_indices: the images that are learnt from.
    """
    categories = json.dumps([dataset.categories.ids, dataset.categories.names]).encode()
    names = dataset.file_names.encoded
    columns: list[NDArray[np.int64] | NDArray[np.uint8]] = [
        *(dataset.image_ids, dataset.heights, dataset.widths, names.offsets, names.content),
        *(dataset.annotation_ids, dataset.image_indices, dataset.category_ids, learnt_indices),
    ]
    digest = hashlib.sha256(categories)
    for column in columns:
        digest.update(f" {len(column)} ".encode())
        digest.update(column.tobytes())
    return digest.hexdigest()


def check_images(dataset: CocoDataset, images_uri: str, flag: str) -> None:
    """Refuse a set of which images are missing; they are looked for all at once.

    Raises:
        InputError: with their number and their names.
        AnnotationError: a file name that leaves the folder.
    """
    wanted = {safe_join(images_uri, name): name for name in dataset.file_names}
    missing = _not_there(wanted, images_uri)
    if not missing:
        return
    named = ", ".join(missing[:MAX_NAMED]) + (f" and {len(missing) - MAX_NAMED} more" if missing[MAX_NAMED:] else "")
    rule = f"must hold every image of {dataset.place}: {len(missing)} of {len(wanted)} are missing: {named}"
    raise InputError(flag, rule, images_uri)


def _not_there(wanted: dict[str, str], images_uri: str) -> list[str]:
    if storage.is_local(images_uri):
        return sorted(name for uri, name in wanted.items() if not storage.exists(uri))
    left = dict(wanted)
    for batch in storage.list_batches(storage.normalise(images_uri)):
        for uri in batch.column("uri").to_pylist():
            left.pop(uri, None)
        if not left:
            break
    # A listing leaves out names that start with a dot.
    return sorted(name for uri, name in left.items() if "/." not in uri or not storage.exists(uri))
