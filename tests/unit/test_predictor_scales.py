"""The predictor over JPEGs that were decoded at a reduced scale answers in px of the whole file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.ops import box_iou

from maskrcnn.config import ThresholdConfig
from maskrcnn.model.decode import DecodedImage, decode_image
from maskrcnn.model.detections import Detections
from maskrcnn.model.predictor import Predictor
from tests.live_network import PREPROCESS, build_small_network, noise, quick_networks

THRESHOLDS = ThresholdConfig(score_threshold=0.05, max_detections=12)


@pytest.fixture(scope="module")
def small_network() -> Iterator[MaskRCNN]:
    with quick_networks():
        yield build_small_network()


def assert_same(ours: Detections, theirs: Detections) -> None:
    for name in ("boxes", "scores", "labels", "category_ids"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    assert ours.rles == theirs.rles
    assert ours.size == theirs.size


def smooth_jpeg(height: int, width: int, seed: int) -> bytes:
    """Draw what looks much the same at any scale."""
    spots = noise(height // 200, width // 200, seed).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(spots).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=100)
    return file.getvalue()


@pytest.mark.parametrize("size", [(800, 1200), (803, 1205), (1205, 803)])
def test_a_jpeg_decoded_at_an_eighth_gives_boxes_in_px_of_the_file(
    small_network: MaskRCNN, size: tuple[int, int]
) -> None:
    inputs: list[Tensor] = []
    hook = small_network.backbone.register_forward_pre_hook(lambda module, given: inputs.append(given[0].clone()))
    bodies = [smooth_jpeg(*size, seed) for seed in range(4)]
    whole = Predictor(small_network, PREPROCESS, THRESHOLDS)(bodies)
    reducing = Predictor(small_network, replace(PREPROCESS, decode_scale=8), THRESHOLDS)
    decoded = [decode_image(body, reducing.preprocess) for body in bodies]
    assert all(isinstance(image, DecodedImage) and image.pixels.shape[1] == -(-size[0] // 8) for image in decoded)
    reduced = reducing(bodies)
    hook.remove()

    for given, expected in zip(inputs[4:], inputs[:4], strict=True):  # normalised: 0.1 is about 6 of 255
        torch.testing.assert_close(given, expected, rtol=0, atol=0.1)
    overlaps = []
    for found, expected, image in zip(reduced, whole, decoded, strict=True):
        assert found.size == expected.size == size
        assert all(rle["size"] == list(size) for rle in found.rles)
        overlaps.append(box_iou(expected.boxes, found.boxes).max(dim=1).values)
        assert_same(reducing([image])[0], found)  # type: ignore[list-item]
    assert torch.cat(overlaps).median() > 0.7  # 0.84 to 0.91; a random network makes much of little


def test_only_jpegs_are_reduced(small_network: MaskRCNN) -> None:
    file = io.BytesIO()
    Image.fromarray(noise(800, 1200).permute(1, 2, 0).numpy()).save(file, "PNG")
    [reduced] = Predictor(small_network, replace(PREPROCESS, decode_scale=8), THRESHOLDS)([file.getvalue()])
    assert_same(reduced, Predictor(small_network, PREPROCESS, THRESHOLDS)([file.getvalue()])[0])
