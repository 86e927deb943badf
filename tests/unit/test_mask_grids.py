"""Mask grids: drawn by hand, and on real sets against torchvision's targets from full-size masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from torchvision.ops import box_iou

from maskrcnn.coco import rle
from maskrcnn.coco.annotations import load_coco
from maskrcnn.config import PreprocessConfig
from maskrcnn.model.shapes import resized_shape
from maskrcnn.training.mask_grids import (
    GRID_SIDE,
    covered_shares,
    draw_grid,
    draw_union,
    mask_targets,
    nearest_indices,
    read_patch,
)
from maskrcnn.training.transforms import Patch

SIDE = 28
MOST_INSTANCES = 150


def _whole(num: int) -> np.ndarray:
    return np.arange(num, dtype=np.int64)


def test_a_patch_is_the_part_of_a_mask_that_is_not_empty() -> None:
    mask = np.zeros((5, 7), np.uint8)
    mask[2, 3], mask[4, 4] = 1, 1
    patch = read_patch(rle.from_mask(mask))
    assert (patch.mask.tolist(), patch.box) == ([[1, 0], [0, 0], [0, 1]], (3, 2, 5, 5))
    assert read_patch(rle.from_mask(np.zeros((5, 7)))).mask.size == 0


def test_a_mask_that_fits_lies_in_its_grid_px_by_px_with_nothing_around_it() -> None:
    patch = Patch(np.array([[1, 0, 1], [1, 1, 1]], np.uint8), left=4, top=2)
    grid, frame = draw_grid(patch, _whole(10), _whole(10))
    assert frame == (3, 1, 1, 1)
    assert grid[:4, :5].tolist() == [[0, 0, 0, 0, 0], [0, 255, 0, 255, 0], [0, 255, 255, 255, 0], [0, 0, 0, 0, 0]]
    assert grid.sum() == 5 * 255


def test_at_the_far_edges_the_last_px_goes_on() -> None:
    patch = Patch(np.array([[1, 0], [1, 1]], np.uint8), left=8, top=8)
    grid, _ = draw_grid(patch, _whole(10), _whole(10))
    assert (grid[1:5, 1:5] // 255).tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]


def test_a_larger_mask_becomes_shares_of_cells_along_the_axis_where_it_is_larger() -> None:
    inner = GRID_SIDE - 2
    mask = np.zeros((4, 2 * inner), np.uint8)
    mask[:, ::2] = 1
    grid, frame = draw_grid(Patch(mask, left=10, top=20), _whole(400), _whole(400))
    assert frame == (8, 19, 2, 1)
    assert set(np.unique(grid[1:5, 1 : inner + 1])) <= {127, 128}
    assert grid[5:].sum() == grid[0].sum() == grid[:, 0].sum() == grid[:, -1].sum() == 0


def test_a_mask_that_shrinking_leaves_nothing_of_is_an_empty_grid() -> None:
    grid, frame = draw_grid(
        Patch(np.ones((1, 1), np.uint8), left=1, top=1), nearest_indices(9, 3), nearest_indices(9, 3)
    )
    assert grid.sum() == 0
    assert np.isfinite(frame).all()
    targets = mask_targets(
        torch.from_numpy(grid)[None], torch.tensor([frame]), torch.tensor([[0.2, 0.2, 1, 1]]), torch.tensor([0]), SIDE
    )
    assert targets.sum() == 0


def test_no_boxes_have_no_targets() -> None:
    none = mask_targets(
        torch.zeros(0, GRID_SIDE, GRID_SIDE, dtype=torch.uint8),
        torch.zeros(0, 4),
        torch.zeros(0, 4),
        torch.zeros(0, dtype=torch.int64),
        SIDE,
    )
    assert none.shape == (0, SIDE, SIDE)


def test_the_union_of_crowds_covers_what_any_of_them_does() -> None:
    one, other = np.zeros((2, 3, 4), np.uint8)
    one[0], other[:, 1] = 1, 1
    union = draw_union([rle.from_mask(one), rle.from_mask(other)], 3, 4)
    assert union is not None
    assert union.dtype == np.bool_
    assert union.astype(int).tolist() == [[1, 1, 1, 1], [0, 1, 0, 0], [0, 1, 0, 0]]
    assert draw_union([], 3, 4) is None


def test_shares_count_fractions_of_px_and_nothing_beyond_the_image() -> None:
    covered = torch.tensor([[1, 0, 0], [0, 0, 1]], dtype=torch.bool)
    boxes = torch.tensor(
        [
            [0, 0, 1, 1],
            [0.5, 0, 1.5, 1],
            [0, 0, 3, 2],
            [0.5, 0.5, 1.5, 1.5],
            [2, 1, 4, 3],
            [1, 1, 1, 2],
            [-9, -9, -8, -8],
        ]
    )
    assert covered_shares(covered, boxes).tolist() == pytest.approx([1, 0.5, 1 / 3, 0.25, 0.25, 0, 0])


def _jittered(boxes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Move the edges of boxes as a proposal network misses them: three of each, those above IoU 0.5."""
    generator = torch.Generator().manual_seed(0)
    matched = torch.arange(len(boxes)).repeat_interleave(3)
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)[matched]
    moved = boxes[matched] + 0.15 * sides * torch.randn(len(matched), 4, generator=generator)
    moved[:, 0::2].clamp_(0, size[1])
    moved[:, 1::2].clamp_(0, size[0])
    is_near = box_iou(moved, boxes)[torch.arange(len(moved)), matched] > 0.5
    return moved[is_near], matched[is_near]


