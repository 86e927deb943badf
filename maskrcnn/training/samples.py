"""From a COCO file to what the network learns from: images with boxes, labels, mask grids and ignored areas.

Annotations stay in the arrays of the file, which loader workers share; what a sample adds is made when it is asked for
and forgotten afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from maskrcnn import storage
from maskrcnn.coco.annotations import CocoDataset
from maskrcnn.coco.file_names import safe_join
from maskrcnn.coco.packed import NONE
from maskrcnn.config import PreprocessConfig
from maskrcnn.errors import AnnotationError
from maskrcnn.images import BadImage
from maskrcnn.model.decode import decode_image
from maskrcnn.training.augment import AugmentConfig
from maskrcnn.training.counts import count_learnt
from maskrcnn.training.mask_grids import GRID_SIDE, draw_grid, draw_union, nearest_indices, read_patch
from maskrcnn.training.recipe import Negatives
from maskrcnn.training.transforms import (
    Patch,
    Purpose,
    SampleKey,
    View,
    draw_view,
    flip_boxes,
    look_at_image,
    random_generator,
)

_UNKEYED = SampleKey(0, 0)
_MIN_SIDE_PX = 1 / 32
"""A thinner box may have no inside left in float32, and its targets would be infinite."""


@dataclass(frozen=True)
class Sample:
    """An image and what is on it; boxes, labels, grids, frames and annotation ids are equally long."""

    image: Tensor
    """(3, H, W) uint8 RGB, to be resized to ``size``."""
    size: tuple[int, int]
    """(h, w) in the network, before padding, px: the px that everything below is in."""
    boxes: Tensor
    """(N, 4) float32, XYXY."""
    labels: Tensor
    """(N,) int64, the network's class indices, 1 or more."""
    grids: Tensor
    """(N, GRID_SIDE, GRID_SIDE) uint8, from ``mask_grids.draw_grid``."""
    frames: Tensor
    """(N, 4) float32, the grids' frames."""
    ignored: Tensor | None = None
    """(H', W') bool, in px of any size of the same image: where nothing is learnt, since a crowd is there."""
    key: SampleKey = _UNKEYED
    image_id: int = 0
    annotation_ids: tuple[int, ...] = ()
    left_out_ids: tuple[int, ...] = ()
    """Of annotations whose mask turned out to be empty."""

    def __post_init__(self) -> None:
        lengths = {len(self.boxes), len(self.labels), len(self.grids), len(self.frames)}
        if len(lengths) != 1 or self.boxes.shape[1:] != (4,) or self.grids.shape[1:] != (GRID_SIDE, GRID_SIDE):
            shapes = {name: tuple(getattr(self, name).shape) for name in ("boxes", "labels", "grids", "frames")}
            raise ValueError(f"a sample's parts must fit together, got {shapes} for image {self.image_id}")

    def pin_memory(self) -> Sample:
        """Copy into page-locked memory, from which a GPU copies without waiting; torch's loader calls this."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        pinned: dict[str, Any] = {n: each.pin_memory() for n, each in values.items() if isinstance(each, Tensor)}
        return replace(self, **pinned)


class CocoSamples(Dataset[Sample]):
    """The images of a COCO file with their instances, each looked at as its key says.

    Annotations without a mask and boxes without an inside are left out and counted in ``counts``; masks that turn out
    to be empty are left out when they are drawn, and named in the sample.

    Args:
        coco: the annotations.
        images_uri: the folder that its file names are relative to.
        preprocess: sizes, EXIF policy and decode scale.
        augment: how far views wander.
        seed: of the training.
        crowds_are_ignored: crowds are areas where nothing is learnt; else they are as if they were not there.
        read: gives the bytes of a URI.
    """

    def __init__(
        self,
        coco: CocoDataset,
        images_uri: str,
        preprocess: PreprocessConfig,
        augment: AugmentConfig,
        *,
        seed: int = 0,
        crowds_are_ignored: bool = True,
        read: Callable[[str], bytes] = storage.read_bytes,
    ) -> None:
        self._coco, self._images_uri, self._preprocess, self._augment = coco, images_uri, preprocess, augment
        self._seed, self._crowds_are_ignored, self._read = seed, crowds_are_ignored, read
        self._boxes = _boxes_within_images(coco)
        has_mask = coco.segmentations.kinds != NONE
        # A missing box is NaN, hence not degenerate: it is taken from the mask.
        is_degenerate = (self._boxes[:, 2:] - self._boxes[:, :2] < _MIN_SIDE_PX).any(axis=1)
        self._is_usable = has_mask & ~coco.iscrowd & ~is_degenerate
        self._is_crowd = coco.iscrowd & has_mask
        self.counts = count_learnt(
            coco,
            self._is_usable,
            {"no mask": ~coco.iscrowd & ~has_mask, "degenerate box": ~coco.iscrowd & has_mask & is_degenerate},
        )

    def __len__(self) -> int:
        return self._coco.num_images

    def is_negative(self) -> NDArray[np.bool_]:
        """Say of every image, (N,), whether it has no instance to learn from."""
        usable = np.bincount(self._coco.image_indices[self._is_usable], minlength=self._coco.num_images)
        is_negative: NDArray[np.bool_] = usable == 0
        return is_negative

    def view_of(self, key: SampleKey) -> View:
        """Draw how an image is looked at in an epoch; reads no image."""
        index = key.sample_index
        rng = random_generator(self._seed, Purpose.AUGMENT, key)
        height, width = int(self._coco.heights[index]), int(self._coco.widths[index])
        return draw_view(height, width, self._preprocess, self._augment, rng)

    def padded_shape(self, keys: Sequence[SampleKey]) -> tuple[int, int]:
        """Give the (height, width) that every image of a global batch is padded to, px.

        It depends on the whole batch, and not on how ranks and micro-batches share it, since padding changes features.
        """
        multiple, crop = self._preprocess.pad_multiple_px, self._augment.crop_size_px
        if crop:
            return crop, crop
        sizes = [self.view_of(key).size for key in keys]
        height, width = (math.ceil(max(sides) / multiple) * multiple for sides in zip(*sizes, strict=True))
        return height, width

    def learnt_indices(self, negatives: Negatives) -> NDArray[np.int64]:
        """Give the images that are learnt from, ascending."""
        everything = np.arange(len(self))
        return everything if negatives == "keep" else everything[~self.is_negative()]

    def describe(self, key: SampleKey) -> str:
        """Name a sample's image and annotations, for messages."""
        coco, index = self._coco, key.sample_index
        ids = [str(coco.annotation_ids[each]) for each in coco.annotations_of(index) if self._is_usable[each]]
        shown = ", ".join(ids[:20]) + (f" and {len(ids) - 20} more" if len(ids) > 20 else "")
        return f"image {coco.image_ids[index]} ({coco.file_names[index]}; annotations {shown or 'none'})"

    def image_id(self, key: SampleKey) -> int:
        """Give the COCO id of a sample's image."""
        return int(self._coco.image_ids[key.sample_index])

    def __getitem__(self, key: SampleKey) -> Sample:
        """Give an image as it looks in an epoch, with its target.

        Raises:
            AnnotationError: when the image cannot be decoded, or is not of the size that the file says.
            StorageError: when it cannot be read.
        """
        coco, index, view = self._coco, key.sample_index, self.view_of(key)
        height, width = int(coco.heights[index]), int(coco.widths[index])
        image = self._image(index, view)
        target = _Target(view, height, width)
        for each in coco.annotations_of(index):
            if self._is_usable[each]:
                target.add(read_patch(coco.rle(each)), self._boxes[each], int(coco.category_ids[each]), each)
        crowds = [coco.rle(each) for each in coco.annotations_of(index) if self._is_crowd[each]]
        ignored = draw_union(crowds, height, width) if self._crowds_are_ignored else None
        return Sample(
            image=image,
            size=view.size,
            boxes=torch.tensor(np.array(target.boxes), dtype=torch.float32).reshape(-1, 4),
            labels=torch.from_numpy(coco.categories.labels_of(target.category_ids)),
            grids=torch.from_numpy(np.array(target.grids, np.uint8).reshape(-1, GRID_SIDE, GRID_SIDE)),
            frames=torch.tensor(target.frames, dtype=torch.float32).reshape(-1, 4),
            ignored=None if ignored is None else torch.from_numpy(_seen(ignored, view)),
            key=key,
            image_id=int(coco.image_ids[index]),
            annotation_ids=tuple(int(coco.annotation_ids[each]) for each in target.indices),
            left_out_ids=tuple(int(coco.annotation_ids[each]) for each in target.left_out),
        )

    def _image(self, index: int, view: View) -> Tensor:
        coco = self._coco
        uri = safe_join(self._images_uri, coco.file_names[index])
        height, width = int(coco.heights[index]), int(coco.widths[index])
        left, top, right, bottom = view.window
        # Of the whole image, as if nothing were cut off: a view may be larger than images are without augmentation.
        resized = (math.ceil(view.size[0] * height / (bottom - top)), math.ceil(view.size[1] * width / (right - left)))
        decoded = decode_image(self._read(uri), self._preprocess, resized=resized)
        thing = f"image {coco.image_ids[index]}"
        if isinstance(decoded, BadImage):
            raise AnnotationError(thing, f"must be a sound image file: {decoded.reason}", uri)
        if decoded.size != (height, width):
            rule = f"must be {width} x {height} px as annotated, got {decoded.size[1]} x {decoded.size[0]}"
            raise AnnotationError(thing, rule, uri)
        return look_at_image(decoded.pixels, view, decoded.size)


