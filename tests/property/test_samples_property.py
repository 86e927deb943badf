"""Every sample once an epoch, whoever asks for it and in whatever portions."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.training.samples import batch_keys, epoch_indices

SEEDS = st.integers(0, 2**32)
EPOCHS = st.integers(0, 1000)


@given(SEEDS, EPOCHS, st.integers(0, 200), st.integers(1, 17))
def test_workers_share_an_epoch_with_none_dropped_and_none_repeated(
    seed: int, epoch: int, num_samples: int, world_size: int
) -> None:
    shares = [epoch_indices(seed, epoch, num_samples, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(num_samples))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


@given(SEEDS, EPOCHS, st.integers(0, 200), st.integers(1, 17))
def test_the_order_of_an_epoch_does_not_depend_on_the_number_of_workers(
    seed: int, epoch: int, num_samples: int, world_size: int
) -> None:
    alone = epoch_indices(seed, epoch, num_samples)
    woven = np.full(num_samples, -1)
    for rank in range(world_size):
        woven[rank::world_size] = epoch_indices(seed, epoch, num_samples, rank, world_size)
    assert np.array_equal(woven, alone)


@given(SEEDS, st.integers(1, 30), st.lists(st.integers(1, 40), max_size=8))
def test_batches_of_any_sizes_are_the_epochs_one_after_the_other(
    seed: int, num_samples: int, batch_sizes: list[int]
) -> None:
    stream = []
    for batch_size in batch_sizes:
        stream += batch_keys(len(stream), batch_size, seed=seed, num_samples=num_samples)
    assert len(stream) == sum(batch_sizes)
    for epoch in range(len(stream) // num_samples):
        seen = [key.sample_index for key in stream if key.epoch == epoch]
        assert seen == epoch_indices(seed, epoch, num_samples).tolist()
    assert max(Counter(stream).values(), default=1) == 1
    assert [key.epoch for key in stream] == sorted(key.epoch for key in stream)