@pytest.mark.parametrize(
    ("name", "short_side"),
    [
        ("coco_cc_by", 800),
        ("dsb2018_nuclei", 800),
        ("dsb2018_nuclei", 256),
        ("lpbf_defects", 800),
        ("fruits_nuts", 800),
        ("microcontroller", 800),
    ],
)
def test_on_real_sets_targets_are_those_of_full_size_masks(shared_path: Path, name: str, short_side: int) -> None:
    coco = load_coco(str(shared_path / "data" / name / "annotations.json"))
    preprocess = PreprocessConfig(min_size_px=short_side, max_size_px=1333)
    overlaps: list[float] = []
    for index in np.random.default_rng(0).permutation(coco.num_images).tolist():
        height, width = int(coco.heights[index]), int(coco.widths[index])
        size = resized_shape(height, width, preprocess)
        rows, columns = nearest_indices(height, size[0]), nearest_indices(width, size[1])
        usable = [each for each in coco.annotations_of(index) if coco.has_segmentation(each) and not coco.iscrowd[each]]
        for each in usable[:20]:
            mask = rle.to_mask(coco.rle(each))
            if not mask.any():
                continue
            x, y, w, h = rle.to_bbox(coco.rle(each))
            ratios = torch.tensor([size[1] / width, size[0] / height] * 2)
            boxes, matched = _jittered(torch.tensor([[x, y, x + w, y + h]]) * ratios, size)
            full = functional.interpolate(torch.from_numpy(mask.copy())[None, None].float(), size=size)[0].byte()
            theirs = project_masks_on_boxes(full, boxes, matched, SIDE) > 0.5
            grid, frame = draw_grid(read_patch(coco.rle(each)), rows, columns)
            ours = mask_targets(torch.from_numpy(grid)[None], torch.tensor([frame]), boxes, matched, SIDE) > 0.5
            union = (ours | theirs).sum((1, 2))
            overlaps += torch.where(union > 0, (ours & theirs).sum((1, 2)) / union.clamp(min=1), 1.0).tolist()
        if len(overlaps) >= 3 * MOST_INSTANCES:
            break
    assert len(overlaps) > 100
    assert np.mean(overlaps) >= 0.99, (name, np.mean(overlaps), np.min(overlaps))
