"""Anchors matched for a whole batch by their grid: exactly as torchvision matches pairs of boxes, image by image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from maskrcnn.training import anchors as anchors_module
from maskrcnn.training.anchors import AnchorCache, Anchors, match_anchors, pairwise_iou

SHAPE = (96, 160)


def _levels(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.zeros(2, 1, -(-SHAPE[0] // stride), -(-SHAPE[1] // stride), dtype=dtype) for stride in (8, 16, 32)]


def _generator() -> AnchorGenerator:
    return AnchorGenerator(((16,), (32, 40), (64,)), ((0.5, 1.0, 2.0),) * 3)


def _anchors() -> Anchors:
    return AnchorCache(_generator()).anchors_of(torch.zeros(2, 3, *SHAPE), _levels())


def _boxes(num: int, seed: int, *, whole: bool) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(num, 2, generator=generator) * torch.tensor([SHAPE[1] - 10.0, SHAPE[0] - 10.0])
    boxes = torch.cat([corner, corner + 2 + torch.rand(num, 2, generator=generator) * 60], 1)
    return boxes.round() if whole else boxes


def test_anchors_are_torchvisions_and_remembered() -> None:
    cache = AnchorCache(_generator())
    images = torch.zeros(2, 3, *SHAPE)
    found = cache.anchors_of(images, _levels(torch.bfloat16))
    [expected, _] = _generator()(ImageList(images, [SHAPE, SHAPE]), _levels())
    assert found.boxes.equal(expected)
    assert found.boxes.dtype == torch.float32
    assert sum(found.num_of_level) == len(expected)
    assert cache.anchors_of(images, _levels()) is found


@pytest.mark.parametrize("max_pairs", [1, 20_000, 1 << 24])
@pytest.mark.parametrize("whole", [True, False], ids=["whole px, many ties", "any px"])
def test_matches_are_torchvisions(max_pairs: int, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors_module, "_MAX_PAIRS", max_pairs)
    anchors = _anchors()
    truths = [_boxes(num, seed, whole=whole) for seed, num in enumerate((12, 1, 0))]
    padded = torch.nn.utils.rnn.pad_sequence(truths, batch_first=True)
    is_truth = torch.arange(12) < torch.tensor([[12], [1], [0]])
    labels, matched = match_anchors(anchors, padded, is_truth, 0.7, 0.3)
    matcher = Matcher(0.7, 0.3, allow_low_quality_matches=True)
    for its_truths, its_labels, its_matched in zip(truths[:2], labels, matched, strict=False):
        expected = matcher(box_iou(its_truths, anchors.boxes))
        assert its_labels.equal(torch.where(expected >= 0, 1, torch.where(expected == -1, 0, -1)).to(torch.int8))
        assert its_matched[expected >= 0].equal(expected[expected >= 0])
        assert set(its_labels.tolist()) == {-1, 0, 1}
    assert not labels[2].any()


def test_overlaps_of_pairs_are_torchvisions() -> None:
    truths, boxes = (torch.stack([_boxes(num, seed, whole=False) for seed in (0, 1)]) for num in (5, 9))
    expected = torch.stack([box_iou(*pair) for pair in zip(truths, boxes, strict=True)])
    torch.testing.assert_close(pairwise_iou(truths, boxes), expected)
    nothing = torch.zeros(2, 1, 4)
    assert not pairwise_iou(nothing, boxes).any()
    assert not pairwise_iou(nothing, nothing).any()
