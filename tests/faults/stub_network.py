"""A predictor without a network, for tests of the protocol: what it finds depends on the pixels alone, at once.

``MASKRCNN_STUB_S`` slows it down: seconds an image, so that there is a middle in which things can happen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np
import torch

from maskrcnn.coco import rle
from maskrcnn.config import ThresholdConfig
from maskrcnn.model.bundle import load_bundle
from maskrcnn.model.decode import DecodedImage
from maskrcnn.model.detections import Detections


class StubPredictor:
    """Finds one rectangle an image, whose place, score and category tell which image it was."""

    whole_above_px: int | None = None
    is_on_gpu = False

    def __init__(self, uri: str, thresholds: ThresholdConfig) -> None:
        bundle = load_bundle(uri)
        self.preprocess, self.thresholds = bundle.preprocess, thresholds
        self.categories, self.bundle_sha256 = bundle.categories, bundle.sha256
        self._pause_s = float(os.environ.get("MASKRCNN_STUB_S", "0"))

    def __call__(self, images: Sequence[DecodedImage], *, with_masks: bool = True) -> list[Detections]:
        time.sleep(self._pause_s * len(images))
        return [self._detect(image, with_masks) for image in images]

    def _detect(self, image: DecodedImage, with_masks: bool) -> Detections:
        total = int(image.pixels.sum(dtype=torch.int64))
        height, width = image.size
        top, left = total % (height // 2), total % (width // 2)
        category = self.categories[total % len(self.categories)]
        mask = np.zeros((height, width), np.uint8)
        mask[top : top + height // 2, left : left + width // 2] = 1
        return Detections(
            size=image.size,
            boxes=torch.tensor([[left, top, left + width // 2, top + height // 2]], dtype=torch.float32),
            scores=torch.tensor([0.5 + total % 1000 / 2000]),
            labels=torch.tensor([category.label]),
            category_ids=torch.tensor([category.id]),
            rles=[rle.from_mask(mask)] if with_masks else [],
        )


def load_stub(uri: str, *, thresholds: ThresholdConfig, **_: object) -> StubPredictor:
    """Stand in for ``maskrcnn.model.loading.load_predictor``."""
    return StubPredictor(uri, thresholds)
