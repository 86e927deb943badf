"""Masks in the forms that COCO files hold, and how well polygons keep them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from maskrcnn.coco import rle
from maskrcnn.coco.polygons import trace
from maskrcnn.coco.runs import Counts
from maskrcnn.coco.simplify import simplify
from maskrcnn.exports.settings import SegmentationForm

MIN_IOU = 0.9
"""A mask whose simplified polygons overlap it by less keeps its exact ones."""


@dataclass(frozen=True)
class Segment:
    """A mask as a COCO annotation describes it."""

    segmentation: Any
    """Polygons, none for an empty mask, or compressed RLE."""
    area: int
    bbox: list[int]
    """XYWH, absolute px: the mask's tight box, whole numbers."""


@dataclass
class Overlaps:
    """The IoU of polygons with the masks they came from."""

    count: int = 0
    total: float = 0.0
    worst: float = 1.0

    def add(self, iou: float) -> None:
        """Count one mask."""
        self.count += 1
        self.total += iou
        self.worst = min(self.worst, iou)

    @property
    def mean(self) -> float:
        """The mean over all masks, 1 without any."""
        return self.total / self.count if self.count else 1.0


def build_segments(
    masks: Sequence[bytes],
    size: tuple[int, int],
    form: SegmentationForm,
    tolerance_px: float,
    overlaps: Overlaps,
    place: str,
) -> list[Segment]:
    """Describe the masks of one image.

    Args:
        masks: compressed RLE.
        size: (height, width) of the image, px.
        form: polygons or RLE.
        tolerance_px: how far polygons may stray, 0 for the exact outlines of the pixels.
        overlaps: where the IoU of polygons is counted, by drawing them again.
        place: the image, for messages.

    Raises:
        AnnotationError: a mask that is no RLE of the image's size.
    """
    checked = [
        rle.normalised({"size": size, "counts": counts}, size=size, thing=f"mask {index}", place=place)
        for index, counts in enumerate(masks)
    ]
    rles, runs = [one for one, _ in checked], [one for _, one in checked]
    if form == "rle":
        forms: list[Any] = [rle.to_json(one) for one in rles]
    else:
        forms = _polygons(rles, runs, size, tolerance_px, overlaps)
    return [
        Segment(shape, int(counts[1::2].sum()), [int(side) for side in rle.runs_to_bbox(counts, size[0])])
        for shape, counts in zip(forms, runs, strict=True)
    ]


def _polygons(
    rles: list[rle.Rle], runs: list[Counts], size: tuple[int, int], tolerance_px: float, overlaps: Overlaps
) -> list[list[list[int]]]:
    exact = trace(runs, size)
    outlines = simplify(exact, tolerance_px) if tolerance_px else exact
    polygons = outlines.by_mask(len(rles))
    ious = [_overlap(one, mask) for one, mask in zip(polygons, rles, strict=True)]
    if min(ious, default=1.0) < MIN_IOU:
        exact_polygons = exact.by_mask(len(rles))
        for index, iou in enumerate(ious):
            if iou < MIN_IOU:
                polygons[index] = exact_polygons[index]
                ious[index] = _overlap(polygons[index], rles[index])
    for iou in ious:
        overlaps.add(iou)
    return polygons


def _overlap(polygons: list[list[int]], mask: rle.Rle) -> float:
    """Draw polygons and compare; none are all of an empty mask."""
    return rle.iou(rle.from_polygons(polygons, *mask["size"]), mask) if polygons else 1.0
