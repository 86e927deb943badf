"""Proposals: torchvision's, though only the best anchors are decoded, in as many slots for each image."""

from __future__ import annotations

import torch
from torchvision.models.detection._utils import BoxCoder

from maskrcnn.training import proposals as proposals_module
from maskrcnn.training.anchors import AnchorCache
from maskrcnn.training.box_coding import decode_boxes, encode_boxes
from maskrcnn.training.network import prepare_network
from maskrcnn.training.proposals import propose
from tests.learning import CONFIG, draw_sample, start_network, targets_of

SHAPE = (64, 96)


def test_proposals_are_torchvisions() -> None:
    network = prepare_network(start_network(), CONFIG).train()
    rpn, samples = network.rpn, [draw_sample(1, 96, 64), draw_sample(2, 64, 48)]
    levels = [torch.zeros(2, 1, -(-SHAPE[0] // stride), -(-SHAPE[1] // stride)) for stride in (4, 8, 16, 32, 64)]
    anchors = AnchorCache(rpn.anchor_generator).anchors_of(torch.zeros(2, 3, *SHAPE), levels)
    generator = torch.Generator().manual_seed(0)
    objectness = torch.randn(2, len(anchors.boxes), generator=generator) * 3
    deltas = torch.randn(2, len(anchors.boxes), 4, generator=generator) * 0.2
    deltas[:, ::7, 2:] = -30.0  # too small to be proposed
    rpn._pre_nms_top_n = {"training": 50, "testing": 50}
    decoded = rpn.box_coder.decode(deltas.flatten(0, 1), [anchors.boxes, anchors.boxes]).view(2, -1, 4)
    sizes = [sample.size for sample in samples]
    for num in (30, 400):
        rpn._post_nms_top_n = {"training": num, "testing": num}
        found = propose(rpn, objectness, deltas, anchors, targets_of(samples))
        assert found.boxes.shape == (2, num, 4)
        expected, _ = rpn.filter_proposals(decoded, objectness.flatten()[:, None], sizes, anchors.num_of_level)
        for boxes, is_real, its_expected in zip(found.boxes, found.is_real, expected, strict=True):
            assert int(is_real.sum()) == len(its_expected)
            torch.testing.assert_close(boxes[is_real], its_expected, rtol=1e-4, atol=1e-3)
            assert not boxes[~is_real].any()


def test_levels_far_apart_are_levels_taken_one_by_one() -> None:
    # As on a GPU; the offsets cost a few digits.
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(300, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 5 + torch.rand(300, 2, generator=generator) * 20], 1)
    scores, levels = torch.rand(300, generator=generator), torch.arange(300) % 3
    one_by_one = proposals_module._suppress(boxes, scores, levels, 0.5)
    apart = proposals_module._suppress_apart(boxes, scores, levels, 0.5)
    assert apart.equal(one_by_one)
    assert 20 < len(apart) < 280


def test_box_coding_is_torchvisions_and_undone() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 40, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 5 + torch.rand(2, 40, 2, generator=generator) * 20], 2)
    for weights in ((1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)):
        coder = BoxCoder(weights)
        deltas = encode_boxes(boxes[0], boxes[1], weights)
        torch.testing.assert_close(deltas, coder.encode_single(boxes[0], boxes[1]), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(decode_boxes(deltas, boxes[1], weights, coder.bbox_xform_clip), boxes[0])
        wild = deltas * 40
        expected = coder.decode_single(wild, boxes[1])
        torch.testing.assert_close(decode_boxes(wild, boxes[1], weights, coder.bbox_xform_clip), expected)
