"""Mask NMS: products whose boxes overlap and masks do not stay, duplicates go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from maskrcnn.coco.rle import from_mask
from maskrcnn.config import BOX_NMS_BEFORE_MASK_NMS, PreprocessConfig, SliceConfig, ThresholdConfig
from maskrcnn.errors import InputError
from maskrcnn.model.detections import Detections
from maskrcnn.model.loading import load_predictor
from maskrcnn.model.mask_nms import MaskNmsPredictor
from maskrcnn.model.predictor import Predictor
from maskrcnn.model.slicing import SlicedPredictor
from tests.live_network import noise

SIZE = (60, 60)


def diagonal(shift: int, falls: bool) -> np.ndarray:
    """A strip 12 px wide from corner to corner, as a product that leans; moved to the right."""
    rows, columns = np.indices(SIZE)
    across = columns - shift - (rows if falls else SIZE[0] - 1 - rows)
    return np.abs(across) <= 6


def answer(masks: Sequence[np.ndarray], scores: Sequence[float], labels: Sequence[int]) -> Detections:
    boxes = []
    for mask in masks:
        rows, columns = np.nonzero(mask)
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    of_each = torch.tensor(labels)
    return Detections(
        SIZE, torch.tensor(np.array(boxes)).float(), torch.tensor(scores), of_each, of_each, [*map(from_mask, masks)]
    )


class Canned:
    """Gives one answer, as a network with loose box NMS would."""

    preprocess, thresholds = PreprocessConfig(min_size_px=64, max_size_px=96), ThresholdConfig()
    categories, bundle_sha256, whole_above_px, is_on_gpu = (), "canned", None, False

    def __init__(self, found: Detections) -> None:
        self._found = found

    def __call__(self, images: Sequence[object], *, with_masks: bool = True) -> list[Detections]:
        return [self._found for _ in images]


def left_after(found: Detections, mask_nms: float, max_detections: int = 300) -> list[float]:
    predictor = MaskNmsPredictor(Canned(found), mask_nms, ThresholdConfig(max_detections=max_detections))
    [left] = predictor([noise(*SIZE)])
    assert len(left.rles) == len(left)
    return [round(value, 2) for value in left.scores.tolist()]


def test_crossing_products_stay_and_a_duplicate_goes() -> None:
    falling, rising, again = diagonal(0, True), diagonal(0, False), diagonal(2, True)
    found = answer([falling, rising, again], [0.9, 0.8, 0.7], [1, 1, 1])
    overlaps = box_iou(found.boxes, found.boxes)
    assert overlaps[0, 1] > 0.9  # box NMS takes them for one
    assert left_after(found, 0.5) == [0.9, 0.8]
    assert left_after(found, 0.8) == [0.9, 0.8, 0.7]


def test_another_category_is_another_object() -> None:
    found = answer([diagonal(0, True), diagonal(0, True)], [0.9, 0.8], [1, 2])
    assert left_after(found, 0.5) == [0.9, 0.8]


def test_the_maximum_is_taken_after_duplicates_went() -> None:
    masks = [diagonal(0, True)] * 4 + [diagonal(0, False), diagonal(40, True)]
    found = answer(masks, [0.9, 0.85, 0.8, 0.75, 0.7, 0.6], [1] * 6)
    assert left_after(found, 0.5, max_detections=2) == [0.9, 0.7]


def test_without_masks_there_is_no_mask_nms() -> None:
    predictor = MaskNmsPredictor(Canned(answer([diagonal(0, True)], [0.9], [1])), 0.5, ThresholdConfig())
    with pytest.raises(InputError, match="--mask-nms needs masks"):
        predictor([noise(*SIZE)], with_masks=False)


def test_a_bundle_with_mask_nms_has_more_candidates_and_fewer_duplicates(tiny_bundle: str) -> None:
    loose = ThresholdConfig(0.05, nms_threshold=BOX_NMS_BEFORE_MASK_NMS, max_detections=5)
    images = [noise(100, 150, seed) for seed in range(2)]
    refined = load_predictor(tiny_bundle, thresholds=loose, device="cpu", mask_nms=0.3)
    candidates = Predictor.from_bundle(tiny_bundle, device="cpu", thresholds=replace(loose, max_detections=15))(images)
    assert refined.thresholds == loose
    for found, each in zip(refined(images), candidates, strict=True):
        assert 0 < len(found) <= 5 < len(each)
        counts = {rle["counts"] for rle in each.rles}
        assert all(rle["counts"] in counts for rle in found.rles)
        expected = MaskNmsPredictor(Canned(each), 0.3, loose)([images[0]])[0]
        assert found.rles == expected.rles
        assert torch.equal(found.boxes, expected.boxes)


def test_a_bundle_is_loaded_as_asked(tiny_bundle: str) -> None:
    thresholds = ThresholdConfig(0.05, max_detections=8)
    plain = load_predictor(tiny_bundle, thresholds=thresholds, device="cpu")
    assert isinstance(plain, Predictor)
    assert plain.thresholds == thresholds
    sliced = load_predictor(tiny_bundle, thresholds=thresholds, device="cpu", mask_nms=0.5, slicing=SliceConfig(64))
    assert isinstance(sliced, SlicedPredictor)
    assert sliced.thresholds == thresholds
    [found], [again] = sliced([noise(64, 90)]), sliced([noise(64, 90), noise(90, 64, 1)])[:1]
    assert 0 < len(found) <= 8
    assert found.rles == again.rles
    assert torch.equal(found.scores, again.scores)
