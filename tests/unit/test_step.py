"""One update: what moves, what does not, and what stops it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig, UnusualValueWarning
from maskrcnn.errors import InputError, NonFiniteError
from maskrcnn.model.network import build_network
from maskrcnn.synthetic import CATEGORIES, draw_shelf
from maskrcnn.training.samples import Batch, collate
from maskrcnn.training.schedule import ScheduleConfig, learning_rate_at
from maskrcnn.training.step import KeyedSampler, TrainConfig, build_optimizer, prepare_network, train_step
from maskrcnn.training.transforms import Purpose, Sample, SampleKey

CONFIG = TrainConfig(
    schedule=ScheduleConfig(learning_rate=0.002, max_steps=20, decay="constant"),
    rois_per_image=16,
    anchors_per_image=32,
    precision="fp32",
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine take longer than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _network(config: TrainConfig = CONFIG) -> Any:
    torch.manual_seed(0)
    model = ModelConfig("resnet18", num_labels=5, norm="frozen", anchor_sizes_px=((8,), (16,), (32,), (64,), (96,)))
    network = build_network(model, PreprocessConfig(64, 64), ThresholdConfig())
    return prepare_network(network, config)


def _batch(*seeds: int) -> Batch:
    samples = []
    for seed in seeds:
        shelf = draw_shelf(seed, width=64, height=64, num_boards=1)
        masks = np.stack([instance.mask for instance in shelf.instances])
        boxes = [[c.min(), r.min(), c.max() + 1, r.max() + 1] for r, c in (np.nonzero(mask) for mask in masks)]
        labels = [list(CATEGORIES).index(instance.category_id) + 1 for instance in shelf.instances]
        image = torch.from_numpy(shelf.image).permute(2, 0, 1)
        boxes_px = torch.tensor(np.array(boxes), dtype=torch.float32)
        key = SampleKey(0, seed)
        samples.append(Sample(image, boxes_px, torch.tensor(labels), torch.from_numpy(masks), key, image_id=seed))
    return collate(samples)


def _weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def _gradients(network: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


def _is_equal(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def test_steps_on_one_batch_lower_its_loss() -> None:
    network = _network()
    optimizer = build_optimizer(network, CONFIG)
    results = [train_step(network, optimizer, [_batch(1, 2)], step, CONFIG) for step in range(8)]
    assert set(results[0].losses) == {
        "loss_classifier",
        "loss_box_reg",
        "loss_mask",
        "loss_objectness",
        "loss_rpn_box_reg",
    }
    assert results[0].loss == pytest.approx(sum(results[0].losses.values()))
    assert results[0].num_images == 2
    assert results[-1].loss < 0.7 * results[0].loss
    assert [result.learning_rate for result in results] == [learning_rate_at(s, CONFIG.schedule) for s in range(8)]


def test_the_same_step_is_the_same_whatever_was_drawn_before() -> None:
    weights = []
    for noise in (0, 7):
        network = _network()
        torch.manual_seed(noise)
        np.random.seed(noise)
        train_step(network, build_optimizer(network, CONFIG), [_batch(1)], 0, CONFIG)
        weights.append(_weights(network))
    assert all(one.equal(other) for one, other in zip(*weights, strict=True))


def test_accumulating_two_batches_is_the_mean_of_their_gradients() -> None:
    unclipped = replace(CONFIG, max_grad_norm=1e9)
    gradients = {}
    for name, batches in {"first": [_batch(1)], "second": [_batch(2)], "both": [_batch(1), _batch(2)]}.items():
        network = _network()
        result = train_step(network, build_optimizer(network, unclipped), batches, 0, unclipped)
        gradients[name] = _gradients(network)
        assert result.num_images == len(batches)
        assert result.grad_norm == pytest.approx(float(gradients[name].double().norm()), rel=1e-4)
    torch.testing.assert_close(gradients["both"], (gradients["first"] + gradients["second"]) / 2, rtol=1e-3, atol=1e-5)


def test_long_gradients_are_clipped_and_reported_as_they_were() -> None:
    clipped = replace(CONFIG, max_grad_norm=0.01)
    network = _network(clipped)
    result = train_step(network, build_optimizer(network, clipped), [_batch(1)], 0, clipped)
    assert result.grad_norm > 0.1
    assert float(_gradients(network).double().norm()) == pytest.approx(0.01, rel=1e-3)


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_images() -> None:
    network = _network()
    nn.init.constant_(network.roi_heads.box_predictor.cls_score.bias, float("nan"))
    before = _weights(network)
    with pytest.raises(NonFiniteError) as caught:
        train_step(network, build_optimizer(network, CONFIG), [_batch(4), _batch(9)], 3, CONFIG)
    assert caught.value.step == 3
    assert caught.value.image_ids == (4, 9)
    assert "step 3 must give finite losses and gradients" in str(caught.value)
    assert "loss_classifier nan" in str(caught.value)
    assert "on images 4, 9" in str(caught.value)
    assert all(
        one.equal(
            other,
        )
        or one.isnan().any()
        for one, other in zip(before, _weights(network), strict=True)
    )


def test_a_network_that_was_not_prepared_is_refused() -> None:
    model = ModelConfig("resnet18", num_labels=5)
    network = build_network(model, PreprocessConfig(64, 64), ThresholdConfig())
    with pytest.raises(TypeError, match="the network that prepare_network returns"):
        train_step(network, build_optimizer(network, CONFIG), [_batch(1)], 0, CONFIG)


def test_preparing_shares_the_weights_and_leaves_the_original_as_it_was() -> None:
    model = ModelConfig("resnet18", num_labels=5)
    network = build_network(model, PreprocessConfig(64, 64), ThresholdConfig())
    names, samplers = list(network.state_dict()), (network.rpn.fg_bg_sampler, network.roi_heads.fg_bg_sampler)
    prepared = prepare_network(network, replace(CONFIG, precision="bf16"))
    assert list(network.state_dict()) == names
    assert (network.rpn.fg_bg_sampler, network.roi_heads.fg_bg_sampler) == samplers
    assert network.rpn.post_nms_top_n() == 2000
    assert prepare_network(network, replace(CONFIG, proposals_per_image=77)).rpn.post_nms_top_n() == 77
    assert {id(parameter) for parameter in prepared.parameters()} == {id(p) for p in network.parameters()}


def test_bf16_computes_nearly_the_same_losses() -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        config = replace(CONFIG, precision=precision)
        network = _network(config)
        losses[precision] = train_step(network, build_optimizer(network, config), [_batch(1)], 0, config).losses
        assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    assert losses["bf16"] != losses["fp32"]
    # Proposals may change places, so the heads' losses are of other RoIs.
    assert losses["bf16"]["loss_objectness"] == pytest.approx(losses["fp32"]["loss_objectness"], rel=0.05)
    assert sum(losses["bf16"].values()) == pytest.approx(sum(losses["fp32"].values()), rel=0.25)


def test_an_image_without_instances_teaches_background() -> None:
    empty = collate(
        [
            Sample(
                torch.zeros(3, 64, 64, dtype=torch.uint8),
                torch.zeros(0, 4),
                torch.zeros(0, dtype=torch.int64),
                torch.zeros(0, 64, 64, dtype=torch.bool),
            )
        ]
    )
    network = _network()
    result = train_step(network, build_optimizer(network, CONFIG), [empty], 0, CONFIG)
    assert result.losses["loss_box_reg"] == result.losses["loss_mask"] == 0
    assert result.losses["loss_objectness"] > 0


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_norms_and_biases_are_not_decayed(name: Any, kind: type) -> None:
    model = ModelConfig("resnet18", num_labels=5, norm="batch")
    network = build_network(model, PreprocessConfig(64, 64), ThresholdConfig())
    optimizer = build_optimizer(network, TrainConfig(optimizer=name, schedule=ScheduleConfig(0.001), weight_decay=0.05))
    assert isinstance(optimizer, kind)
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(network.named_parameters())
    assert set(decay_of) == {id(parameter) for parameter in named.values()}
    assert decay_of[id(named["backbone.body.conv1.weight"])] == 0.05
    assert decay_of[id(named["backbone.body.bn1.weight"])] == 0
    assert decay_of[id(named["rpn.head.cls_logits.bias"])] == 0


def test_the_sampler_keeps_torchvisions_counts() -> None:
    matched = torch.tensor([-1] * 5 + [0] * 60 + [1, 2, 2] * 5)
    sampler = KeyedSampler(32, 0.25, seed=0, purpose=Purpose.ROIS)
    sampler.keys = [SampleKey(0, 0), SampleKey(0, 1), SampleKey(0, 2)]
    few_positive, few_negative = matched[:-13], matched[60:]
    positive, negative = sampler([matched, few_positive, few_negative])
    assert [int(p.sum()) for p in positive] == [8, 2, 8]
    assert [int(n.sum()) for n in negative] == [24, 30, 5]
    for mark, is_candidate in ((positive[0], matched >= 1), (negative[0], matched == 0)):
        assert mark.dtype == torch.uint8
        assert not (mark.bool() & ~is_candidate).any()


def test_the_sampler_reaches_every_candidate_and_depends_on_the_image_alone() -> None:
    matched = torch.tensor([0] * 30 + [1] * 10)
    sampler = KeyedSampler(8, 0.5, seed=0, purpose=Purpose.ANCHORS)
    drawn = torch.zeros(40)
    for epoch in range(60):
        sampler.keys = [SampleKey(epoch, 0)]
        alone = sampler([matched])
        sampler.keys = [SampleKey(epoch, 5), SampleKey(epoch, 0)]
        together = sampler([matched, matched])
        assert alone[0][0].equal(together[0][1])
        assert alone[1][0].equal(together[1][1])
        drawn += alone[0][0] + alone[1][0]
    assert (drawn > 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "adam"}, "--optimizer must be one of sgd, adamw, got adam"),
        ({"batch_size": 0}, "--batch-size must be 1 or more, got 0"),
        ({"momentum": 1.0}, r"--momentum must be in \[0, 1\), got 1.0"),
        ({"weight_decay": -1.0}, "--weight-decay must be 0 or more"),
        ({"max_grad_norm": 0.0}, "--max-grad-norm must be above 0"),
        ({"grad_accum_steps": 0}, "--grad-accum-steps must be 1 or more"),
        ({"rois_per_image": 3}, "--rois-per-image must be 4 or more"),
        ({"proposals_per_image": 511}, "--proposals-per-image must be at least --rois-per-image, got 511"),
        ({"anchors_per_image": 1}, "--anchors-per-image must be 2 or more"),
        ({"precision": "fp16"}, "--precision must be one of auto, fp32, bf16, got fp16"),
        ({"seed": -1}, "--seed must be 0 or more"),
    ],
)
def test_impossible_values_are_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": ScheduleConfig(0.1)}, "--learning-rate is usually 0.001 to 0.01 with sgd, got 0.1"),
        (
            {"schedule": ScheduleConfig(0.005), "optimizer": "adamw"},
            "--learning-rate is usually 0.0001 to 0.001 with adamw, got 0.005",
        ),
        ({"batch_size": 16}, "--batch-size is usually 1 to 8, got 16"),
    ],
)
def test_unusual_values_are_used_with_a_warning(fields: dict[str, Any], message: str) -> None:
    with pytest.warns(UnusualValueWarning, match=message):
        TrainConfig(**fields)