class _Target:
    """Collects what an image's view shows of its instances."""

    def __init__(self, view: View, height: int, width: int) -> None:
        self._view, self._width = view, width
        left, top, right, bottom = view.window
        self._is_cut = view.window != (0, 0, width, height)
        self._rows = nearest_indices(bottom - top, view.size[0])
        self._columns = nearest_indices(right - left, view.size[1])
        across, down = view.size[1] / (right - left), view.size[0] / (bottom - top)
        self._ratios = np.array([across, down, across, down])
        self.boxes: list[NDArray[np.float64]] = []
        self.category_ids: list[int] = []
        self.grids: list[NDArray[np.uint8]] = []
        self.frames: list[tuple[float, float, float, float]] = []
        self.indices: list[int] = []
        self.left_out: list[int] = []

    def add(self, patch: Patch, box: NDArray[np.float64], category_id: int, index: int) -> None:
        """Add an instance, unless nothing of it is seen."""
        if patch.mask.size == 0:
            self.left_out.append(index)
            return
        if self._view.is_flipped:
            patch, box = patch.flipped(self._width), flip_boxes(box[None], self._width)[0]
        if self._is_cut:
            patch = patch.cut(self._view.window)
            if patch.mask.size == 0:
                return
        # What is cut off must not count: only the mask knows where the rest ends.
        seen = np.array(patch.box, np.float64) if self._is_cut or np.isnan(box).any() else box
        grid, frame = draw_grid(patch, self._rows, self._columns)
        self.boxes.append(seen * self._ratios)
        self.category_ids.append(category_id)
        self.grids.append(grid)
        self.frames.append(frame)
        self.indices.append(index)


def _seen(area: NDArray[np.bool_], view: View) -> NDArray[np.bool_]:
    left, top, right, bottom = view.window
    flipped = area[:, ::-1] if view.is_flipped else area
    return np.ascontiguousarray(flipped[top:bottom, left:right])


def _boxes_within_images(coco: CocoDataset) -> NDArray[np.float64]:
    """Give every annotation's box as (M, 4) XYXY, px, cut at its image's edges."""
    widths, heights = coco.widths[coco.image_indices], coco.heights[coco.image_indices]
    x, y, width, height = coco.bboxes.T
    edges = [
        np.clip(x, 0, widths),
        np.clip(y, 0, heights),
        np.clip(x + width, 0, widths),
        np.clip(y + height, 0, heights),
    ]
    return np.stack(edges, axis=1)


def keep_samples(samples: list[Sample]) -> list[Sample]:
    """Collate nothing: images keep their own sizes until they are on the device."""
    return samples
