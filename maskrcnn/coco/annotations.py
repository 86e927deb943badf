"""A COCO file as columns: images, annotations sorted by image, categories, in a few arrays that workers can share.

Refuses only what cannot be used, naming file, id, field and rule; what looks wrong but works is the validator's to say.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from maskrcnn import storage
from maskrcnn.coco import rle
from maskrcnn.coco.categories import CategoryMap
from maskrcnn.coco.packed import NONE, PackedSegmentations, PackedText, pack_segmentations
from maskrcnn.coco.records import Records, parse_json
from maskrcnn.errors import AnnotationError

_MAX_SIDE_PX = 2**31 - 1


@dataclass(frozen=True)
class CocoDataset:
    """A COCO file: N images, M annotations sorted by image, and the categories."""

    place: str
    """The file, for messages."""
    categories: CategoryMap
    image_ids: NDArray[np.int64]
    """(N,)"""
    file_names: PackedText
    """N, as in the file; `safe_join` makes URIs of them."""
    heights: NDArray[np.int64]
    """(N,) px"""
    widths: NDArray[np.int64]
    """(N,) px"""
    annotation_ids: NDArray[np.int64]
    """(M,)"""
    image_indices: NDArray[np.int64]
    """(M,) index into the images, ascending."""
    annotation_offsets: NDArray[np.int64]
    """(N + 1,) where each image's annotations begin."""
    category_ids: NDArray[np.int64]
    """(M,) as in the file."""
    bboxes: NDArray[np.float64]
    """(M, 4) XYWH, absolute px; NaN where the file gives none, or one that is not finite."""
    areas: NDArray[np.float64]
    """(M,) px, as in the file; NaN where it gives none, or one that is not finite."""
    iscrowd: NDArray[np.bool_]
    """(M,) false where the file does not say."""
    segmentations: PackedSegmentations
    first_without: dict[str, int]
    """For each of iscrowd, area, bbox and segmentation that an annotation lacks: the first such annotation's id."""

    @property
    def num_images(self) -> int:
        """Count the images."""
        return len(self.image_ids)

    @property
    def num_annotations(self) -> int:
        """Count the annotations."""
        return len(self.annotation_ids)

    def annotations_of(self, image_index: int) -> range:
        """Give the indices of one image's annotations."""
        return range(int(self.annotation_offsets[image_index]), int(self.annotation_offsets[image_index + 1]))

    def size_of(self, index: int) -> tuple[int, int]:
        """Give (height, width) of an annotation's image, px."""
        image_index = self.image_indices[index]
        return int(self.heights[image_index]), int(self.widths[image_index])

    def describe(self, index: int) -> str:
        """Name an annotation as messages do."""
        return f"annotation {self.annotation_ids[index]} (image {self.image_ids[self.image_indices[index]]})"

    def has_segmentation(self, index: int) -> bool:
        """Say whether an annotation has polygons or an RLE."""
        return bool(self.segmentations.kinds[index] != NONE)

    def segmentation(self, index: int) -> list[list[float]] | dict[str, Any] | None:
        """Give an annotation's segmentation as COCO JSON, RLE always compressed; None where there is none."""
        return self.segmentations.coco(index, self.size_of(index))

    def rle(self, index: int) -> rle.Rle:
        """Give an annotation's mask.

        Raises:
            AnnotationError: it has none.
        """
        return self.segmentations.rle(index, self.size_of(index), thing=self.describe(index), place=self.place)

    def area(self, index: int) -> float:
        """Give an annotation's area, px: the file's, else its mask's."""
        written = float(self.areas[index])
        return float(rle.area(self.rle(index))) if np.isnan(written) else written


def load_coco(uri: str) -> CocoDataset:
    """Read a COCO file.

    Raises:
        AnnotationError: it is no COCO file, or one that cannot be used.
        StorageError: it cannot be read.
    """
    return parse_coco(storage.read_bytes(uri), uri)


