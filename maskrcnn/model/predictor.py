"""Images in, detections out: a network with its preprocessing, thresholds and label table.

An image's padded shape depends on that image and the bundle alone, and no mask is ever drawn over a whole frame. Knows
nothing of files, Ray or tables.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops import clip_boxes_to_image

from maskrcnn.coco.rle import Rle
from maskrcnn.config import Device, Precision, PreprocessConfig, ThresholdConfig
from maskrcnn.errors import ClusterError, InputError
from maskrcnn.model.bundle import Category, load_bundle, load_network
from maskrcnn.model.decode import DecodedImage, to_decoded
from maskrcnn.model.detections import Detections, show_on
from maskrcnn.model.device_sharing import Inside, Streams
from maskrcnn.model.inference import BatchBoxes, InferenceNetwork
from maskrcnn.model.inputs import build_input
from maskrcnn.model.masks import encode_masks_of_images
from maskrcnn.model.precision import resolve_device, uses_bf16
from maskrcnn.model.roi_align import FeatureTable
from maskrcnn.model.shapes import bucket_shape, resized_shape


class AnyPredictor(Protocol):
    """What everything that feeds a predictor needs to know of it: a `Predictor`, or one that refines another's answers.

    Attributes:
        preprocess: how images are decoded and resized.
        thresholds: which detections are given back.
        categories: the label table; empty where it is not known.
        bundle_sha256: the bundle's identity; empty without a bundle.
        whole_above_px: images with a longer side are wanted whole, as `decode_image` takes it; None: none are.
        is_on_gpu: two threads may then predict at once with profit, and page-locked images are copied faster.
    """

    preprocess: PreprocessConfig
    thresholds: ThresholdConfig
    categories: tuple[Category, ...]
    bundle_sha256: str
    whole_above_px: int | None
    is_on_gpu: bool

    def __call__(self, images: Sequence[Tensor | bytes | DecodedImage], *, with_masks: bool = True) -> list[Detections]:
        """Detect objects; one result an image, in order."""
        ...


class Predictor:
    """A network that is ready to predict. Build one with `from_bundle` or `from_torchvision`, in each process anew.

    Threads may call it at once. Its weights are copies, made when it is built.

    Attributes:
        preprocess: how images are resized, normalised and padded.
        thresholds: which detections are kept.
        categories: the label table; empty where it is not known.
        bundle_sha256: the bundle's identity; empty without a bundle.
        device: where the network is.
        is_on_gpu: whether that is a GPU.
    """

    whole_above_px: int | None = None

    def __init__(
        self,
        network: MaskRCNN,
        preprocess: PreprocessConfig,
        thresholds: ThresholdConfig,
        *,
        precision: Precision = "auto",
        compiles: bool = False,
        categories: tuple[Category, ...] = (),
        bundle_sha256: str = "",
    ) -> None:
        self.preprocess = preprocess
        self.thresholds = thresholds
        self.categories = categories
        self.bundle_sha256 = bundle_sha256
        self.device: torch.device = next(network.parameters()).device
        self.is_on_gpu = self.device.type == "cuda"
        by_label = sorted((category.label, category.id) for category in categories)
        table = torch.tensor(by_label, dtype=torch.int64).reshape(-1, 2)
        self._labels, self._category_ids = table.T.contiguous()
        self._mean = torch.tensor(preprocess.mean, device=self.device)[:, None, None]
        self._std = torch.tensor(preprocess.std, device=self.device)[:, None, None]
        # A convolution over two images rounds otherwise than over one, and on the CPU it takes twice as long anyway.
        self._max_images_per_forward = 1 if self.device.type == "cpu" else sys.maxsize
        dtype = torch.bfloat16 if uses_bf16(precision, self.device) else torch.float32
        self._network = InferenceNetwork(network, thresholds, dtype, compiles=compiles)
        self._streams = Streams(self.device)
        self._inside = Inside()

    @classmethod
    def from_bundle(
        cls,
        uri: str,
        *,
        device: Device = "auto",
        precision: Precision = "auto",
        compiles: bool = False,
        thresholds: ThresholdConfig | None = None,
    ) -> Predictor:
        """Load a model bundle.

        Args:
            uri: the bundle's folder: a path or any URI.
            device: auto takes CUDA where there is any.
            precision: auto computes in bf16 on CUDA devices that can, else in fp32.
            compiles: let torch compile what runs over whole images, once for every padded shape: a minute for each.
            thresholds: which detections to keep; None: as the bundle says.

        Raises:
            BundleError: no bundle there, or one that cannot be used.
            InputError: a device or precision that is not to be had.
        """
        place = resolve_device(device)
        bundle = load_bundle(uri)
        return cls(
            load_network(bundle, place),
            bundle.preprocess,
            thresholds or bundle.thresholds,
            precision=precision,
            compiles=compiles,
            categories=bundle.categories,
            bundle_sha256=bundle.sha256,
        )

    @classmethod
    def from_torchvision(
        cls, model: MaskRCNN, *, score_threshold: float = 0.5, max_detections: int = 300, precision: Precision = "auto"
    ) -> Predictor:
        """Wrap a torchvision Mask R-CNN as it is, on its device; labels are given as category ids.

        Args:
            model: it is put into eval mode, and its own thresholds are left alone.
            score_threshold: in [0, 1].
            max_detections: in an image.
            precision: as in `from_bundle`.

        Raises:
            InputError: a threshold or precision that cannot be used, or a transform that resizes to a fixed size.
        """
        transform = model.transform
        if transform.fixed_size is not None:
            raise InputError("model.transform.fixed_size", "must be None; images keep their aspect ratio")
        preprocess = PreprocessConfig(
            min_size_px=transform.min_size[-1],
            max_size_px=transform.max_size,
            pad_multiple_px=transform.size_divisible,
            mean=tuple(transform.image_mean),
            std=tuple(transform.image_std),
        )
        thresholds = ThresholdConfig(score_threshold, model.roi_heads.nms_thresh, max_detections)
        return cls(model.eval(), preprocess, thresholds, precision=precision)

    @torch.inference_mode()
    def __call__(self, images: Sequence[Tensor | bytes | DecodedImage], *, with_masks: bool = True) -> list[Detections]:
        """Detect objects.

        On CUDA, images of one padded shape go through the network together, so the caller decides on the batch by how
        many are given; a batch that does not fit in memory is halved until it does. There an image's scores and boxes
        depend on its batch mates by rounding only. On the CPU they do not depend on them at all: each goes alone.

        Args:
            images: each (3, H, W) uint8 RGB on any device, an encoded file, or what `decode_image` made of one. A file
                is decoded as the bundle says, at a reduced scale where that is allowed; a tensor is taken as it is.
            with_masks: without, the mask head does not run.

        Returns:
            One result an image, in order. Those of at most 8 images keep them, for a notebook to draw on; to let go:
            `dataclasses.replace(found, shown=None)`.

        Raises:
            InputError: an image that is no image.
            ClusterError: a single image that does not fit in the GPU's memory.
        """
        decoded = [to_decoded(image, f"image {index}", self.preprocess) for index, image in enumerate(images)]
        groups: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(decoded):
            groups.setdefault(bucket_shape(*image.size, self.preprocess), []).append(index)
        found: dict[int, Detections] = {}
        with self._streams.own():
            for shape, indices in groups.items():
                for begin in range(0, len(indices), self._max_images_per_forward):
                    chosen = indices[begin : begin + self._max_images_per_forward]
                    batch = [decoded[index] for index in chosen]
                    found |= zip(chosen, self._detect_in_memory(batch, shape, with_masks), strict=True)
        return show_on(images, [found[index] for index in range(len(images))], self.categories, self.preprocess)

    def _detect_in_memory(
        self, images: list[DecodedImage], shape: tuple[int, int], with_masks: bool
    ) -> list[Detections]:
        """Detect, halving the batch while the device's memory does not hold it."""
        with contextlib.suppress(torch.OutOfMemoryError), self._inside.together():
            return self._detect(images, shape, with_masks)
        # Only here, where the error and the tensors that its traceback kept are gone, can their memory be had again.
        torch.cuda.empty_cache()
        if len(images) > 1:
            middle = len(images) // 2
            halves = images[:middle], images[middle:]
            return [one for half in halves for one in self._detect_in_memory(half, shape, with_masks)]
        with contextlib.suppress(torch.OutOfMemoryError), self._inside.alone():  # another thread may have held it
            torch.cuda.empty_cache()
            return self._detect(images, shape, with_masks)
        rule = f"must hold one image of {shape[1]} x {shape[0]} px in the network, and does not"
        raise ClusterError(f"memory of {self.device}", rule, remedy="use a smaller max_size or the CPU")

    def _detect(self, images: list[DecodedImage], shape: tuple[int, int], with_masks: bool) -> list[Detections]:
        """Run the network on images of one padded shape."""
        resized = [resized_shape(*image.size, self.preprocess) for image in images]
        pixels = [image.pixels for image in images]
        batch = build_input(pixels, resized, shape, self._mean, self._std, self._network.dtype)
        found, table = self._network.find_boxes(batch, resized)
        if self.categories:  # a label that none has, as COCO's gaps, is no answer
            found = found.with_labels(self._labels)
        sizes = [image.size for image in images]
        boxes = [
            resize_boxes(each, list(old), list(new)) for each, old, new in zip(found.boxes, resized, sizes, strict=True)
        ]
        rles = self._encode_masks(found, table, boxes, sizes) if with_masks else [[] for _ in images]
        return [
            Detections(
                size=size,
                boxes=clip_boxes_to_image(boxes[index], size),
                scores=found.scores[index],
                labels=found.labels[index],
                category_ids=self._category_ids_of(found.labels[index]),
                rles=rles[index],
            )
            for index, size in enumerate(sizes)
        ]

    def _encode_masks(
        self, found: BatchBoxes, table: FeatureTable, boxes: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[list[Rle]]:
        """Predict the masks of a batch and compress them, each for its image."""
        nums = [len(each) for each in boxes]
        image_of_box = torch.arange(len(nums)).repeat_interleave(torch.tensor(nums))
        probs = self._network.predict_masks(table, torch.cat(found.boxes), image_of_box, torch.cat(found.labels))
        rles = iter(encode_masks_of_images(probs, torch.cat(boxes), np.array(sizes, np.int64)[image_of_box.numpy()]))
        return [list(islice(rles, num)) for num in nums]

    def _category_ids_of(self, labels: Tensor) -> Tensor:
        return self._category_ids[torch.searchsorted(self._labels, labels)] if self.categories else labels
