"""Large images in overlapping tiles, and as a whole too: small objects keep their pixels on the way to the network.

Everything is put together on boxes and run lengths, so that no mask is ever drawn over a whole image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskrcnn.coco.merging import Candidates, best_first, find_overlapping, group_same, unite
from maskrcnn.coco.moving import move_rles
from maskrcnn.config import SliceConfig
from maskrcnn.model.decode import DecodedImage, to_decoded
from maskrcnn.model.detections import Detections, show_on
from maskrcnn.model.predictor import AnyPredictor
from maskrcnn.model.shapes import decode_scale_for

EDGE_SHARE = 0.01
"""A box this near to an inner edge of its tile, in tiles' sides, is probably cut there: boxes are not exact."""


@dataclass(frozen=True)
class Window:
    """A part of an image, px."""

    x: int
    y: int
    width: int
    height: int


def tile_windows(height: int, width: int, slice_px: int, overlap: float) -> list[Window]:
    """Lay tiles over an image: they cover it, all of one size, the last ones moved back inside.

    Args:
        height: of the image, px.
        width: of the image, px.
        slice_px: a tile's side; a shorter side of the image is a tile's side.
        overlap: of two neighbours, at least, in tiles' sides.

    Returns:
        The tiles, row by row; a single one where the image is no larger.
    """
    return [
        Window(x, y, min(slice_px, width), min(slice_px, height))
        for y in _tile_starts(height, slice_px, overlap)
        for x in _tile_starts(width, slice_px, overlap)
    ]


def _tile_starts(side: int, slice_px: int, overlap: float) -> list[int]:
    stride = math.floor(slice_px * (1 - overlap))
    last = max(0, side - slice_px)
    return [min(index * stride, last) for index in range(math.ceil(last / stride) + 1)]


class SlicedPredictor:
    """Looks at large images in tiles and as a whole, with another predictor; as a `Predictor` otherwise.

    An image that is no larger than a tile is looked at once, exactly as by the other predictor.

    Args:
        predictor: looks at the tiles. Its maximum of detections holds for each tile, and for what is given back.
        slicing: how to cut and to put together.
        batch_size: tiles a forward, on a GPU.
    """

    def __init__(self, predictor: AnyPredictor, slicing: SliceConfig, batch_size: int = 2) -> None:
        self.preprocess = predictor.preprocess
        self.thresholds = predictor.thresholds
        self.categories = predictor.categories
        self.bundle_sha256 = predictor.bundle_sha256
        self.whole_above_px: int | None = slicing.slice
        self.is_on_gpu = predictor.is_on_gpu
        self._predictor = predictor
        self._slicing = slicing
        self._batch_size = batch_size

    def __call__(self, images: Sequence[Tensor | bytes | DecodedImage], *, with_masks: bool = True) -> list[Detections]:
        """Detect objects.

        Args:
            images: as for `Predictor`. A `DecodedImage` larger than a tile must have been decoded whole, as
                `decode_image` does with this predictor's `whole_above_px`.
            with_masks: without, boxes tell what is one object.

        Returns:
            One result an image, in order.

        Raises:
            InputError: an image that is no image.
            ClusterError: a single tile that does not fit in the GPU's memory.
        """
        decoded = [
            to_decoded(image, f"image {index}", self.preprocess, self.whole_above_px)
            for index, image in enumerate(images)
        ]
        windows = [self._windows(*image.size) for image in decoded]
        views = [(image, window) for image, each in zip(decoded, windows, strict=True) for window in each]
        found: list[Detections] = []
        for begin in range(0, len(views), self._batch_size):
            batch = [self._cut_out(image, window) for image, window in views[begin : begin + self._batch_size]]
            found += self._predictor(batch, with_masks=with_masks)
        answers = iter(found)
        whole = [
            self._put_together(image.size, each, [next(answers) for _ in each])
            for image, each in zip(decoded, windows, strict=True)
        ]
        return show_on(images, whole, self.categories, self.preprocess)

    def _windows(self, height: int, width: int) -> list[Window]:
        """Give what is looked at: the whole image, then its tiles if it has more than one."""
        tiles = tile_windows(height, width, self._slicing.slice, self._slicing.slice_overlap)
        return [Window(0, 0, width, height), *(tiles if len(tiles) > 1 else [])]

    def _cut_out(self, image: DecodedImage, window: Window) -> DecodedImage:
        if max(image.size) <= self._slicing.slice:
            return image
        if image.pixels.shape[1:] != image.size:
            raise ValueError(f"an image of {image.size} px must be decoded whole, got {tuple(image.pixels.shape)}")
        pixels = image.pixels[:, window.y : window.y + window.height, window.x : window.x + window.width]
        # As far as a JPEG of this size would be reduced: so the network was trained.
        scale = decode_scale_for(window.height, window.width, self.preprocess)
        return DecodedImage(_reduce(pixels, scale), (window.height, window.width))

    def _put_together(self, size: tuple[int, int], windows: list[Window], found: list[Detections]) -> Detections:
        if len(windows) == 1:
            return found[0]
        config = self._slicing
        pairs = zip(windows, found, strict=True)
        is_cut = np.concatenate([_is_cut(each.boxes, window, size, config.slice) for window, each in pairs])
        candidates = _in_whole_image(size, windows, found)
        same = find_overlapping(candidates, metric=config.slice_metric, threshold=config.slice_threshold)
        groups = group_same(best_first(candidates, is_cut), same, is_cut=is_cut, pieces=config.slice_merge)
        objects = unite(candidates, groups)
        order = best_first(objects)[: self.thresholds.max_detections]
        category_ids = torch.cat([each.category_ids for each in found])
        best = torch.tensor([int(group[0]) for group in groups], dtype=torch.int64)
        return Detections(
            size=size,
            boxes=torch.from_numpy(objects.boxes[order]),
            scores=torch.from_numpy(objects.scores[order]),
            labels=torch.from_numpy(objects.labels[order]),
            category_ids=category_ids[best[order]],
            rles=[objects.rles[index] for index in order] if objects.rles else [],
        )


