"""A COCO file as columns: images, annotations sorted by image, categories, in a few arrays that workers can share.

Refuses only what cannot be used, naming file, id, field and rule; what looks wrong but works is the validator's to say.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskrcnn import storage
from maskrcnn.coco import rle
from maskrcnn.coco.categories import CategoryMap
from maskrcnn.coco.columns import AnnotationColumns, CategoryColumns, ImageColumns
from maskrcnn.coco.document import Members, members_of, stream_members
from maskrcnn.coco.ids import find_ids
from maskrcnn.coco.packed import NONE, PackedSegmentations, PackedText
from maskrcnn.errors import AnnotationError, StorageError

SMALL_PX, MEDIUM_PX = 32**2, 96**2
"""COCO's borders between small, medium and large objects, px of area."""


@dataclass(frozen=True)
class CocoDataset:
    """A COCO file: N images, M annotations sorted by image, and the categories."""

    place: str
    """The file, for messages."""
    categories: CategoryMap
    image_ids: NDArray[np.int64]
    """(N,)"""
    file_names: PackedText
    """N, as in the file; `file_names.safe_join` makes URIs of them."""
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
    """Read a COCO file, without ever holding all of it.

    Raises:
        AnnotationError: it is no COCO file, or one that cannot be used.
        StorageError: it cannot be read.
    """
    with storage.open_input(uri) as file:
        try:
            return collect(stream_members(file, uri), uri)
        except OSError as error:  # after it was opened
            raise StorageError(uri, error.strerror or str(error)) from error


def parse_coco(document: bytes | dict[str, Any], place: str) -> CocoDataset:
    """Turn a COCO document into columns.

    Args:
        document: the file's bytes, or the parsed JSON.
        place: the file, for messages.

    Raises:
        AnnotationError: naming file, id, field and rule.
    """
    if isinstance(document, bytes):
        return collect(stream_members(io.BytesIO(document), place), place)
    return collect(members_of(document, place), place)


def collect(members: Members, place: str) -> CocoDataset:
    """Turn the members of a document, in any order, into columns; of a name that comes twice the last counts.

    Args:
        members: as `maskrcnn.coco.document` reads them.
        place: the file, for messages.

    Raises:
        AnnotationError: naming file, id, field and rule.
    """
    images, annotations, categories = ImageColumns(place), AnnotationColumns(place), CategoryColumns(place)
    found = set()
    for name, batches in members:
        match name:
            case "images":
                images = ImageColumns(place)
                images.collect(batches)
            case "annotations":
                annotations = AnnotationColumns(place)
                annotations.collect(batches)
            case "categories":
                categories = CategoryColumns(place)
                categories.collect(batches)
        found.add(name)
    for columns in (images, annotations, categories):
        if columns.name not in found:
            columns.collect(iter([None]))
    return _build(images, annotations, categories, place)


def _build(
    images: ImageColumns, annotations: AnnotationColumns, categories: CategoryColumns, place: str
) -> CocoDataset:
    """Check what concerns the lists as a whole, and sort the annotations by image."""
    images.check()
    categories.check()
    category_map = _map_categories(categories)
    annotations.check()
    image_ids, annotation_ids = images.take("id"), annotations.take("id")
    of_image, category_ids = annotations.take("image_id"), annotations.take("category_id")
    image_indices, is_known = find_ids(of_image, image_ids)
    if not is_known.all():
        index = int(is_known.argmin())
        rule = f"must be the id of one of the images, got {of_image[index]}"
        raise AnnotationError(f"annotation {annotation_ids[index]} image_id", rule, place)
    _, is_known = find_ids(category_ids, np.array(category_map.ids, np.int64))
    if not is_known.all():
        index = int(is_known.argmin())
        thing = f"annotation {annotation_ids[index]} (image {of_image[index]}) category_id"
        rule = f"must be the id of one of the categories, got {category_ids[index]}"
        raise AnnotationError(thing, rule, place)

    order = np.argsort(image_indices, kind="stable")
    image_indices, annotation_ids, of_image = image_indices[order], annotation_ids[order], of_image[order]
    heights, widths = images.take("height"), images.take("width")
    segmentations = annotations.segmentations.finish(
        order,
        np.stack([heights, widths], axis=1)[image_indices],
        lambda index: f"annotation {annotation_ids[index]} (image {of_image[index]})",
        place,
    )
    bboxes, areas = annotations.take("bbox")[order], annotations.take("area")[order]
    is_lacking = {
        "iscrowd": annotations.take("lacks_iscrowd")[order],
        "bbox": np.isnan(bboxes).any(axis=1),
        "area": np.isnan(areas),
        "segmentation": segmentations.kinds == NONE,
    }
    return CocoDataset(
        place=place,
        categories=category_map,
        image_ids=image_ids,
        file_names=PackedText.from_list(images.file_names),
        heights=heights,
        widths=widths,
        annotation_ids=annotation_ids,
        image_indices=image_indices,
        annotation_offsets=np.searchsorted(image_indices, np.arange(len(image_ids) + 1)).astype(np.int64),
        category_ids=category_ids[order],
        bboxes=bboxes,
        areas=areas,
        iscrowd=annotations.take("iscrowd")[order],
        segmentations=segmentations,
        first_without={name: int(annotation_ids[lacks].min()) for name, lacks in is_lacking.items() if lacks.any()},
    )


def _map_categories(categories: CategoryColumns) -> CategoryMap:
    ids, names = categories.take("id"), categories.names
    if not names:
        raise AnnotationError("categories", "must hold at least one", categories.place)
    order = np.argsort(ids).tolist()
    return CategoryMap(tuple(int(ids[index]) for index in order), tuple(names[index] for index in order))