def parse_coco(document: bytes | dict[str, Any], place: str) -> CocoDataset:
    """Turn a COCO document into columns.

    Args:
        document: the file's bytes, or the parsed JSON.
        place: the file, for messages.

    Raises:
        AnnotationError: naming file, id, field and rule.
    """
    root = parse_json(document, place) if isinstance(document, bytes) else document
    if isinstance(root, list):
        rule = "must be a COCO dataset with images, annotations and categories, got a list"
        raise AnnotationError("annotations file", rule, place, "a list is a results file, given with --predictions")
    if not isinstance(root, dict):
        raise AnnotationError("annotations file", f"must be a JSON object, got {type(root).__name__}", place)
    images, annotations, categories = (
        Records(root, name, singular, place)
        for name, singular in (("images", "image"), ("annotations", "annotation"), ("categories", "category"))
    )

    image_ids = images.unique_ids()
    heights, widths = (images.whole_numbers(name, 1, _MAX_SIDE_PX) for name in ("height", "width"))
    category_map = _parse_categories(categories)
    annotation_ids = annotations.unique_ids()
    image_indices = annotations.references("image_id", image_ids, "images")
    annotations.references("category_id", np.array(category_map.ids, np.int64), "categories")

    order = np.argsort(image_indices, kind="stable")
    annotations.sort(order)
    image_indices = image_indices[order]
    sides = list(zip(heights.tolist(), widths.tolist(), strict=True))
    segmentations = pack_segmentations(
        [row.get("segmentation") for row in annotations.rows],
        [sides[index] for index in image_indices.tolist()],
        [f"annotation {row['id']} (image {row['image_id']})" for row in annotations.rows],
        place,
    )
    annotation_ids = annotation_ids[order]
    bboxes = np.array([annotations.numbers(n, "bbox", 4) for n in range(len(order))], np.float64).reshape(-1, 4)
    areas = np.array([annotations.numbers(n, "area", 1)[0] for n in range(len(order))], np.float64)
    is_lacking = {
        "iscrowd": np.array([row.get("iscrowd") is None for row in annotations.rows], np.bool_),
        "bbox": np.isnan(bboxes).any(axis=1),
        "area": np.isnan(areas),
        "segmentation": segmentations.kinds == NONE,
    }
    return CocoDataset(
        place=place,
        categories=category_map,
        image_ids=image_ids,
        file_names=PackedText.from_list(images.texts("file_name")),
        heights=heights,
        widths=widths,
        annotation_ids=annotation_ids,
        image_indices=image_indices,
        annotation_offsets=np.searchsorted(image_indices, np.arange(len(image_ids) + 1)).astype(np.int64),
        category_ids=annotations.whole_numbers("category_id"),
        bboxes=bboxes,
        areas=areas,
        iscrowd=np.array([bool(row.get("iscrowd")) for row in annotations.rows], np.bool_),
        segmentations=segmentations,
        first_without={name: int(annotation_ids[lacks].min()) for name, lacks in is_lacking.items() if lacks.any()},
    )


def safe_join(root_uri: str, file_name: str) -> str:
    """Give the URI of an image below a folder, whatever the annotation file says.

    Args:
        root_uri: the folder of the images.
        file_name: relative to it, with `/` between folders.

    Returns:
        The normalised URI.

    Raises:
        AnnotationError: a name that leaves the folder: `..`, an absolute path, another scheme, a backslash, a NUL, or,
            on this machine, a symbolic link that leads out.
    """

    def refuse(rule: str) -> NoReturn:
        raise AnnotationError(f"file_name {file_name!r:.200}", rule, root_uri)

    decoded = unquote(file_name)
    if "\0" in decoded:
        refuse("must not hold a NUL")
    if "\\" in decoded:
        refuse("must have / between folders, not a backslash")
    if decoded.startswith("/") or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", decoded):
        refuse("must be relative to the folder of images")
    if ".." in decoded.split("/"):
        refuse("must not leave the folder of images")
    segments = [segment for segment in file_name.split("/") if segment not in ("", ".")]
    if not segments:
        refuse("must name a file")
    root = storage.normalise(root_uri)
    joined = storage.join(root, *segments)
    if storage.is_local(root):
        real_root = os.path.realpath(root)
        if os.path.commonpath([real_root, os.path.realpath(joined)]) != real_root:
            refuse("must not lead out of the folder of images by a symbolic link")
    return joined


def _parse_categories(categories: Records) -> CategoryMap:
    ids, names = categories.unique_ids(), categories.texts("name")
    if not names:
        raise AnnotationError("categories", "must hold at least one", categories.place)
    order = np.argsort(ids).tolist()
    return CategoryMap(tuple(int(ids[index]) for index in order), tuple(names[index] for index in order))