def _reduce(pixels: Tensor, scale: int) -> Tensor:
    """Average (3, H, W) uint8 to 1/scale of its sides, rounded up; a channel at a time, since floats take fourfold."""
    if scale == 1:
        return pixels
    size = [math.ceil(side / scale) for side in pixels.shape[1:]]
    channels = [F.interpolate(channel[None, None].float(), size, mode="area")[0, 0].round() for channel in pixels]
    return torch.stack(channels).to(torch.uint8)


def _is_cut(
    boxes: Tensor, window: Window, size: tuple[int, int], slice_px: int
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Mark boxes (N, 4), px of their window, that reach an edge of it that is none of the image (H, W)."""
    near = EDGE_SHARE * slice_px
    x1, y1, x2, y2 = boxes.numpy().T
    is_cut = (window.x > 0) & (x1 <= near)
    is_cut |= (window.y > 0) & (y1 <= near)
    is_cut |= (window.x + window.width < size[1]) & (x2 >= window.width - near)
    is_cut |= (window.y + window.height < size[0]) & (y2 >= window.height - near)
    return np.asarray(is_cut)


def _in_whole_image(size: tuple[int, int], windows: list[Window], found: list[Detections]) -> Candidates:
    """Move what was found in each window to where it is in the image, and put it into one list."""
    corners = np.array([(window.x, window.y) for window in windows])
    origins = np.repeat(corners, [len(each) for each in found], axis=0)
    rles = [rle for each in found for rle in each.rles]
    return Candidates(
        torch.cat([each.boxes for each in found]).numpy() + np.tile(origins, 2).astype(np.float32),
        torch.cat([each.scores for each in found]).numpy(),
        torch.cat([each.labels for each in found]).numpy(),
        move_rles(rles, origins, size) if rles else [],
    )
