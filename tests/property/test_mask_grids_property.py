"""Any small mask: its targets are torchvision's, and shares of areas are those counted px by px."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from maskrcnn.coco import rle
from maskrcnn.training.mask_grids import (
    covered_shares,
    draw_grid,
    draw_union,
    mask_targets,
    nearest_indices,
    read_patch,
)

SIDES = st.integers(1, 100)
SEEDS = st.integers(0, 2**32)
UNHURRIED = settings(deadline=None)
SMALL_PX = 64  # of fractions of px: exact in float32, so that both sides take the same number of samples of a cell


def random_boxes(rng: np.random.Generator, height: int, width: int, count: int) -> torch.Tensor:
    """Boxes inside an image, some at its edges, of 1 px or more: less is 1 px for roi_align, beyond the image too."""
    edges = []
    for side in (width, height):
        begins = rng.integers(0, (side - 1) * SMALL_PX + 1, count) * (rng.random(count) < 0.7)
        ends = rng.integers(begins + SMALL_PX, side * SMALL_PX + 1)
        edges.append((begins, np.where(rng.random(count) < 0.3, side * SMALL_PX, ends)))
    (x0, x1), (y0, y1) = edges
    return torch.tensor(np.stack([x0, y0, x1, y1], axis=1) / SMALL_PX, dtype=torch.float32)


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.uint8]:
    """Noise in a part of an image that often touches its edges; sometimes none."""
    height, width = draw(SIDES), draw(SIDES)
    rng = np.random.default_rng(draw(SEEDS))
    mask = (rng.random((height, width)) < draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))).astype(np.uint8)
    mask[: draw(st.integers(0, height - 1))] = 0
    mask[:, : draw(st.integers(0, width - 1))] = 0
    mask = mask[:: draw(st.sampled_from([1, -1])), :: draw(st.sampled_from([1, -1]))]
    return mask.copy()


@UNHURRIED
@given(masks(), st.booleans(), SEEDS)
def test_targets_of_masks_that_fit_equal_torchvisions(mask: NDArray[np.uint8], is_flipped: bool, seed: int) -> None:
    height, width = mask.shape
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 111)), int(rng.integers(1, 111))
    boxes = random_boxes(rng, *size, count=6)
    matched = torch.zeros(len(boxes), dtype=torch.int64)
    seen = mask[:, ::-1].copy() if is_flipped else mask
    full = functional.interpolate(torch.from_numpy(seen)[None, None].float(), size=size)[0].byte()
    theirs = project_masks_on_boxes(full, boxes, matched, 28)
    patch = read_patch(rle.from_mask(mask))
    grid, frame = draw_grid(
        patch.flipped(width) if is_flipped else patch, nearest_indices(height, size[0]), nearest_indices(width, size[1])
    )
    ours = mask_targets(torch.from_numpy(grid)[None], torch.tensor([frame]), boxes, matched, 28)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@UNHURRIED
@given(st.lists(masks(), min_size=1, max_size=4), SEEDS)
def test_each_box_is_cut_from_its_own_mask(drawn: list[NDArray[np.uint8]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    cut = [draw_grid(read_patch(rle.from_mask(mask)), *map(np.arange, mask.shape)) for mask in drawn]
    grids = torch.from_numpy(np.stack([grid for grid, _ in cut]))
    frames = torch.tensor([frame for _, frame in cut])
    matched = torch.from_numpy(rng.integers(0, len(drawn), 5))
    boxes = torch.cat([random_boxes(rng, *drawn[index].shape, count=1) for index in matched.tolist()])
    together = mask_targets(grids, frames, boxes, matched, 14)
    for target, box, index in zip(together, boxes, matched.tolist(), strict=True):
        alone = project_masks_on_boxes(torch.from_numpy(drawn[index])[None], box[None], torch.tensor([0]), 14)[0]
        torch.testing.assert_close(target, alone, rtol=0, atol=1e-5)


@UNHURRIED
@given(st.integers(1, 3000), st.integers(1, 3000))
def test_px_are_taken_from_where_torch_takes_them(num_in: int, num_out: int) -> None:
    ramp = torch.arange(num_in, dtype=torch.float32)[None, None]
    expected = functional.interpolate(ramp, size=num_out)[0, 0].long()
    assert nearest_indices(num_in, num_out).tolist() == expected.tolist()


@UNHURRIED
@given(st.integers(1, 12), st.integers(1, 12), SEEDS)
def test_covered_shares_are_those_of_px_cut_into_sixteenths(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    covered = rng.random((height, width)) < 0.4
    corners = rng.integers(-32, 16 * 14, (5, 4))
    boxes = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1)
    fine = np.pad(covered.repeat(16, 0).repeat(16, 1), 16 * 15)
    expected = [
        part.mean() if (part := fine[240 + y0 : 240 + y1, 240 + x0 : 240 + x1]).size else 0
        for x0, y0, x1, y1 in boxes.tolist()
    ]
    shares = covered_shares(torch.from_numpy(covered), torch.tensor(boxes / 16, dtype=torch.float32))
    np.testing.assert_allclose(shares.numpy(), expected, atol=1e-6)


@UNHURRIED
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), SEEDS)
def test_a_union_is_any_of_its_masks(height: int, width: int, count: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).random((count, height, width)) < 0.3
    union = draw_union([rle.from_mask(mask) for mask in drawn], height, width)
    assert (union is None) == (count == 0)
    if union is not None:
        assert np.array_equal(union, drawn.any(axis=0))
