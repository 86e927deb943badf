"""Boxes relative to others are torchvision's, and undone."""

from __future__ import annotations

import torch
from torchvision.models.detection._utils import BoxCoder

from maskrcnn.model.boxes import clip_boxes, decode_boxes, encode_boxes


def test_box_coding_is_torchvisions_and_undone() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 40, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 5 + torch.rand(2, 40, 2, generator=generator) * 20], 2)
    for weights in ((1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)):
        coder = BoxCoder(weights)
        deltas = encode_boxes(boxes[0], boxes[1], weights)
        torch.testing.assert_close(deltas, coder.encode_single(boxes[0], boxes[1]), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(decode_boxes(deltas, boxes[1], weights), boxes[0])
        wild = deltas * 40
        torch.testing.assert_close(decode_boxes(wild, boxes[1], weights), coder.decode_single(wild, boxes[1]))


def test_boxes_are_cut_at_their_own_images_edges() -> None:
    boxes = torch.tensor([[[-5.0, -1, 30, 40]], [[3, 4, 90, 90]]])
    clipped = clip_boxes(boxes, torch.tensor([[20.0, 10], [50, 60]]))
    assert clipped.tolist() == [[[0, 0, 10, 20]], [[3, 4, 60, 50]]]
