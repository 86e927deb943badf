"""Masks inside their boxes: hand-drawn cases, hostile boxes, and the bounds on memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as reference
from torchvision.models.detection.roi_heads import paste_masks_in_image

from maskrcnn.coco.rle import area, to_mask
from maskrcnn.model import masks
from maskrcnn.model.masks import encode_instance_masks

FULL = torch.ones(1, 28, 28)


def test_no_instances_give_no_masks() -> None:
    assert encode_instance_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), (10, 20)) == []
    assert encode_instance_masks(torch.zeros(0, 1, 28, 28), torch.zeros(0, 4), (10, 20)) == []


def test_a_full_mask_fills_the_rounded_box() -> None:
    (rle,) = encode_instance_masks(FULL, torch.tensor([[2.0, 1.0, 6.0, 4.0]]), (6, 8), threshold=0.4)
    assert rle["size"] == [6, 8]
    expected = np.zeros((6, 8), np.uint8)
    expected[0:5, 1:7] = 1  # 30 / 28 as wide for the padding, then cut to whole px, both ends included
    np.testing.assert_array_equal(to_mask(rle), expected)


def test_runs_join_across_columns_that_are_full_from_top_to_bottom() -> None:
    (rle,) = encode_instance_masks(FULL, torch.tensor([[0.0, 0.0, 8.0, 6.0]]), (6, 8), threshold=0.1)
    assert rle == reference.encode(np.ones((6, 8), np.uint8, order="F"))


@pytest.mark.parametrize(
    "box",
    [
        [-50.0, 2.0, -20.0, 8.0],
        [2.0, 300.0, 8.0, 330.0],
        [float("nan"), 0.0, 5.0, 5.0],
        [0.0, 0.0, float("inf"), 5.0],
        [9.0, 9.0, 2.0, 2.0],
        [-1e30, -1e30, 1e30, 1e30],
        [1e30, 1e30, 3e38, 3e38],
    ],
)
def test_a_box_that_shows_nothing_is_an_empty_mask(box: list[float]) -> None:
    (rle,) = encode_instance_masks(FULL, torch.tensor([box]), (12, 16))
    assert rle == reference.encode(np.zeros((12, 16), np.uint8, order="F"))


@pytest.mark.parametrize("far", [1e5, 1e9])
def test_an_enormous_box_costs_no_more_than_the_image(far: float, monkeypatch: pytest.MonkeyPatch) -> None:
    resized: list[tuple[int, int]] = []
    interpolate = masks.F.interpolate

    def record(cells: torch.Tensor, size: tuple[int, int], **options: object) -> torch.Tensor:
        resized.append(size)
        return interpolate(cells, size=size, **options)

    monkeypatch.setattr(masks.F, "interpolate", record)
    left_half = FULL.clone()
    left_half[:, :, 14:] = 0
    boxes = torch.tensor([[-far, -far, far, far], [-far, 2.0, far, 6.0], [1.0, 1.0, 5.0, 5.0]])
    # The image is a speck in the middle of the first two, where the mask is 0.5 and falls by under 0.01 over its width.
    areas = [area(rle) for rle in encode_instance_masks(left_half.expand(3, -1, -1), boxes, (90, 60), threshold=0.4)]
    assert areas[:2] == [90 * 60, 6 * 60]
    assert 0 < areas[2] < 25
    areas = [area(rle) for rle in encode_instance_masks(left_half.expand(3, -1, -1), boxes, (90, 60), threshold=0.6)]
    assert areas[:2] == [0, 0]
    assert resized.count((6, 6)) == 2
    assert max(height * width for height, width in resized) <= masks.MAX_RESIZED_PIXELS


def test_an_enormous_box_shows_its_part_of_the_mask() -> None:
    far = 1e9
    ring = FULL.clone()
    ring[:, 10:18, 10:18] = 0
    boxes = torch.tensor([[-far, -far, far, far], [-1.0, -1.0, 2 * far, 2 * far], [-far * 0.2, -far * 0.2, far, far]])
    in_hole, at_corner, on_ring = encode_instance_masks(ring.expand(3, -1, -1), boxes, (40, 30), threshold=0.2)
    assert area(in_hole) == 0
    assert area(at_corner) == 40 * 30  # half a cell from the padding both ways: 0.25
    assert area(on_ring) == 40 * 30


def test_many_instances_over_a_real_size_equal_paste_and_encode() -> None:
    generator = torch.Generator().manual_seed(5)
    corners = torch.rand(30, 2, generator=generator) * torch.tensor([640.0, 480.0])
    sides = 3 + torch.rand(30, 2, generator=generator) * 200
    boxes = torch.cat([corners - sides / 2, corners + sides / 2], dim=1)
    probs = torch.rand(30, 1, 28, 28, generator=generator)
    pasted = paste_masks_in_image(probs, boxes, (480, 640))[:, 0] > 0.5
    expected = [reference.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in pasted]
    assert encode_instance_masks(probs, boxes, (480, 640)) == expected


@pytest.mark.gpu
def test_on_cuda_equal_but_for_ties() -> None:
    generator = torch.Generator().manual_seed(6)
    corners = torch.rand(120, 2, generator=generator) * torch.tensor([1920.0, 1080.0])
    sides = 3 + torch.rand(120, 2, generator=generator) * 700
    boxes = torch.cat([corners - sides / 2, corners + sides / 2], dim=1)
    probs = torch.rand(120, 1, 28, 28, generator=generator)
    on_cuda = encode_instance_masks(probs.cuda(), boxes.cuda(), (1080, 1920))
    on_cpu = encode_instance_masks(probs, boxes, (1080, 1920))
    for i, (ours, theirs) in enumerate(zip(on_cuda, on_cpu, strict=True)):
        if ours == theirs:
            continue
        values = paste_masks_in_image(probs[i, None], boxes[i, None], (1080, 1920))[0, 0].numpy()
        differs = to_mask(ours) != to_mask(theirs)
        assert (np.abs(values[differs] - 0.5) <= 1e-4).all()
