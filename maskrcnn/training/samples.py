"""From a COCO file to batches: which samples come when, what is on them, and how they are put together.

The order of samples is one endless stream, a fresh permutation every epoch, and a pure function of the seed. A step
takes the next samples of the stream, wherever in an epoch that is, so a count of samples says where a training stands.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from maskrcnn import images, storage
from maskrcnn.coco import rle
from maskrcnn.coco.annotations import CocoDataset, safe_join
from maskrcnn.errors import AnnotationError
from maskrcnn.training.transforms import AugmentConfig, Purpose, Sample, SampleKey, augment, random_generator


def epoch_indices(seed: int, epoch: int, num_samples: int, rank: int = 0, world_size: int = 1) -> NDArray[np.int64]:
    """Give the samples that one worker sees in an epoch, in order.

    All workers together see every sample once; their shares differ by one sample at most.
    """
    return _permutation(seed, epoch, num_samples)[rank::world_size]


def batch_keys(first_sample: int, batch_size: int, *, seed: int, num_samples: int) -> list[SampleKey]:
    """Give the samples of one batch of the stream, which runs from epoch to epoch without a seam.

    Args:
        first_sample: samples of the stream that were consumed before.
        batch_size: samples to give.
        seed: of the training.
        num_samples: in an epoch.
    """
    epochs_and_places = (divmod(position, num_samples) for position in range(first_sample, first_sample + batch_size))
    return [SampleKey(epoch, int(_permutation(seed, epoch, num_samples)[place])) for epoch, place in epochs_and_places]


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_samples: int) -> NDArray[np.int64]:
    order = random_generator(seed, Purpose.ORDER, SampleKey(epoch, 0)).permutation(num_samples)
    order.setflags(write=False)
    return order


class CocoSamples(Dataset[Sample]):
    """The images of a COCO file with their instances, augmented by key.

    Crowds, annotations without a mask and boxes without an inside are left out and counted in ``num_left_out``; masks
    that turn out to be empty are left out when they are drawn, and counted in the sample.

    Args:
        coco: the annotations.
        images_uri: the folder that its file names are relative to.
        config: how samples are augmented.
        seed: of the training.
        apply_exif: turn images upright before anything else; the file's sizes must be those.
        max_cache_bytes: decoded images are kept where all of them fit in this.
    """

    def __init__(
        self,
        coco: CocoDataset,
        images_uri: str,
        config: AugmentConfig,
        *,
        seed: int = 0,
        apply_exif: bool = True,
        max_cache_bytes: int = 2**29,
    ) -> None:
        self._coco, self._images_uri, self._config, self._seed = coco, images_uri, config, seed
        self._apply_exif = apply_exif
        self._is_caching = 3 * int((coco.heights * coco.widths).sum()) <= max_cache_bytes
        self._cache: dict[int, Tensor] = {}
        self._boxes = _boxes_within_images(coco)
        has_mask = np.array([coco.has_segmentation(index) for index in range(coco.num_annotations)], bool)
        # A missing box is NaN, hence not degenerate: it is taken from the mask.
        is_degenerate = (self._boxes[:, 2:] <= self._boxes[:, :2]).any(axis=1)
        self._is_usable = has_mask & ~coco.iscrowd & ~is_degenerate
        self.num_left_out = {
            "crowd": int(coco.iscrowd.sum()),
            "no mask": int((~coco.iscrowd & ~has_mask).sum()),
            "degenerate box": int((~coco.iscrowd & has_mask & is_degenerate).sum()),
        }

    def __len__(self) -> int:
        return self._coco.num_images

    def __getitem__(self, key: SampleKey) -> Sample:
        """Give an image as it looks in an epoch, with its target.

        Raises:
            AnnotationError: when the image cannot be decoded, or is not of the size that the file says.
            StorageError: when it cannot be read.
        """
        sample = self._target(self._image(key.sample_index), key)
        return augment(sample, self._config, random_generator(self._seed, Purpose.AUGMENT, key))

    def _image(self, index: int) -> Tensor:
        if index in self._cache:
            return self._cache[index]
        coco = self._coco
        uri = safe_join(self._images_uri, coco.file_names[index])
        pixels = images.decode(storage.read_bytes(uri), apply_exif=self._apply_exif)
        thing = f"image {coco.image_ids[index]}"
        if isinstance(pixels, images.BadImage):
            raise AnnotationError(thing, f"must be a sound image file: {pixels.reason}", uri)
        height, width = int(coco.heights[index]), int(coco.widths[index])
        if pixels.shape[:2] != (height, width):
            rule = f"must be {width} x {height} px as annotated, got {pixels.shape[1]} x {pixels.shape[0]}"
            raise AnnotationError(thing, rule, uri)
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        if self._is_caching:
            self._cache[index] = image
        return image

    def _target(self, image: Tensor, key: SampleKey) -> Sample:
        coco = self._coco
        boxes: list[NDArray[np.float64]] = []
        masks: list[NDArray[np.bool_]] = []
        category_ids: list[int] = []
        usable = [index for index in coco.annotations_of(key.sample_index) if self._is_usable[index]]
        for index in usable:
            instance_rle = coco.rle(index)
            left, top, width, height = rle.to_bbox(instance_rle)
            if width == 0:
                continue
            box = self._boxes[index]
            boxes.append(np.array([left, top, left + width, top + height]) if np.isnan(box).any() else box)
            masks.append(rle.to_mask(instance_rle).astype(bool))
            category_ids.append(int(coco.category_ids[index]))
        return Sample(
            image=image,
            boxes=torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4),
            labels=torch.from_numpy(coco.categories.labels_of(category_ids)),
            masks=torch.from_numpy(np.array(masks, bool).reshape(-1, *image.shape[1:])),
            key=key,
            image_id=int(coco.image_ids[key.sample_index]),
            num_left_out=len(usable) - len(boxes),
        )


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


@dataclass(frozen=True)
class Batch:
    """What one forward pass sees: as many images as targets, of any sizes."""

    images: tuple[Tensor, ...]
    """Each (3, H, W) uint8 RGB."""
    targets: tuple[dict[str, Tensor], ...]
    """Each with ``boxes``, ``labels`` and ``masks``, as in ``Sample``."""
    keys: tuple[SampleKey, ...]
    image_ids: tuple[int, ...]
    num_left_out: int

    def to(self, device: torch.device) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """Give torchvision's arguments on a device: images float32 in [0, 1], and targets."""
        images = [image.to(device, non_blocking=True).float() / 255 for image in self.images]
        targets = [
            {name: tensor.to(device, non_blocking=True) for name, tensor in target.items()} for target in self.targets
        ]
        return images, targets


def collate(samples: Sequence[Sample]) -> Batch:
    """Put samples together; images keep their own sizes."""
    return Batch(
        images=tuple(sample.image for sample in samples),
        targets=tuple({"boxes": s.boxes, "labels": s.labels, "masks": s.masks} for s in samples),
        keys=tuple(sample.key for sample in samples),
        image_ids=tuple(sample.image_id for sample in samples),
        num_left_out=sum(sample.num_left_out for sample in samples),
    )
