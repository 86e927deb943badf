"""A step on a GPU: the host runs ahead, and waits for nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from maskrcnn.training.losses import LossSums, compute_losses
from maskrcnn.training.network import prepare_network
from maskrcnn.training.targets import Targets
from tests.learning import (
    CONFIG,
    draw_sample,
    draw_samples,
    inject_proposals,
    new_learner,
    normal_images,
    padded_shape,
    start_network,
)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_never_waits(precision: Any) -> None:
    learner = new_learner(replace(CONFIG, precision=precision, ema_decay=0.9), start_network().cuda())
    crowd = torch.zeros(64, 64, dtype=torch.bool)
    crowd[:, :20] = True
    samples = [sample.pin_memory() for sample in (*draw_samples(1, 2), replace(draw_sample(3), ignored=crowd))]
    shape = padded_shape(samples)
    learner.step(samples, 0, shape).read()  # makes the anchors of the shape, which is done once
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending = learner.step(samples, 1, shape, notices=(1.0,))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert pending.read().is_finite


@pytest.mark.gpu
def test_a_gpu_chooses_and_computes_what_a_cpu_does() -> None:
    samples = draw_samples(1, 2, 3)
    found: list[LossSums] = []
    for device in (torch.device("cpu"), torch.device("cuda")):
        network = prepare_network(start_network().to(device), CONFIG).train()
        inject_proposals(network, samples, device)
        images = normal_images(samples, padded_shape(samples)).to(device)
        found.append(compute_losses(network, images, Targets.of(samples, device, CONFIG.seed)))
    assert found[1].counts.cpu().equal(found[0].counts)
    torch.testing.assert_close(found[1].sums.cpu(), found[0].sums, rtol=1e-2, atol=1e-2)
