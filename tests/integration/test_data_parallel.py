"""Ranks that share a global batch learn what one process learns from all of it, and stumble together."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maskrcnn.training.recipe import TrainConfig
from maskrcnn.training.sampler import share_of_rank
from maskrcnn.training.samples import Sample
from maskrcnn.training.schedule import ScheduleConfig
from maskrcnn.training.step import StepResult
from tests.learning import (
    CONFIG,
    draw_sample,
    empty_sample,
    farthest,
    inject_proposals,
    new_learner,
    padded_shape,
    start_network,
    weights_of,
)
from tests.ranks import run_ranks

CONFIG_OF_20_STEPS = replace(
    CONFIG,
    schedule=ScheduleConfig(learning_rate=0.001, max_steps=20, decay="constant", warmup_steps=0),
    rois_per_image=8,
)
SIZES = ((64, 64), (96, 64), (48, 64), (64, 48), (64, 64))
NUM_STEPS = 20
NUM_STEPS_WITH_FAILURE = 6
_FAILING_STEP = 3


@dataclass(frozen=True)
class Outcome:
    """What a training did, as one rank saw it."""

    results: list[StepResult]
    weights: list[Tensor]
    micro_batch_size: int
    halvings: list[int]
    """The steps after which micro-batches were halved."""


def _global_batch(step: int) -> list[Sample]:
    """Give four images of several sizes, with 0 to 6 instances; only two at the end of an epoch."""
    seeds = [4 * step + place for place in range(2 if step % 8 == 7 else 4)]
    samples = [draw_sample(seed, *SIZES[seed % len(SIZES)]) for seed in seeds]
    return [empty_sample(), *samples[1:]] if step % 8 == 2 else samples


def train(
    rank: int, group: Any, world_size: int, config: TrainConfig, num_steps: int, start: Any = None, failure: str = ""
) -> Outcome:
    """Train as a loop does; a step that did not fit into memory is done again with smaller micro-batches."""
    left = {"memory": 1 if rank == 1 else 0}

    def on_losses(step: int, batch: Sequence[Sample], sums: Tensor) -> Tensor:
        if failure == "nan" and rank == 1 and step == _FAILING_STEP:
            return sums * torch.tensor([1.0] * (len(batch) - 1) + [float("nan")])
        return sums.clone()

    learner = new_learner(config, start, group=group, on_losses=on_losses)
    if not failure:
        # Proposals come and go by leaps: a difference in the last bit may be another choice ten steps later.
        inject_proposals(learner.network, [sample for step in range(num_steps) for sample in _global_batch(step)])
    at = {"step": -1}

    def fill_memory(_: Tensor) -> None:
        if failure == "memory" and at["step"] == _FAILING_STEP and left["memory"]:
            left["memory"] -= 1
            raise torch.OutOfMemoryError("injected")

    learner.network.backbone.body.layer3[0].conv1.weight.register_hook(fill_memory)
    results: list[StepResult] = []
    halvings: list[int] = []
    while len(results) < num_steps:
        step = at["step"] = len(results)
        samples = _global_batch(step)
        share = share_of_rank(len(samples), rank, world_size)
        result = learner.step(
            samples[share],
            step,
            padded_shape(samples),
            first_place=share.start,
            num_places=len(samples),
            notices=(float(rank + 1), 1.0),
        ).read()
        assert result.notices == (sum(range(1, world_size + 1)), world_size)
        if result.is_out_of_memory:
            halvings.append(step)
            learner.halve()
        else:
            results.append(result)
    return Outcome(results, weights_of(learner.network), learner.micro_batch_size, halvings)


@pytest.fixture(scope="module")
def alone() -> Outcome:
    """One process that holds the whole global batch at once."""
    return train(0, None, 1, CONFIG_OF_20_STEPS, NUM_STEPS)


def _assert_same(outcome: Outcome, expected: Outcome, tolerance: float) -> None:
    pairs = list(zip(outcome.results, expected.results, strict=False))
    assert len(pairs) == len(outcome.results)
    for one, other in pairs:
        assert one.loss == pytest.approx(other.loss, rel=tolerance)
        assert one.losses == pytest.approx(other.losses, rel=tolerance, abs=tolerance * other.loss)
        assert one.learning_rate == other.learning_rate


def _assert_weights_are_close(outcome: Outcome, expected: Outcome) -> None:
    moved = farthest(expected.weights, weights_of(start_network()))
    assert farthest(outcome.weights, expected.weights) < 1e-2 * moved


def test_accumulating_two_micro_batches_is_one_twice_as_large(alone: Outcome) -> None:
    halves = train(0, None, 1, replace(CONFIG_OF_20_STEPS, micro_batch_size=2), NUM_STEPS)
    _assert_same(halves, alone, 1e-3)
    _assert_weights_are_close(halves, alone)


@pytest.mark.parametrize(("world_size", "micro_batch_size"), [(2, 2), (3, 4)], ids=["even", "uneven"])
def test_ranks_learn_what_one_process_does(
    alone: Outcome, tmp_path: Path, world_size: int, micro_batch_size: int
) -> None:
    config = replace(CONFIG_OF_20_STEPS, micro_batch_size=micro_batch_size)
    outcomes = run_ranks(tmp_path, world_size, train, world_size, config, NUM_STEPS, start_network())
    for outcome in outcomes:
        _assert_same(outcome, alone, 1e-3)
        _assert_weights_are_close(outcome, alone)
    for outcome in outcomes[1:]:
        assert outcome.results == outcomes[0].results
        assert all(one.equal(other) for one, other in zip(outcome.weights, outcomes[0].weights, strict=True))


def _train_with_failures(rank: int, group: Any, start: Any) -> dict[str, Outcome]:
    config = replace(CONFIG_OF_20_STEPS, micro_batch_size=2)
    return {
        failure: train(rank, group, 2, config, NUM_STEPS_WITH_FAILURE, copy.deepcopy(start), failure)
        for failure in ("memory", "nan")
    }


def test_ranks_stumble_together(tmp_path: Path) -> None:
    undisturbed = train(0, None, 1, CONFIG_OF_20_STEPS, NUM_STEPS_WITH_FAILURE, failure="none")
    zero, one = run_ranks(tmp_path, 2, _train_with_failures, start_network())
    for outcome in (zero["memory"], one["memory"]):
        assert outcome.halvings == [_FAILING_STEP]
        assert outcome.micro_batch_size == 1
        _assert_same(outcome, undisturbed, 1e-4)
    assert zero["memory"].results == one["memory"].results
    assert farthest(zero["memory"].weights, one["memory"].weights) == 0
    for outcome in (zero["nan"], one["nan"]):
        assert [result.nonfinite_places for result in outcome.results] == [(), (), (), (3,), (), ()]
        assert [result.is_finite for result in outcome.results] == [True, True, True, False, True, True]
        assert outcome.halvings == []
    assert farthest(zero["nan"].weights, one["nan"].weights) == 0
    assert all(bool(weight.isfinite().all()) for weight in one["nan"].weights)
