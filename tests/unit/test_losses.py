"""The five losses: torchvision's own, image by image, whatever lies beside; and areas from which nothing is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from maskrcnn.training.losses import LOSS_NAMES, Target
from maskrcnn.training.network import KeyedSampler, prepare_network
from maskrcnn.training.samples import Sample
from tests.learning import (
    CONFIG,
    FullMasks,
    draw_sample,
    empty_sample,
    inject_proposals,
    jittered_boxes,
    padded_shape,
    start_network,
    sums_of,
    torchvision_target,
)

MIXED = (draw_sample(0, 96, 64), draw_sample(1, 64, 96), draw_sample(3), empty_sample())


def _prepared(samples: Sequence[Sample]) -> Any:
    network = prepare_network(start_network(), CONFIG)
    network.train()
    inject_proposals(network, samples)
    return network


def _torchvision_losses(network: Any, samples: Sequence[Sample]) -> list[float]:
    for sampler in (network.rpn.fg_bg_sampler, network.roi_heads.fg_bg_sampler):
        sampler.keys = [sample.key for sample in samples]
    images = [sample.image.float() / 255 for sample in samples]
    losses = network(images, [torchvision_target(sample) for sample in samples])
    return [float(losses[name].detach()) for name in LOSS_NAMES]


@pytest.mark.parametrize(
    ("samples", "num_losses"), [(MIXED, 5), (MIXED[:1], 5), (MIXED[3:], 2)], ids=["mixed", "one", "negative"]
)
def test_sums_over_counts_are_torchvisions_losses(samples: Sequence[Sample], num_losses: int) -> None:
    network = _prepared(samples)
    targets = [
        Target(its["boxes"], its["labels"], FullMasks(its["masks"]), None, sample.size)
        for sample, its in ((sample, torchvision_target(sample)) for sample in samples)
    ]
    ours = sums_of(network, samples, padded_shape(samples), targets)
    expected = _torchvision_losses(network, samples)
    assert ours.total(ours.counts).tolist() == pytest.approx(expected, rel=1e-5)
    assert sum(value > 0 for value in expected) == num_losses
    ours_with_grids = sums_of(network, samples, padded_shape(samples))
    assert ours_with_grids.total(ours.counts).tolist() == pytest.approx(expected, rel=1e-2)


def test_sums_have_torchvisions_gradient() -> None:
    gradients = []
    for is_ours in (True, False):
        network = _prepared(MIXED)
        if is_ours:
            ours = sums_of(network, MIXED, padded_shape(MIXED))
            ours.total(ours.counts).sum().backward()  # type: ignore[no-untyped-call]
        else:
            for sampler in (network.rpn.fg_bg_sampler, network.roi_heads.fg_bg_sampler):
                sampler.keys = [sample.key for sample in MIXED]
            images = [sample.image.float() / 255 for sample in MIXED]
            sum(network(images, [torchvision_target(sample) for sample in MIXED]).values()).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-3


def test_counts_are_of_what_was_chosen() -> None:
    network = _prepared(MIXED)
    recorded = _record(network)
    ours = sums_of(network, MIXED, padded_shape(MIXED))
    (_, anchors), (_, rois) = recorded
    num_positive = sum(int(marks.sum()) for marks in rois[0])
    assert num_positive > 4
    num_rois, num_anchors = (sum(int(marks.sum()) for side in chosen for marks in side) for chosen in (rois, anchors))
    assert ours.counts.tolist() == [num_anchors, num_rois, num_positive * 28 * 28]


def test_counting_alone_counts_the_same_and_sums_nothing() -> None:
    network = _prepared(MIXED)
    network.roi_heads.box_head = network.roi_heads.mask_head = None  # not called
    counted = sums_of(network, MIXED, padded_shape(MIXED), counts_only=True)
    assert counted.counts.equal(sums_of(_prepared(MIXED), MIXED, padded_shape(MIXED)).counts)
    assert counted.sums.shape == (5, 4)
    assert not counted.sums.any()


def test_batch_mates_do_not_change_an_images_sums() -> None:
    shape = (96, 96)
    together = sums_of(_prepared(MIXED), MIXED, shape)
    for place, sample in enumerate(MIXED):
        alone = sums_of(_prepared(MIXED), [sample], shape)
        torch.testing.assert_close(alone.sums[:, 0], together.sums[:, place], rtol=1e-5, atol=1e-6)
    assert len(set(together.sums.sum(0).tolist())) == len(MIXED)


def test_a_share_is_divided_by_the_counts_of_the_global_batch() -> None:
    ours = sums_of(_prepared(MIXED), MIXED, padded_shape(MIXED))
    total = ours.total(torch.tensor([10.0, 20.0, 0.0]))
    sums = ours.sums.sum(1)
    expected = [sums[0] / 20, sums[1] / 20, sums[2], sums[3] / 10, sums[4] / 10]
    assert total.tolist() == pytest.approx(torch.stack(expected).tolist())


def _record(network: Any) -> list[tuple[list[Tensor], Any]]:
    """Keep what the samplers of anchors and of RoIs are given, and what they choose."""
    recorded: list[tuple[list[Tensor], Any]] = []

    class Recorder(KeyedSampler):
        def __call__(self, matched_idxs: list[Tensor]) -> Any:
            chosen = super().__call__(matched_idxs)
            recorded.append(([labels.clone() for labels in matched_idxs], chosen))
            return chosen

    for part in (network.rpn, network.roi_heads):
        part.fg_bg_sampler.__class__ = Recorder
    return recorded


def _share_within(boxes: Tensor, left: float, top: float, right: float, bottom: float) -> Tensor:
    """Give the share of each box that lies in one rectangle."""
    boxes = boxes.double()
    across = (boxes[:, 2].clamp(max=right) - boxes[:, 0].clamp(min=left)).clamp(min=0)
    down = (boxes[:, 3].clamp(max=bottom) - boxes[:, 1].clamp(min=top)).clamp(min=0)
    return across * down / ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


@pytest.mark.parametrize("scale", [1, 2], ids=["in the network's px", "in px of half the size"])
def test_what_lies_half_in_an_ignored_area_is_neither_an_instance_nor_background(scale: int) -> None:
    area = (24, 16, 64, 64)
    ignored = torch.zeros(64 // scale, 64 // scale, dtype=torch.bool)
    ignored[area[1] // scale : area[3] // scale, area[0] // scale : area[2] // scale] = True
    samples = [draw_sample(0), draw_sample(3)]
    with_crowd = [replace(samples[0], ignored=ignored), samples[1]]
    proposals = jittered_boxes(samples[0].boxes, samples[0].size, seed=0)
    candidates = (_anchors(padded_shape(samples)), torch.cat([proposals, samples[0].boxes]))
    recorded, sums = [], []
    for batch in (samples, with_crowd):
        network = _prepared(samples)
        records = _record(network)
        sums.append(sums_of(network, batch, (64, 64)))
        recorded.append(records)
    for boxes, (plain, _), (crowded, chosen) in zip(candidates, *recorded, strict=True):
        is_ignored = _share_within(boxes, *area) >= 0.5
        assert plain[1].equal(crowded[1])
        assert plain[0][~is_ignored].equal(crowded[0][~is_ignored])
        assert (crowded[0][is_ignored] == -1).all()
        # Among the ignored were instances and background, and so there are among the rest.
        for labels in (plain[0][is_ignored], plain[0][~is_ignored]):
            assert (labels > 0).any()
            assert (labels == 0).any()
        assert not (chosen[0][0] | chosen[1][0])[is_ignored].any()
    assert sums[0].sums[:, 1].equal(sums[1].sums[:, 1])
    assert not sums[0].sums[:, 0].equal(sums[1].sums[:, 0])


def _anchors(shape: tuple[int, int]) -> Tensor:
    from torchvision.models.detection.image_list import ImageList

    network = start_network()
    images = torch.zeros(1, 3, *shape)
    levels = list(network.backbone(images).values())
    anchors: Tensor = network.rpn.anchor_generator(ImageList(images, [shape]), levels)[0]
    return anchors
