"""What is wrong between an annotation's shape, its bbox, its area and the size of its image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maskrcnn.coco.ids import find_ids
from maskrcnn.coco.packed import NONE, POLYGONS, RLE
from maskrcnn.coco.rle import MAX_OUTLINE_PX, MAX_REACH
from maskrcnn.coco.validate.comparisons import corners_of, find_odd_areas, is_bbox_off, leaves_image
from maskrcnn.coco.validate.lists import AnnotationList, ImageList
from maskrcnn.coco.validate.scan import Scanned


@dataclass(frozen=True)
class Geometry:
    """What is wrong with N annotations, each field (N,) bool; named as the codes of findings are."""

    rle_size_swapped: NDArray[np.bool_]
    rle_size_differs: NDArray[np.bool_]
    polygon_far_outside: NDArray[np.bool_]
    polygon_too_long: NDArray[np.bool_]
    polygon_outside: NDArray[np.bool_]
    mask_empty: NDArray[np.bool_]
    bbox_outside: NDArray[np.bool_]
    bbox_disagrees: NDArray[np.bool_]
    area_equals_bbox: NDArray[np.bool_]
    area_disagrees: NDArray[np.bool_]
    crowd_as_polygon: NDArray[np.bool_]


def examine_geometry(annotations: AnnotationList, sizes: NDArray[np.int64]) -> Geometry:
    """Compare each annotation's fields with each other, and with the (N, 2) height and width of its image, px."""
    kinds, extents = annotations.column("kinds"), annotations.column("extents")
    has_size = (sizes > 0).all(axis=1)
    is_polygon, is_rle = kinds == POLYGONS, kinds == RLE
    written = annotations.column("sizes")
    differs = is_rle & has_size & (written != sizes).any(axis=1)
    is_swapped = differs & (written[:, ::-1] == sizes).all(axis=1)

    reach = np.where(has_size, MAX_REACH * sizes.max(axis=1, initial=0), np.inf)
    is_far = is_polygon & (np.abs(extents).max(axis=1, initial=0) > reach)
    has_mask = (kinds != NONE) & ~is_far & ~differs & (annotations.column("areas") > 0)
    is_shown = is_polygon & has_size & ~is_far
    is_unseen = (extents[:, 2:] <= 0).any(axis=1) | (extents[:, :2] >= sizes[:, ::-1]).any(axis=1)
    boxes, mask_areas = annotations.column("bbox"), annotations.column("areas")
    is_out = is_shown & leaves_image(extents, sizes)
    shown = np.where(is_out[:, None], extents.clip(0, np.tile(sizes[:, ::-1], 2)), extents)
    equals_box, disagrees = find_odd_areas(annotations.column("area"), mask_areas, boxes)
    return Geometry(
        rle_size_swapped=is_swapped,
        rle_size_differs=differs & ~is_swapped,
        polygon_far_outside=is_far,
        polygon_too_long=is_polygon & (annotations.column("outlines") > MAX_OUTLINE_PX) & ~is_far,
        polygon_outside=is_out & ~is_unseen,
        mask_empty=is_shown & is_unseen | (is_rle | is_polygon & ~is_far) & (mask_areas == 0),
        bbox_outside=has_size & leaves_image(corners_of(boxes), sizes),
        bbox_disagrees=has_mask & is_bbox_off(boxes, extents) & is_bbox_off(boxes, shown),
        area_equals_bbox=has_mask & equals_box & ~is_out,
        area_disagrees=has_mask & disagrees & ~is_out,  # of which the image shows less
        crowd_as_polygon=is_polygon & annotations.column("iscrowd"),
    )


def check_geometry(scanned: Scanned) -> None:
    """Find what is wrong between shapes, boxes, areas and images."""
    annotations = scanned.annotations
    sizes = image_sizes(annotations, scanned.images, written_sizes(scanned.images))

    def describe_size(index: int) -> str:
        return f"{annotations.column('sizes')[index].tolist()}, and the image is {sizes[index].tolist()}"

    def describe_extent(index: int) -> str:
        extent = ", ".join(f"{edge:g}" for edge in annotations.column("extents")[index])
        return f"spans [{extent}], and the image is {sizes[index, 1]} x {sizes[index, 0]}"

    def describe_bbox(index: int) -> str:
        return _numbers(annotations.column("bbox")[index])

    def describe_both(index: int) -> str:
        left, top, right, bottom = annotations.column("extents")[index]
        return f"{describe_bbox(index)}, and the mask's is {_numbers([left, top, right - left, bottom - top])}"

    def describe_areas(index: int) -> str:
        return f"{annotations.column('area')[index]:g}, and the mask's is about {annotations.column('areas')[index]:g}"

    described = {
        "rle_size_swapped": ("segmentation", describe_size),
        "rle_size_differs": ("segmentation", describe_size),
        "polygon_far_outside": ("segmentation", describe_extent),
        "polygon_too_long": ("segmentation", lambda index: f"{annotations.column('outlines')[index]:.0f} px"),
        "polygon_outside": ("segmentation", describe_extent),
        "mask_empty": ("segmentation", describe_extent),
        "bbox_outside": ("bbox", describe_bbox),
        "bbox_disagrees": ("bbox", describe_both),
        "area_equals_bbox": ("area", describe_areas),
        "area_disagrees": ("area", describe_areas),
        "crowd_as_polygon": ("iscrowd", lambda _: "1"),
    }
    for code, is_found in vars(examine_geometry(annotations, sizes)).items():
        field, describe = described[code]
        annotations.report_where(code, is_found, field, describe)


def written_sizes(images: ImageList) -> NDArray[np.int64]:
    """Give (N, 2) height and width of each image, px, as the file has them; 0 where it does not."""
    return np.stack([images.column("height"), images.column("width")], axis=1)


def image_sizes(annotations: AnnotationList, images: ImageList, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give (M, 2) height and width of each annotation's image, px, from those of the images; 0 where not known."""
    if not len(images):
        return np.zeros((len(annotations), 2), np.int64)
    places, is_known = find_ids(annotations.column("image_id"), images.column("id"))
    is_known &= annotations.column("has_image_id") & images.column("has_id")[places]
    is_known &= (sizes[places] > 0).all(axis=1)
    return np.where(is_known[:, None], sizes[places], 0)


def _numbers(values: NDArray[np.float64] | list[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in values) + "]"
