"""Which images a step learns from, on sets small enough to list."""

from __future__ import annotations

import itertools

import numpy as np

from maskrcnn.training.sampler import NUM_ASPECT_GROUPS, ShareSampler, StepOrder, aspect_groups, share_of_rank


def _order(num_images: int, batch: int = 4, seed: int = 0) -> StepOrder:
    return StepOrder(np.zeros(num_images, np.int64), batch, seed)


def test_groups_go_from_tall_to_wide_in_equal_ratios() -> None:
    heights = np.array([300, 200, 180, 100, 100, 100, 100, 1])
    widths = np.array([100, 101, 100, 99, 100, 150, 199, 9999])
    assert NUM_ASPECT_GROUPS == 8
    groups = aspect_groups(heights, widths)
    assert groups.tolist() == [0, 1, 1, 3, 4, 5, 6, 7]
    assert aspect_groups(widths, heights)[0] == 7  # the other way round
    assert aspect_groups(heights[:0], widths[:0]).shape == (0,)


def test_the_last_step_of_an_epoch_has_what_is_left() -> None:
    order = _order(10)
    assert order.steps_per_epoch == 3
    assert [len(order.keys_of(step)) for step in range(6)] == [4, 4, 2, 4, 4, 2]
    assert [order.keys_of(step)[0].epoch for step in range(6)] == [0, 0, 0, 1, 1, 1]
    assert [order.samples_before(step) for step in range(7)] == [0, 4, 8, 10, 14, 18, 20]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    def indices(order: StepOrder, epoch: int) -> list[int]:
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        return [key.sample_index for step in steps for key in order.keys_of(step)]

    orders = [indices(_order(50, seed=seed), epoch) for seed in range(3) for epoch in range(3)]
    assert len({tuple(each) for each in orders}) == 9
    assert list(range(50)) not in orders
    assert indices(_order(50, seed=2), 2) == orders[8]


def test_groups_do_not_come_one_after_the_other() -> None:
    order = StepOrder(np.arange(400) // 100, 4, 0)
    groups = [order.keys_of(step)[0].sample_index // 100 for step in range(100)]
    assert sum(one != other for one, other in itertools.pairwise(groups)) > 40


def test_a_batch_larger_than_the_set_is_the_set() -> None:
    order = _order(3, batch=64)
    assert order.steps_per_epoch == 1
    assert sorted(key.sample_index for key in order.keys_of(5)) == [0, 1, 2]


def test_shares_are_contiguous_and_the_first_ranks_have_one_more() -> None:
    assert [share_of_rank(10, rank, 4) for rank in range(4)] == [slice(0, 3), slice(3, 6), slice(6, 8), slice(8, 10)]
    assert [share_of_rank(1, rank, 3) for rank in range(3)] == [slice(0, 1), slice(1, 1), slice(1, 1)]


def test_a_rank_gets_its_shares_step_after_step_from_where_it_resumes() -> None:
    order = _order(10)
    sampler = ShareSampler(order, range(1, 5), rank=1, world_size=3)
    assert len(sampler) == 4
    expected = [order.keys_of(1)[2:3], order.keys_of(2)[1:2], order.keys_of(3)[2:3], order.keys_of(4)[2:3]]
    assert list(sampler) == expected
    assert list(sampler) == expected  # again, from the start
    assert list(ShareSampler(order, range(2, 3), rank=2, world_size=3)) == [[]]


def test_images_meet_others_in_every_epoch() -> None:
    order = _order(40)
    met = [frozenset(key.sample_index for key in order.keys_of(step)) for step in range(20)]
    assert len(set(met)) == 20


def test_without_a_rest_every_step_is_whole() -> None:
    order = StepOrder(np.zeros(10, np.int64), 4, 0, keeps_rest=False)
    assert order.steps_per_epoch == 2
    assert [len(order.keys_of(step)) for step in range(5)] == [4] * 5
    assert [order.samples_before(step) for step in range(4)] == [0, 4, 8, 12]
