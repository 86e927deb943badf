"""One update: what moves, by how much, and that it does not matter how a global batch is divided."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from maskrcnn.training.losses import COUNT_OF_LOSS, LOSS_NAMES
from maskrcnn.training.network import prepare_network
from maskrcnn.training.schedule import ScheduleConfig, learning_rate_at
from tests.learning import (
    CONFIG,
    are_equal,
    draw_sample,
    draw_samples,
    empty_sample,
    farthest,
    inject_proposals,
    learn,
    new_learner,
    normal_images,
    padded_shape,
    start_network,
    state_of,
    sums_of,
    weights_of,
)

UNCLIPPED = replace(CONFIG, max_grad_norm=1e9)


def test_steps_on_one_batch_lower_its_loss() -> None:
    results = learn(new_learner(), draw_samples(1, 2), range(14))
    assert tuple(results[0].losses) == LOSS_NAMES
    assert results[0].loss == pytest.approx(sum(results[0].losses.values()))
    # Proposals come and go, and the loss with them.
    assert sum(result.loss for result in results[-5:]) / 5 < 0.85 * results[0].loss
    assert all(result.is_finite and not result.is_out_of_memory for result in results)
    assert [result.step for result in results] == list(range(14))


def test_the_same_step_is_the_same_whatever_was_drawn_before() -> None:
    states = []
    for noise in (0, 7):
        learner = new_learner()
        torch.manual_seed(noise)
        np.random.seed(noise)
        learn(learner, draw_samples(1), range(2))
        states.append(state_of(learner))
    assert are_equal(*states)
    other = new_learner(replace(CONFIG, seed=1))
    learn(other, draw_samples(1), range(2))
    assert not are_equal(states[0], state_of(other))


def test_the_learning_rate_of_each_step_is_the_schedules() -> None:
    schedule = ScheduleConfig(learning_rate=0.004, max_steps=6, warmup_steps=2, decay="cosine")
    learner = new_learner(replace(CONFIG, schedule=schedule, weight_decay=0, momentum=0, max_grad_norm=1e9))
    rates = [learning_rate_at(step, schedule) for step in range(6)]
    assert len(set(rates)) == 6
    bias = learner.network.rpn.head.cls_logits.bias
    for step, rate in enumerate(rates):
        before = bias.detach().clone()
        [result] = learn(learner, draw_samples(1), range(step, step + 1))
        assert result.learning_rate == rate
        torch.testing.assert_close(bias.detach(), before - rate * bias.grad, rtol=1e-6, atol=1e-9)


def test_long_gradients_are_shortened_and_reported_as_they_were() -> None:
    moves, norms = [], []
    for max_grad_norm in (1e9, 0.01):
        learner = new_learner(replace(CONFIG, max_grad_norm=max_grad_norm, weight_decay=0))
        before = weights_of(learner.network)
        [result] = learn(learner, draw_samples(1), range(1))
        after = weights_of(learner.network)
        moves.append(torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)]).double())
        norms.append(result.grad_norm)
    assert norms[0] == norms[1] > 1
    assert float(moves[0].norm()) == pytest.approx(0.002 * norms[0], rel=1e-3)
    assert float(moves[1].norm()) == pytest.approx(0.002 * 0.01, rel=1e-2)


def test_short_gradients_are_left_alone() -> None:
    states = []
    for max_grad_norm in (1e9, 1e5):
        learner = new_learner(replace(CONFIG, max_grad_norm=max_grad_norm))
        learn(learner, draw_samples(1), range(1))
        states.append(state_of(learner))
    assert are_equal(*states)


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_micro_batches_teach_what_one_large_one_does(micro_batch_size: int) -> None:
    # 1, 4, 0 and 5 instances, of three sizes; a mean of each image's means is something else.
    samples = [draw_sample(1, 64, 96), draw_sample(3), empty_sample(), draw_sample(4, 96, 64)]
    shape = padded_shape(samples)
    config = replace(UNCLIPPED, rois_per_image=64, proposals_per_image=64)
    whole, parts = new_learner(config), new_learner(replace(config, micro_batch_size=micro_batch_size))
    each = [sums_of(whole.network, [sample], shape) for sample in samples]
    assert len({tuple(one.counts.tolist()) for one in each}) > 2
    means = torch.stack([one.total(one.counts) for one in each]).mean(0).detach()
    counts = torch.stack([one.counts for one in each]).sum(0)
    together = torch.stack([one.sums.sum(1) for one in each]).sum(0) / counts[list(COUNT_OF_LOSS)]
    for step in range(2):
        [expected] = learn(whole, samples, range(step, step + 1))
        [result] = learn(parts, samples, range(step, step + 1))
        if step == 0:
            assert list(expected.losses.values()) == pytest.approx(together.tolist(), rel=1e-5)
            assert abs(float(means.sum()) / expected.loss - 1) > 0.05
        assert result.losses == pytest.approx(expected.losses, rel=1e-5)
        assert result.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)
    assert farthest(weights_of(whole.network), weights_of(parts.network)) < 1e-5
    assert farthest(weights_of(whole.network), weights_of(start_network())) > 1e-3


def test_an_image_without_instances_teaches_background() -> None:
    learner = new_learner()
    before = weights_of(learner.network)
    [result] = learn(learner, [empty_sample()], range(1))
    assert result.losses["loss_box_reg"] == result.losses["loss_mask"] == result.losses["loss_rpn_box_reg"] == 0
    assert result.losses["loss_objectness"] > 0
    assert result.losses["loss_classifier"] > 0
    assert result.is_finite
    assert farthest(before, weights_of(learner.network)) > 1e-4


def test_images_without_instances_go_through_heads_with_batch_norms() -> None:
    learner = new_learner(network=start_network("batch", "v2"))
    assert all(result.is_finite for result in learn(learner, [empty_sample()] * 2, range(2)))
    assert all(bool(buffer.isfinite().all()) for buffer in learner.network.buffers())


def test_an_image_that_is_ignored_all_over_teaches_no_more_than_its_edge() -> None:
    covered = replace(empty_sample(), ignored=torch.ones(64, 64, dtype=torch.bool))
    [result] = learn(new_learner(), [covered], range(1))
    assert result.is_finite
    assert result.losses["loss_classifier"] == result.losses["loss_box_reg"] == result.losses["loss_mask"] == 0


def test_an_empty_share_learns_nothing_of_its_own() -> None:
    learner = new_learner(replace(CONFIG, weight_decay=0))
    before = state_of(learner)
    result = learner.step([], 0, (64, 64), first_place=4, num_places=4, notices=(2.0,)).read()
    assert (result.loss, result.grad_norm, result.notices) == (0, 0, (2.0,))
    assert result.is_finite
    assert are_equal(before, state_of(learner))


def test_notices_come_back() -> None:
    learner = new_learner()
    assert learner.step(draw_samples(1), 0, (64, 64), notices=(1.5, 0.0, -3.0)).read().notices == (1.5, 0.0, -3.0)
    assert learner.step(draw_samples(1), 1, (64, 64)).read().notices == ()


def test_the_moving_average_follows_and_the_network_does_not_notice() -> None:
    plain, averaging = new_learner(), new_learner(replace(CONFIG, ema_decay=0.3))
    expected = weights_of(averaging.network)
    for step in range(4):
        for learner in (plain, averaging):
            learn(learner, draw_samples(1), range(step, step + 1))
        decay = min(0.3, (2 + step) / (11 + step))
        now = weights_of(averaging.network)
        expected = [decay * old + (1 - decay) * new for old, new in zip(expected, now, strict=True)]
    assert averaging.average is not None
    assert farthest(averaging.average.weights, expected) < 1e-6
    assert are_equal(weights_of(plain.network), weights_of(averaging.network))
    twin = averaging.average.averaged(averaging.network)
    assert are_equal(weights_of(twin), averaging.average.weights)
    assert farthest(weights_of(twin), weights_of(averaging.network)) > 1e-4


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_frozen_stages_keep_their_weights(optimizer: Any) -> None:
    learner = new_learner(replace(CONFIG, frozen_stages=2, weight_decay=0.1, optimizer=optimizer, ema_decay=0.5))
    names = [name for name, _ in learner.network.named_parameters()]
    before = weights_of(learner.network)
    learn(learner, draw_samples(1, 2, 3, 4, 5), range(2))
    moved = {
        name for name, old, new in zip(names, before, learner.network.parameters(), strict=True) if not old.equal(new)
    }
    frozen = {name for name in names if name.startswith(("backbone.body.conv1", "backbone.body.layer1"))}
    assert len(frozen) == 5
    assert moved == set(names) - frozen
    assert learner.average is not None
    assert len(learner.average.weights) == len(moved)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batch_norms_of_frozen_stages_learn_nothing(precision: Any) -> None:
    config = replace(CONFIG, frozen_stages=2, precision=precision)
    learner = new_learner(config, start_network(norm="batch"))
    body = learner.network.backbone.module.body if precision == "bf16" else learner.network.backbone.body
    frozen, learning = body.layer1[0].bn1, body.layer2[0].bn1
    before = [norm.running_mean.clone() for norm in (body.bn1, frozen, learning)]
    learn(learner, draw_samples(1, 2), range(1))
    assert body.bn1.running_mean.equal(before[0])
    assert frozen.running_mean.equal(before[1])
    assert not learning.running_mean.equal(before[2])


def test_bf16_computes_nearly_the_same_and_keeps_weights_and_losses_in_fp32() -> None:
    results = {}
    for precision in ("fp32", "bf16"):
        learner = new_learner(replace(UNCLIPPED, precision=precision))  # type: ignore[arg-type]
        inject_proposals(learner.network, draw_samples(1, 2))
        results[precision] = learn(learner, draw_samples(1, 2), range(3))
        assert all(parameter.dtype == torch.float32 for parameter in learner.network.parameters())
    for half, full in zip(results["bf16"], results["fp32"], strict=True):
        assert half.losses != full.losses
        assert half.losses == pytest.approx(full.losses, rel=0.05)
        assert half.grad_norm == pytest.approx(full.grad_norm, rel=0.05)


def test_bf16_is_used_inside_modules_only() -> None:
    network = prepare_network(start_network(), replace(CONFIG, precision="bf16"))
    sums = sums_of(network, draw_samples(1), (64, 64))
    assert sums.sums.dtype == torch.float32
    levels = list(network.backbone(torch.zeros(1, 3, 64, 64)).values())
    assert all(level.dtype == torch.bfloat16 for level in levels)
    assert all(answer.dtype == torch.float32 for answers in network.rpn.head(levels) for answer in answers)
    anchors = network.anchors.anchors_of(torch.zeros(1, 3, 64, 64), levels).boxes
    assert anchors.dtype == torch.float32


def test_norms_see_an_image_once_though_accumulation_counts_it_before() -> None:
    config = replace(CONFIG, micro_batch_size=1, global_batch_size=2)
    samples = draw_samples(1, 2)
    expected, network = start_network("batch").train(), start_network("batch")
    for module in (*expected.modules(), *network.modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1
    with torch.no_grad():
        for sample in samples:
            expected.backbone(normal_images([sample], padded_shape(samples)))
    learn(new_learner(config, network), samples, range(1))
    name = "backbone.body.bn1.running_mean"
    torch.testing.assert_close(network.state_dict()[name], expected.state_dict()[name])
