"""Proposals and detections of a whole batch are those that torchvision finds image by image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNN

from maskrcnn.model import nms
from maskrcnn.model.box_head import BoxRule, find_boxes
from maskrcnn.model.proposals import ProposalRule, Proposals, propose
from tests.live_network import build_small_network

SHAPE = (64, 96)
SIZES = [(64, 96), (40, 90), (64, 33)]


@pytest.fixture(scope="module")
def network() -> MaskRCNN:
    return build_small_network()


@pytest.fixture(params=["loop", "together"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run both kinds of NMS, the one for CUDA on CPU tensors."""
    if request.param == "together":
        monkeypatch.setattr(nms, "_loop", nms.settle_together)
    return str(request.param)


def draw_rpn_answers(num_levels: int = 5) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    grids = [(-(-SHAPE[0] // stride), -(-SHAPE[1] // stride)) for stride in (4, 8, 16, 32, 64)][:num_levels]
    objectness = [torch.randn(len(SIZES), 3, *grid, generator=generator) * 3 for grid in grids]
    deltas = [torch.randn(len(SIZES), 12, *grid, generator=generator) / 2 for grid in grids]
    return objectness, deltas


@pytest.mark.usefixtures("way")
def test_torchvisions_proposals(network: MaskRCNN, monkeypatch: pytest.MonkeyPatch) -> None:
    objectness, deltas = draw_rpn_answers()
    rpn = network.rpn
    monkeypatch.setattr(rpn, "pre_nms_top_n", lambda: 300)
    monkeypatch.setattr(rpn, "post_nms_top_n", lambda: 120)
    monkeypatch.setattr(rpn.head, "forward", lambda levels: (objectness, deltas))
    monkeypatch.setattr(rpn, "min_size", 9.0)
    features = {str(level): scores for level, scores in enumerate(objectness)}
    expected, _ = rpn(ImageList(torch.zeros(len(SIZES), 3, *SHAPE), SIZES), features)
    rule = ProposalRule.of(rpn, torch.device("cpu"))
    found = propose(objectness, deltas, torch.tensor(SIZES).float(), SHAPE, rule)
    assert found.is_settled
    for boxes, is_real, theirs in zip(found.boxes, found.is_real, expected, strict=True):
        assert 10 < len(theirs) == int(is_real.sum())
        torch.testing.assert_close(boxes[is_real], theirs, rtol=1e-5, atol=1e-4)
        assert is_real[: len(theirs)].all()
        assert not boxes[~is_real].any()
    trimmed = found.without_tail()
    assert trimmed.boxes.shape[1] == max(map(len, expected))


def test_answers_that_are_no_numbers_give_no_proposals(network: MaskRCNN) -> None:
    objectness, deltas = draw_rpn_answers()
    objectness[0][0] = torch.nan
    deltas[1][0] = torch.inf
    found = propose(
        objectness, deltas, torch.tensor(SIZES).float(), SHAPE, ProposalRule.of(network.rpn, torch.device("cpu"))
    )
    assert found.boxes.isfinite().all()
    assert found.is_real.any(1).all()


def draw_head_answers(num_labels: int) -> tuple[Tensor, Tensor, Proposals]:
    generator = torch.Generator().manual_seed(5)
    num = 60
    corners = torch.rand(len(SIZES), num, 2, generator=generator) * 30
    boxes = torch.cat([corners, corners + 5 + 30 * torch.rand(len(SIZES), num, 2, generator=generator)], dim=2)
    is_real = torch.arange(num) < torch.tensor([[60], [41], [0]])
    logits = torch.randn(len(SIZES) * num, num_labels, generator=generator) * 2
    deltas = torch.randn(len(SIZES) * num, 4 * num_labels, generator=generator)
    return logits, deltas, Proposals(boxes * is_real[:, :, None], is_real, torch.tensor(True))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("max_detections", [3, 1000])
def test_torchvisions_detections(network: MaskRCNN, max_detections: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, deltas, proposals = draw_head_answers(6)
    heads = network.roi_heads
    for name, value in (("score_thresh", 0.1), ("nms_thresh", 0.4), ("detections_per_img", max_detections)):
        monkeypatch.setattr(heads, name, value)
    real = [boxes[is_real] for boxes, is_real in zip(proposals.boxes, proposals.is_real, strict=True)]
    is_real = proposals.is_real.flatten()
    expected = heads.postprocess_detections(logits[is_real], deltas[is_real], real, SIZES)
    rule = BoxRule((10.0, 10.0, 5.0, 5.0), 0.1, 0.4, max_detections)
    found = find_boxes(logits, deltas, proposals, torch.tensor(SIZES).float(), rule)
    assert found.is_whole
    assert found.num_found.tolist() == [len(scores) for scores in expected[1]]
    assert found.num_found[0] > 2
    for image, num in enumerate(found.num_found.tolist()):
        torch.testing.assert_close(found.boxes[image, :num], expected[0][image], rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(found.scores[image, :num], expected[1][image])
        assert torch.equal(found.labels[image, :num], expected[2][image])
        assert (found.scores[image, num:] < 0).all()


def test_too_few_candidates_are_told_unless_they_are_enough() -> None:
    logits, deltas, proposals = draw_head_answers(6)
    sizes = torch.tensor(SIZES).float()
    many = find_boxes(logits, deltas, proposals, sizes, BoxRule((10, 10, 5, 5), 0.1, 0.4, 50), num_candidates=20)
    assert not many.is_whole
    few = BoxRule((10, 10, 5, 5), 0.1, 0.4, 2)
    found = find_boxes(logits[:60], deltas[:60], first_image(proposals), sizes[:1], few, num_candidates=20)
    assert found.is_whole
    whole = find_boxes(logits[:60], deltas[:60], first_image(proposals), sizes[:1], few)
    assert torch.equal(found.boxes, whole.boxes)
    assert torch.equal(found.scores, whole.scores)


def first_image(proposals: Proposals) -> Proposals:
    return Proposals(proposals.boxes[:1], proposals.is_real[:1], proposals.is_settled)
