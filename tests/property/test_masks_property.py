"""Masks encoded inside their boxes equal masks pasted into the whole image and encoded there."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import event, given, settings
from pycocotools import mask as reference
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from maskrcnn.coco.rle import to_mask
from maskrcnn.model import masks
from maskrcnn.model.masks import encode_instance_masks


def pasted_and_encoded(probs: Tensor, box: Tensor, size: tuple[int, int], threshold: float) -> dict[str, Any]:
    """Encode one mask the slow way; where torchvision raises, nothing is visible."""
    try:
        pasted = paste_masks_in_image(probs[None, None], box[None], size)[0, 0] > threshold
    except RuntimeError:
        pasted = torch.zeros(size, dtype=torch.bool)
        event("torchvision raised")
    encoded: dict[str, Any] = reference.encode(np.asfortranarray(pasted.numpy().astype(np.uint8)))
    return encoded


@st.composite
def image_sizes(draw: st.DrawFn) -> tuple[int, int]:
    return draw(st.integers(1, 90)), draw(st.integers(1, 90))


@st.composite
def boxes_on(draw: st.DrawFn, size: tuple[int, int]) -> list[float]:
    """Draw a box of any kind, in px: XYXY."""
    height, width = size
    kind = draw(
        st.sampled_from(["inside", "partly outside", "one pixel", "whole", "edges", "outside", "large", "degenerate"])
    )
    event(kind)

    def pair(side: int, low: float, high: float) -> list[float]:
        return sorted(draw(st.lists(st.floats(low * side, high * side), min_size=2, max_size=2)))

    if kind == "one pixel":
        x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        return [x, y, x + 1, y + 1]
    if kind == "whole":
        return [0, 0, width, height]
    if kind == "edges":
        return [pair(width, 0, 1)[0], pair(height, 0, 1)[0], width, height]
    if kind == "outside":
        side = draw(st.sampled_from([-1, 1]))
        x1, x2 = pair(width, 1.3, 3)
        y1, y2 = pair(height, -1, 2)
        return [side * x1, y1, side * x2, y2] if side == 1 else [-x2, y1, -x1, y2]
    low, high = {"inside": (0, 1), "partly outside": (-1, 2), "large": (-4, 5), "degenerate": (0, 1)}[kind]
    (x1, x2), (y1, y2) = pair(width, low, high), pair(height, low, high)
    return [x2, y1, x1, y2] if kind == "degenerate" else [x1, y1, x2, y2]


@st.composite
def mask_probs(draw: st.DrawFn, side: int, threshold: float) -> Tensor:
    """Draw one mask (side, side) float32: noise, a blob, or one colour."""
    fill = draw(st.sampled_from(["noise", "blob", "ones", "zeros", "under", "at", "stripes"]))
    event(fill)
    if fill in ("ones", "zeros", "under", "at"):
        value = {"ones": 1.0, "zeros": 0.0, "under": threshold * 0.9, "at": threshold}[fill]
        return torch.full((side, side), value)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    if fill == "noise":
        return torch.rand(side, side, generator=generator)
    if fill == "stripes":
        return (torch.arange(side) % 2).float().expand(side, side).contiguous()
    x = torch.linspace(-1, 1, side)
    return torch.sigmoid(9 * (0.7 - x**2 - x[:, None] ** 2) + torch.randn(side, side, generator=generator))


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Tensor, Tensor, tuple[int, int], float]:
    size = draw(image_sizes())
    side = draw(st.sampled_from([28, 28, 28, 14, 1]))
    threshold = draw(st.sampled_from([0.5, 0.5, 0.0, 1.0, 0.25]) | st.floats(0, 1))
    num_masks = draw(st.integers(1, 4))
    probs = torch.stack([draw(mask_probs(side, threshold)) for _ in range(num_masks)])
    boxes = torch.tensor([draw(boxes_on(size)) for _ in range(num_masks)], dtype=torch.float32)
    return probs, boxes, size, threshold


@settings(max_examples=400, deadline=None)
@given(scene=scenes())
def test_equal_to_paste_and_encode_bit_for_bit(scene: tuple[Tensor, Tensor, tuple[int, int], float]) -> None:
    probs, boxes, size, threshold = scene
    expected = [pasted_and_encoded(mask, box, size, threshold) for mask, box in zip(probs, boxes, strict=True)]
    assert encode_instance_masks(probs, boxes, size, threshold) == expected
    assert encode_instance_masks(probs[:, None], boxes, size, threshold) == expected


@settings(max_examples=200, deadline=None)
@given(scene=scenes(), cells_at_once=st.sampled_from([1, 300, 2**21]))
def test_together_equals_one_by_one_but_for_ties(
    scene: tuple[Tensor, Tensor, tuple[int, int], float], cells_at_once: int
) -> None:
    probs, boxes, size, threshold = scene
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "MAX_CELLS_AT_ONCE", cells_at_once)
        patch.setattr(masks.Places, "is_oversized", masks.Places.is_visible)
        together = encode_instance_masks(probs, boxes, size, threshold)
    for rle, mask, box in zip(together, probs, boxes, strict=True):
        assert_equal_but_for_ties(to_mask(rle), mask, box, size, threshold)


def assert_equal_but_for_ties(
    ours: np.ndarray[Any, Any], probs: Tensor, box: Tensor, size: tuple[int, int], threshold: float
) -> None:
    try:
        pasted = paste_masks_in_image(probs[None, None], box[None], size)[0, 0]
    except RuntimeError:
        assert not ours.any()
        return
    differs = ours != (pasted > threshold).numpy()
    assert (np.abs(pasted.numpy()[differs] - threshold) <= 1e-4).all()
