"""Gradients in buckets: views into a few tensors, summed over the ranks whatever happens to one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from maskrcnn.training import gradients
from maskrcnn.training.gradients import GradientBuckets
from tests.ranks import run_ranks

NUM_PARAMETERS = 9


class _Network(nn.Module):
    """Four layers in a row, and a parameter between them that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(4))
        self.unused = nn.Parameter(torch.ones(5))

    def forward(self, inputs: Tensor) -> Tensor:
        for layer in self.layers:
            inputs = torch.tanh(layer(inputs))
        return inputs.square().sum()


def _network() -> _Network:
    torch.manual_seed(0)
    return _Network()


def _inputs(rank: int, number: int) -> Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(10 * rank + number))


def _plain_gradients(batches: list[Tensor]) -> list[Tensor]:
    network = _network()
    for batch in batches:
        network(batch).backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]


@pytest.mark.parametrize(("bucket_bytes", "num_buckets"), [(1, 9), (48, 5), (1 << 20, 1)])
def test_gradients_are_views_in_the_opposite_order_of_the_parameters(
    bucket_bytes: int, num_buckets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "BUCKET_BYTES", bucket_bytes)
    network = _network()
    parameters = list(network.parameters())
    buckets = GradientBuckets(parameters)
    assert len(buckets.flats) == num_buckets
    buckets.zero()
    network(_inputs(0, 0)).backward()
    network(_inputs(0, 1)).backward()
    expected = _plain_gradients([_inputs(0, 0), _inputs(0, 1)])
    torch.testing.assert_close(
        torch.cat(buckets.flats), torch.cat([gradient.flatten() for gradient in reversed(expected)]), rtol=0, atol=0
    )
    assert float(buckets.norm()) == pytest.approx(float(torch.cat(buckets.flats).norm()))
    buckets.scale(torch.tensor(0.5))
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient / 2)
    buckets.zero()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in parameters)


def test_gradients_have_the_strides_of_their_weights() -> None:
    network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    buckets = GradientBuckets(list(network.parameters()))
    buckets.zero()
    assert network.weight.grad.stride() == network.weight.stride() != torch.zeros(4, 3, 3, 3).stride()
    images = torch.randn(2, 3, 8, 8)
    network(images).square().sum().backward()
    weight = network.weight.detach().clone().requires_grad_()
    nn.functional.conv2d(images, weight, network.bias.detach()).square().sum().backward()
    torch.testing.assert_close(network.weight.grad, weight.grad)
    assert float(buckets.norm()) > 0


def test_one_process_sends_nothing_and_keeps_its_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "all_reduce", lambda *_, **__: pytest.fail("there is nobody to send to"))
    network = _network()
    buckets = GradientBuckets(list(network.parameters()))
    buckets.zero()
    buckets.arm()
    network(_inputs(0, 0)).backward()
    signals = torch.tensor([1.0, 2.0])
    buckets.finish(signals)
    assert signals.tolist() == [1, 2]


def _learn_on_a_rank(rank: int, group: Any) -> dict[str, Any]:
    """Go through steps of every kind: whole, with nothing to learn, stopped in the middle on rank 1, whole again."""
    gradients.BUCKET_BYTES = 48
    sent: list[int] = []
    all_reduce = dist.all_reduce

    def recording_all_reduce(tensor: Tensor, **options: Any) -> Any:
        sent.append(len(tensor))
        return all_reduce(tensor, **options)

    gradients.dist.all_reduce = recording_all_reduce  # type: ignore[assignment]
    network = _network()
    buckets = GradientBuckets(list(network.parameters()), group)
    stops = False

    def stop(_: Tensor) -> None:
        if stops:
            raise torch.OutOfMemoryError("injected")

    network.layers[1].weight.register_hook(stop)
    summed: dict[str, list[Tensor]] = {}
    orders: dict[str, list[int]] = {}
    sent_early: dict[str, int] = {}
    signalled: dict[str, list[float]] = {}
    for name in ("whole", "empty on 1", "stopped on 1", "whole again"):
        sent.clear()
        buckets.zero()
        stops = name == "stopped on 1" and rank == 1
        batches = [] if name == "empty on 1" and rank == 1 else [_inputs(rank, 0), _inputs(rank, 1)]
        signals = torch.tensor([1.0, float(rank)])
        try:
            for number, batch in enumerate(batches):
                if number == len(batches) - 1:
                    buckets.arm()
                network(batch).backward()
        except torch.OutOfMemoryError:
            signals[0] = 10
        sent_early[name] = len(sent)
        buckets.finish(signals)
        summed[name] = [parameter.grad.clone() for parameter in network.parameters()]
        orders[name], signalled[name] = list(sent), signals.tolist()
    return {"summed": summed, "orders": orders, "early": sent_early, "signals": signalled, "flats": len(buckets.flats)}


def test_ranks_get_the_sums_of_plain_gradients_even_after_one_stopped_in_the_middle(tmp_path: Path) -> None:
    zero, one = run_ranks(tmp_path, 2, _learn_on_a_rank)
    plain = [_plain_gradients([_inputs(rank, 0), _inputs(rank, 1)]) for rank in (0, 1)]
    both = [first + second for first, second in zip(*plain, strict=True)]
    for name, expected in (("whole", both), ("whole again", both), ("empty on 1", plain[0])):
        for result in (zero, one):
            torch.testing.assert_close(result["summed"][name], expected)
    assert zero["orders"] == one["orders"]
    for order in zero["orders"].values():
        assert len(order) == zero["flats"] + 1
        assert order[-1] == 2  # the signals go last
    # The unused parameter is in the last bucket but not the first: the others go while the backward pass runs.
    assert 0 < zero["early"]["whole"] < zero["flats"]
    assert one["early"]["empty on 1"] == 0
    assert one["early"]["stopped on 1"] < zero["early"]["stopped on 1"]
    assert zero["signals"] == one["signals"]
    assert zero["signals"]["whole"] == zero["signals"]["empty on 1"] == [2, 1]
    assert zero["signals"]["stopped on 1"] == [11, 1]
    for first, second in zip(zero["summed"]["stopped on 1"], one["summed"]["stopped on 1"], strict=True):
        assert first.equal(second)
