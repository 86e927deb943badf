"""What goes wrong within a step: nothing is learnt from it, its place is named, and the next one works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskrcnn.errors import ClusterError
from maskrcnn.training.samples import Sample
from maskrcnn.training.step import Learner
from tests.learning import (
    CONFIG,
    are_equal,
    draw_samples,
    farthest,
    learn,
    new_learner,
    state_of,
    weights_of,
)

WATCHED = replace(CONFIG, ema_decay=0.9)


def _poison(step: int, place: int, value: float) -> Callable[[int, Sequence[Sample], Tensor], Tensor]:
    """Multiply the losses of the image with ``place`` as its id."""

    def poison(at: int, batch: Sequence[Sample], sums: Tensor) -> Tensor:
        factors = [value if at == step and sample.image_id == place else 1.0 for sample in batch]
        return sums * torch.tensor(factors)

    return poison


@pytest.mark.parametrize(
    ("optimizer", "micro_batch_size", "value"), [("sgd", 4, float("nan")), ("adamw", 1, float("inf"))]
)
def test_a_loss_that_is_not_finite_changes_nothing_and_names_its_place(
    optimizer: Any, micro_batch_size: int, value: float
) -> None:
    config = replace(WATCHED, optimizer=optimizer, micro_batch_size=micro_batch_size)
    learner = new_learner(config, on_losses=_poison(1, 2, value))
    samples = draw_samples(1, 2, 3)
    [good] = learn(learner, samples, range(1), first_place=5, num_places=9)
    assert good.is_finite
    before = state_of(learner)
    [bad] = learn(learner, samples, range(1, 2), first_place=5, num_places=9)
    assert bad.nonfinite_places == (6,)
    assert not bad.is_finite
    assert not bad.is_out_of_memory
    assert are_equal(before, state_of(learner))
    [after] = learn(learner, samples, range(2, 3), first_place=5, num_places=9)
    assert after.is_finite
    assert farthest(before[:1], state_of(learner)[:1]) > 0
    # As though the bad step had never been.
    undisturbed = new_learner(config)
    learn(undisturbed, samples, range(1))
    learn(undisturbed, samples, range(2, 3))
    assert are_equal(state_of(undisturbed), state_of(learner))


def test_a_first_step_that_is_not_finite_leaves_a_new_optimizer_as_it_was() -> None:
    learner = new_learner(WATCHED, on_losses=_poison(0, 1, float("nan")))
    before = state_of(learner)
    learn(learner, draw_samples(1), range(1))
    assert are_equal(before, state_of(learner))
    assert not any(bool(tensor.isnan().any()) for tensor in before)


def test_a_gradient_that_is_not_finite_changes_nothing_though_the_losses_are() -> None:
    def steepen(step: int, batch: Sequence[Sample], sums: Tensor) -> Tensor:
        if step == 0:
            sums.register_hook(lambda gradient: gradient * float("inf"))
        return sums.clone()

    learner = new_learner(WATCHED, on_losses=steepen)
    before = state_of(learner)
    first, second = learn(learner, draw_samples(1, 2), range(2))
    assert first.nonfinite_places == ()
    assert not first.is_finite
    assert second.is_finite
    assert not are_equal(before, state_of(learner))


class _FullMemory:
    """Raises torch's error as often as told: from the losses, or at a parameter in the middle of the backward pass."""

    def __init__(self, place: str) -> None:
        self.place, self.left = place, 1

    def on_losses(self, step: int, batch: Sequence[Sample], sums: Tensor) -> Tensor:
        if self.place == "losses":
            self.fail()
        if self.place == "first gradient":
            sums.register_hook(lambda _: self.fail())
        return sums.clone()

    def watch(self, network: nn.Module) -> None:
        if self.place == "forward":
            network.rpn.head.register_forward_pre_hook(lambda *_: self.fail())  # type: ignore[union-attr, operator]
        if self.place == "mid backward":
            weight = network.backbone.body.layer3[0].conv1.weight  # type: ignore[union-attr, index]
            weight.register_hook(lambda _: self.fail())  # type: ignore[union-attr, operator]

    def fail(self) -> None:
        if self.left:
            self.left -= 1
            raise torch.OutOfMemoryError("injected")


def _failing_learner(place: str, micro_batch_size: int = 4) -> tuple[Learner, _FullMemory]:
    memory = _FullMemory(place)
    learner = new_learner(replace(WATCHED, micro_batch_size=micro_batch_size), on_losses=memory.on_losses)
    memory.watch(learner.network)
    return learner, memory


@pytest.mark.parametrize(
    ("place", "micro_batch_size"),
    [("forward", 4), ("forward", 2), ("losses", 4), ("first gradient", 4), ("mid backward", 4), ("mid backward", 2)],
)
def test_memory_that_is_full_halts_learning_until_micro_batches_are_halved(place: str, micro_batch_size: int) -> None:
    learner, memory = _failing_learner(place, micro_batch_size)
    samples = draw_samples(1, 2, 3)
    before = state_of(learner)
    [full] = learn(learner, samples, range(1))
    assert full.is_out_of_memory
    assert full.loss == 0
    # Steps that were begun before anybody looked: they fit, and are not to count either.
    halted = learn(learner, samples, range(1, 2))
    assert memory.left == 0
    assert not any(result.is_out_of_memory for result in halted)
    assert are_equal(before, state_of(learner))
    learner.halve()
    assert learner.micro_batch_size == micro_batch_size // 2
    redone = learn(learner, samples, range(2))
    undisturbed = new_learner(replace(WATCHED, micro_batch_size=micro_batch_size // 2))
    expected = learn(undisturbed, samples, range(2))
    for one, other in zip(redone, expected, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-5)
        assert one.learning_rate == other.learning_rate
    assert farthest(state_of(learner), state_of(undisturbed)) < 1e-5
    assert farthest(before[:1], state_of(learner)[:1]) > 1e-4


def test_memory_that_does_not_hold_one_image_is_refused_with_a_remedy() -> None:
    learner, _ = _failing_learner("losses", micro_batch_size=3)
    learn(learner, draw_samples(1, 2), range(1))
    learner.halve()
    assert learner.micro_batch_size == 1
    with pytest.raises(ClusterError, match="memory of cpu must hold one image of a micro-batch") as caught:
        learner.halve()
    assert "--min-size" in str(caught.value)


def test_a_micro_batch_larger_than_any_share_is_halved_from_the_share() -> None:
    learner = new_learner(replace(CONFIG, micro_batch_size=8))
    learner.halve(largest_share=2)
    assert learner.micro_batch_size == 1


def test_what_else_goes_wrong_is_not_taken_for_full_memory() -> None:
    def fail(step: int, batch: Sequence[Sample], sums: Tensor) -> Tensor:
        raise RuntimeError("something else")

    learner = new_learner(on_losses=fail)
    before = weights_of(learner.network)
    with pytest.raises(RuntimeError, match="something else"):
        learn(learner, draw_samples(1), range(1))
    assert are_equal(before, weights_of(learner.network))
