"""RoIAlign as a weighted sum of table rows gives torchvision's features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from maskrcnn.model.roi_align import FeatureTable

INPUT_SHAPE = (96, 160)
NUM_IMAGES = 2


def draw_levels(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(INPUT_SHAPE[0] // stride, INPUT_SHAPE[1] // stride) for stride in (4, 8, 16, 32)]
    levels = [torch.randn(NUM_IMAGES, 5, *shape, generator=generator) for shape in shapes]
    return [level.to(dtype, memory_format=torch.channels_last) for level in levels]


def draw_boxes(num: int) -> Tensor:
    """Boxes of all sizes, some of them thin, cut at the edges, beyond them, or without an inside."""
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(num, 2, generator=generator) * torch.tensor([170.0, 110.0]) - 8
    sides = 400 ** torch.rand(num, 2, generator=generator) - 1
    special = torch.tensor([[0.0, 0, 160, 96], [0, 0, 0, 0], [159.5, 95.5, 160, 96], [-50, -50, -40, -40]])
    return torch.cat([special, torch.cat([corners, corners + sides], dim=1)])


@pytest.mark.parametrize(("side", "samples"), [(7, 2), (14, 2), (3, 1), (2, 3)])
def test_torchvisions_features(side: int, samples: int) -> None:
    levels, boxes = draw_levels(), draw_boxes(300)
    image_of_box = torch.arange(len(boxes)) % NUM_IMAGES
    pooled = FeatureTable(levels, INPUT_SHAPE).pool(boxes, image_of_box, side, samples)
    names = [str(number) for number in range(4)]
    theirs = MultiScaleRoIAlign(names, side, samples)
    for image in range(NUM_IMAGES):
        features = {name: level[image : image + 1] for name, level in zip(names, levels, strict=True)}
        expected = theirs(features, [boxes[image_of_box == image]], [INPUT_SHAPE])
        torch.testing.assert_close(pooled[image_of_box == image].permute(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-4)


def test_no_boxes_give_no_features() -> None:
    pooled = FeatureTable(draw_levels(), INPUT_SHAPE).pool(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 7, 2)
    assert pooled.shape == (0, 7, 7, 5)


def test_bf16_features_stay_bf16_and_near() -> None:
    boxes = draw_boxes(50)
    images = torch.zeros(len(boxes), dtype=torch.int64)
    exact = FeatureTable(draw_levels(), INPUT_SHAPE).pool(boxes, images, 7, 2)
    rounded = FeatureTable(draw_levels(torch.bfloat16), INPUT_SHAPE).pool(boxes, images, 7, 2)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.02, atol=0.03)
