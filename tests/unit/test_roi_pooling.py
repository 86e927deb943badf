"""RoIs pooled from all levels at once: torchvision's features and gradients, from a table and from a canvas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign

from maskrcnn.training.roi_pooling import PooledFeatures, join_levels

SHAPE = (512, 640)
NAMES = ["0", "1", "2", "3"]


def _levels() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, 5, SHAPE[0] // stride, SHAPE[1] // stride, generator=generator).requires_grad_()
        for stride in (4, 8, 16, 32)
    ]


def _pooler(side: int) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign(NAMES, side, sampling_ratio=2)


def _boxes(smallest: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    extent = torch.tensor([SHAPE[1], SHAPE[0]], dtype=torch.float32)
    sizes = smallest + torch.rand(60, 2, generator=generator) ** 3 * (extent - smallest)
    corners = torch.rand(60, 2, generator=generator) * (extent - sizes)
    boxes = torch.cat([corners, corners + sizes], 1)
    at_far_edge = torch.cat([extent - sizes[:8], extent.expand(8, 2)], 1)
    whole = torch.cat([torch.zeros(2), extent])[None]
    boxes = torch.cat([boxes, at_far_edge, whole])
    return [boxes[:40], boxes[40:]]


def _pool(pyramid: PooledFeatures, side: int, boxes: Tensor, image_of_each: Tensor) -> Tensor:
    return pyramid.pool(boxes, image_of_each, side, 2).permute(0, 3, 1, 2)


def _torchvisions(levels: list[Tensor], boxes: list[Tensor], side: int) -> Tensor:
    pooled: Tensor = _pooler(side)(dict(zip(NAMES, levels, strict=True)), boxes, [SHAPE, SHAPE])
    return pooled


@pytest.mark.parametrize("is_table", [True, False], ids=["table", "canvas"])
@pytest.mark.parametrize("smallest", [0.1, 2.0, 5.0])
@pytest.mark.parametrize("side", [7, 14])
def test_features_and_gradients_are_torchvisions(is_table: bool, smallest: float, side: int) -> None:
    boxes = _boxes(smallest)
    image_of_each = torch.tensor([0] * len(boxes[0]) + [1] * len(boxes[1]))
    levels, their_levels = _levels(), _levels()
    expected = _torchvisions(their_levels, boxes, side)
    pyramid = join_levels(levels, SHAPE, is_table=is_table)
    found = _pool(pyramid, side, torch.cat(boxes), image_of_each)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for ours, theirs in zip(levels, their_levels, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert theirs.grad.any()
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("is_table", [True, False])
def test_no_roi_has_no_features_and_a_slot_without_a_box_has_finite_ones(is_table: bool) -> None:
    pyramid = join_levels(_levels(), SHAPE, is_table=is_table)
    assert _pool(pyramid, 7, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).shape == (0, 5, 7, 7)
    assert _pool(pyramid, 7, torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)).isfinite().all()


def test_bf16_features_are_pooled_in_float32() -> None:
    levels = [level.detach().bfloat16() for level in _levels()]
    boxes, images = torch.cat(_boxes(5)), torch.zeros(69, dtype=torch.int64)
    found = _pool(join_levels(levels, SHAPE, is_table=True), 7, boxes, images)
    exact = [level.float() for level in levels]
    assert found.equal(_pool(join_levels(exact, SHAPE, is_table=True), 7, boxes, images))
