"""The five losses: torchvision's own, image by image, whatever lies beside; and areas from which nothing is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maskrcnn.training import losses as losses_module
from maskrcnn.training.choices import Chosen
from maskrcnn.training.losses import LOSS_NAMES, compute_losses
from maskrcnn.training.network import prepare_network
from maskrcnn.training.samples import Sample
from tests.learning import (
    CONFIG,
    FullMasks,
    draw_sample,
    empty_sample,
    inject_proposals,
    jittered_boxes,
    normal_images,
    padded_shape,
    start_network,
    sums_of,
    targets_of,
    torchvision_target,
    use_our_choices,
)

MIXED = (draw_sample(0, 96, 64), draw_sample(1, 64, 96), draw_sample(3), empty_sample())


def _prepared(samples: Sequence[Sample]) -> Any:
    network = prepare_network(start_network(), CONFIG)
    network.train()
    inject_proposals(network, samples)
    return network


def _torchvision_losses(samples: Sequence[Sample]) -> tuple[Any, dict[str, Tensor]]:
    """Run torchvision's own network, with our choices; give it and its losses."""
    network = start_network().train()
    use_our_choices(network, samples, CONFIG)
    images = [sample.image.float() / 255 for sample in samples]
    return network, network(images, [torchvision_target(sample) for sample in samples])


@pytest.mark.parametrize(
    ("samples", "num_losses"), [(MIXED, 5), (MIXED[:1], 5), (MIXED[3:], 2)], ids=["mixed", "one", "negative"]
)
def test_sums_over_counts_are_torchvisions_losses(samples: Sequence[Sample], num_losses: int) -> None:
    network = _prepared(samples)
    full_masks = FullMasks([torchvision_target(sample)["masks"] for sample in samples])
    ours = sums_of(network, samples, padded_shape(samples), replace(targets_of(samples), masks=full_masks))
    _, losses = _torchvision_losses(samples)
    expected = [float(losses[name].detach()) for name in LOSS_NAMES]
    assert ours.total(ours.counts).tolist() == pytest.approx(expected, rel=1e-5)
    assert sum(value > 0 for value in expected) == num_losses
    ours_with_grids = sums_of(network, samples, padded_shape(samples))
    assert ours_with_grids.total(ours.counts).tolist() == pytest.approx(expected, rel=1e-2)


def test_sums_have_torchvisions_gradient() -> None:
    gradients = []
    for is_ours in (True, False):
        if is_ours:
            network = _prepared(MIXED)
            ours = sums_of(network, MIXED, padded_shape(MIXED))
            ours.total(ours.counts).sum().backward()  # type: ignore[no-untyped-call]
        else:
            network, losses = _torchvision_losses(MIXED)
            torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-3


def test_counts_are_of_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = _record(monkeypatch)
    ours = sums_of(_prepared(MIXED), MIXED, padded_shape(MIXED))
    (_, anchors), (_, rois) = recorded
    num_positive = int(rois.is_positive.sum())
    assert num_positive > 4
    num_rois, num_anchors = (int(chosen.is_chosen.sum()) for chosen in (rois, anchors))
    assert ours.counts.tolist() == [num_anchors, num_rois, num_positive * 28 * 28]


def test_counting_alone_counts_the_same_and_sums_nothing() -> None:
    network = _prepared(MIXED)
    network.roi_heads.box_head = network.roi_heads.mask_head = None  # not called
    counted = sums_of(network, MIXED, padded_shape(MIXED), counts_only=True)
    assert counted.counts.equal(sums_of(_prepared(MIXED), MIXED, padded_shape(MIXED)).counts)
    assert counted.sums.shape == (5, 4)
    assert not counted.sums.any()


