"""Choices by key: as many as torchvision makes, by chance, and by nothing but the seed, the image and the candidate."""

from __future__ import annotations

import numpy as np
import torch

from maskrcnn.training.choices import choose, draw_priorities, open_stream
from maskrcnn.training.transforms import Purpose, SampleKey


def _priorities(num: int, *keys: SampleKey, seed: int = 0) -> torch.Tensor:
    streams = torch.tensor([open_stream(seed, Purpose.ANCHORS, key) for key in keys])
    return draw_priorities(streams, torch.arange(num))


def test_priorities_are_those_of_splitmix64() -> None:
    # The published first outputs of the generator that was begun with 1234567.
    expected = (6457827717110365317, 3203168211198807973, 9817491932198370423)
    drawn = draw_priorities(torch.tensor([1234567]), torch.arange(3))[0].tolist()
    assert drawn == [value & ((1 << 62) - 1) for value in expected]


def test_streams_have_nothing_in_common() -> None:
    keys = [SampleKey(epoch, sample) for epoch in range(3) for sample in range(3)]
    streams = {open_stream(seed, purpose, key) for seed in (0, 1) for purpose in Purpose for key in keys}
    assert len(streams) == 2 * len(Purpose) * len(keys)
    drawn = _priorities(2000, *keys).double() / 2**62
    assert float((drawn.mean(1) - 0.5).abs().max()) < 0.03
    correlations = np.corrcoef(drawn.numpy()) - np.eye(len(keys))
    assert float(np.abs(correlations).max()) < 0.1


def test_choices_have_torchvisions_counts_and_lie_on_candidates() -> None:
    enough = torch.tensor([-1] * 5 + [0] * 60 + [1, 2, 2] * 5)
    few_positive, few_negative = torch.cat([enough[:-13], -torch.ones(13).long()]), enough.clone()
    few_negative[5:60] = -1
    labels = torch.stack([enough, few_positive, few_negative, torch.full((80,), -1)])
    chosen = choose(labels, _priorities(80, *(SampleKey(0, each) for each in range(4))), 32, 8)
    assert chosen.is_positive.sum(1).tolist() == [8, 2, 8, 0]
    assert chosen.is_chosen.sum(1).tolist() == [32, 32, 13, 0]
    found = labels.gather(1, chosen.places)
    assert (found[chosen.is_positive] >= 1).all()
    assert (found[chosen.is_chosen & ~chosen.is_positive] == 0).all()
    for places, is_chosen in zip(chosen.places, chosen.is_chosen, strict=True):
        assert len(set(places[is_chosen].tolist())) == int(is_chosen.sum())
    # Instances are in the first slots, and slots without anything are the last.
    assert (chosen.is_positive.int().diff() <= 0).all()
    assert (chosen.is_chosen.int().diff() <= 0).all()


def test_every_candidate_is_reached_as_often() -> None:
    labels = torch.tensor([[0] * 30 + [1] * 10]).expand(600, -1)
    chosen = choose(labels, _priorities(40, *(SampleKey(epoch, 0) for epoch in range(600))), 8, 4)
    counts = torch.bincount(chosen.places.flatten(), minlength=40) / 600
    torch.testing.assert_close(counts, torch.tensor([4 / 30] * 30 + [0.4] * 10), atol=0.08, rtol=0)


def test_choices_depend_on_the_image_alone() -> None:
    labels = torch.tensor([[0] * 30 + [1] * 10, [1] * 20 + [-1] * 20])
    keys = (SampleKey(3, 1), SampleKey(2, 5))
    together = choose(labels, _priorities(40, *keys), 8, 4)
    for place, key in enumerate(keys):
        alone = choose(labels[place : place + 1], _priorities(40, key), 8, 4)
        assert alone.places[0].equal(together.places[place])
        # Candidates that are none may follow, as padding does.
        padded = torch.cat([labels[place], -torch.ones(7).long()])[None]
        longer = choose(padded, _priorities(47, key), 8, 4)
        is_chosen = alone.is_chosen[0]
        assert longer.is_chosen[0].equal(is_chosen)
        assert longer.places[0][is_chosen].equal(alone.places[0][is_chosen])


def test_fewer_candidates_than_slots_are_all_taken() -> None:
    chosen = choose(torch.tensor([[1, 0, 0]]), _priorities(3, SampleKey(0, 0)), 8, 4)
    assert chosen.is_chosen.sum() == 3
    assert sorted(chosen.places[chosen.is_chosen].tolist()) == [0, 1, 2]
