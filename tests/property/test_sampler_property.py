"""Every image once an epoch, whoever asks for it, in whatever batches, and after whatever resume."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn.training.sampler import ShareSampler, StepOrder, share_of_rank
from maskrcnn.training.transforms import SampleKey

UNHURRIED = settings(deadline=None)
SEEDS = st.integers(0, 2**32)
EPOCHS = st.integers(0, 50)
WORLDS = st.integers(1, 17)


@st.composite
def orders(draw: st.DrawFn) -> StepOrder:
    """Any number of images in any groups, in any batches."""
    groups = draw(st.lists(st.integers(0, draw(st.integers(0, 7))), min_size=1, max_size=120))
    return StepOrder(np.array(groups, np.int64), draw(st.integers(1, 20)), draw(SEEDS))


def batches_of(order: StepOrder, epoch: int) -> list[list[SampleKey]]:
    begin = epoch * order.steps_per_epoch
    return [order.keys_of(step) for step in range(begin, begin + order.steps_per_epoch)]


@UNHURRIED
@given(orders(), EPOCHS)
def test_within_an_epoch_none_is_dropped_and_none_repeated(order: StepOrder, epoch: int) -> None:
    keys = [key for batch in batches_of(order, epoch) for key in batch]
    assert sorted(key.sample_index for key in keys) == list(range(len(order.groups)))
    assert {key.epoch for key in keys} == {epoch}


@UNHURRIED
@given(orders(), EPOCHS)
def test_batches_are_full_but_for_the_last(order: StepOrder, epoch: int) -> None:
    sizes = [len(batch) for batch in batches_of(order, epoch)]
    assert all(size == order.global_batch_size for size in sizes[:-1])
    assert 1 <= sizes[-1] <= order.global_batch_size


@UNHURRIED
@given(orders(), EPOCHS)
def test_batches_are_of_one_group_but_for_leftovers(order: StepOrder, epoch: int) -> None:
    size = order.global_batch_size
    num_pure: Counter[int] = Counter()
    for batch in batches_of(order, epoch):
        groups = {int(order.groups[key.sample_index]) for key in batch}
        if len(batch) == size and len(groups) == 1:
            num_pure[groups.pop()] += 1
    for group, count in Counter(order.groups.tolist()).items():
        assert num_pure[group] >= count // size


@UNHURRIED
@given(orders(), EPOCHS)
def test_samples_before_a_step_are_those_of_the_steps_before(order: StepOrder, epoch: int) -> None:
    begin = epoch * order.steps_per_epoch
    count = epoch * len(order.groups)
    for step, batch in enumerate(batches_of(order, epoch), start=begin):
        assert order.samples_before(step) == count
        count += len(batch)
    assert order.samples_before(begin + order.steps_per_epoch) == count


@UNHURRIED
@given(orders(), EPOCHS)
def test_the_order_is_a_pure_function_of_seed_and_epoch(order: StepOrder, epoch: int) -> None:
    again = StepOrder(order.groups.copy(), order.global_batch_size, order.seed)
    assert batches_of(again, epoch) == batches_of(order, epoch)


@UNHURRIED
@given(st.integers(0, 100), WORLDS)
def test_shares_of_ranks_make_up_the_step(num_items: int, world_size: int) -> None:
    items = list(range(num_items))
    shares = [items[share_of_rank(num_items, rank, world_size)] for rank in range(world_size)]
    assert [item for share in shares for item in share] == items
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


@UNHURRIED
@given(orders(), WORLDS, WORLDS, st.data())
def test_a_resume_on_any_number_of_ranks_sees_what_would_have_been_seen(
    order: StepOrder, before: int, after: int, data: st.DataObject
) -> None:
    end = 2 * order.steps_per_epoch + 1
    resumed_at = data.draw(st.integers(0, end))

    def seen(world_size: int, steps: range) -> list[list[SampleKey]]:
        ranks = [ShareSampler(order, steps, rank, world_size) for rank in range(world_size)]
        assert {len(rank) for rank in ranks} == {len(steps)}
        return [[key for share in shares for key in share] for shares in zip(*ranks, strict=True)]

    uninterrupted = [order.keys_of(step) for step in range(end)]
    assert seen(before, range(resumed_at)) + seen(after, range(resumed_at, end)) == uninterrupted