class _Recorder(TorchDispatchMode):
    """Lists the operations that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


_WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "torchvision.nms", "repeat_interleave.Tensor")


def test_with_every_slot_nothing_waits_for_values_and_the_sums_are_the_same() -> None:
    samples = (*MIXED[1:], replace(draw_sample(4), ignored=torch.ones(8, 8, dtype=torch.bool)))
    results, gradients, waits = [], [], []
    for is_as_on_gpu in (False, True):
        network = _prepared(samples)
        network.uses_every_slot, network.pools_from_table = is_as_on_gpu, not is_as_on_gpu
        targets, shape = targets_of(samples), padded_shape(samples)
        images = normal_images(samples, shape)
        network.anchors.anchors_of(images, list(network.backbone(images).values()))
        with _Recorder() as recorder:
            sums = compute_losses(network, images, targets)
            total = sums.total(sums.counts)
            total.sum().backward()  # type: ignore[no-untyped-call]
        results.append(sums)
        waits.append([name for name in recorder.names if any(waiting in name for waiting in _WAITING)])
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    torch.testing.assert_close(results[1].sums, results[0].sums, rtol=1e-4, atol=1e-4)
    assert results[1].counts.equal(results[0].counts)
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 1e-4
    assert waits[0]
    assert waits[1] == []


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


def _record(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Chosen]]:
    """Keep the labels of anchors and of RoIs, and what is chosen."""
    recorded: list[tuple[Tensor, Chosen]] = []
    original = losses_module.choose

    def choose(labels: Tensor, *rest: Any) -> Chosen:
        recorded.append((labels, original(labels, *rest)))
        return recorded[-1][1]

    monkeypatch.setattr(losses_module, "choose", choose)
    return recorded


def _share_within(boxes: Tensor, left: float, top: float, right: float, bottom: float) -> Tensor:
    """Give the share of each box that lies in one rectangle."""
    boxes = boxes.double()
    across = (boxes[:, 2].clamp(max=right) - boxes[:, 0].clamp(min=left)).clamp(min=0)
    down = (boxes[:, 3].clamp(max=bottom) - boxes[:, 1].clamp(min=top)).clamp(min=0)
    return across * down / ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


@pytest.mark.parametrize("scale", [1, 2], ids=["in the network's px", "in px of half the size"])
def test_what_lies_half_in_an_ignored_area_is_neither_an_instance_nor_background(
    scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = (24, 16, 64, 64)
    ignored = torch.zeros(64 // scale, 64 // scale, dtype=torch.bool)
    ignored[area[1] // scale : area[3] // scale, area[0] // scale : area[2] // scale] = True
    samples = [draw_sample(0), draw_sample(3)]
    with_crowd = [replace(samples[0], ignored=ignored), samples[1]]
    proposals = jittered_boxes(samples[0].boxes, samples[0].size, seed=0)
    candidates = (_anchors(padded_shape(samples)), torch.cat([proposals, samples[0].boxes]))
    recorded = _record(monkeypatch)
    sums = [sums_of(_prepared(samples), batch, (64, 64)) for batch in (samples, with_crowd)]
    for boxes, (plain, _), (crowded, chosen) in zip(candidates, recorded[:2], recorded[2:], strict=True):
        is_ignored = _share_within(boxes, *area) >= 0.5
        is_candidate = plain[0] >= 0 if boxes is candidates[1] else slice(None)  # padded like the image beside
        plain_labels, labels = plain[0][is_candidate], crowded[0][is_candidate]
        assert plain[1].equal(crowded[1])
        assert plain_labels[~is_ignored].equal(labels[~is_ignored])
        assert (labels[is_ignored] == -1).all()
        # Among the ignored were instances and background, and so there are among the rest.
        for its_labels in (plain_labels[is_ignored], plain_labels[~is_ignored]):
            assert (its_labels > 0).any()
            assert (its_labels == 0).any()
        assert not (crowded[0][chosen.places[0][chosen.is_chosen[0]]] == -1).any()
    assert sums[0].sums[:, 1].equal(sums[1].sums[:, 1])
    assert not sums[0].sums[:, 0].equal(sums[1].sums[:, 0])


def _anchors(shape: tuple[int, int]) -> Tensor:
    from torchvision.models.detection.image_list import ImageList

    network = start_network()
    images = torch.zeros(1, 3, *shape)
    levels = list(network.backbone(images).values())
    anchors: Tensor = network.rpn.anchor_generator(ImageList(images, [shape]), levels)[0]
    return anchors
