"""Which images each step learns from, and which rank loads which: pure functions of seed, epoch and number of ranks.

A step is a global batch, whoever shares it: the steps of an epoch do not depend on the number of ranks, so that a
training goes on where it stood on any other number. Within an epoch every image comes once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from maskrcnn.training.recipe import TrainConfig
from maskrcnn.training.transforms import Purpose, SampleKey, random_generator

NUM_ASPECT_GROUPS = 8
"""Of width over height, between 1:2 and 2:1; images of one group waste little padding on each other."""


def aspect_groups(heights: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sort images into groups of like shape.

    Args:
        heights, widths: (N,) px.

    Returns:
        (N,) group numbers, from 0 (tallest) to NUM_ASPECT_GROUPS - 1.

    Source: torchvision, ``references/detection/group_by_aspect_ratio.py``, ``create_aspect_ratio_groups``.
    """
    bounds = 2.0 ** np.linspace(-1, 1, NUM_ASPECT_GROUPS - 1)
    return np.searchsorted(bounds, widths / heights, side="right").astype(np.int64)


@dataclass(frozen=True, eq=False)
class StepOrder:
    """The order in which a training sees its images.

    Attributes:
        groups: (N,) for each image the group that it shares batches with; all 0 for no grouping.
        indices: (N,) which samples of the data set these images are; None: all, in order.
        global_batch_size: images a step; the last step of an epoch has what is left.
        keeps_rest: whether there is such a last step; norms that are synced over the ranks cannot have one.
        seed: of the training.
    """

    groups: NDArray[np.int64]
    global_batch_size: int
    seed: int
    indices: NDArray[np.int64] | None = None
    keeps_rest: bool = True

    @property
    def steps_per_epoch(self) -> int:
        """Count the steps in which every image comes once."""
        whole, rest = divmod(len(self.groups), self.global_batch_size)
        return whole + (rest > 0 and (self.keeps_rest or whole == 0))

    def keys_of(self, step: int) -> list[SampleKey]:
        """Give the samples of a step, counted from 0 over all epochs."""
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = _epoch_batches(self, epoch)[place]
        samples = chosen if self.indices is None else self.indices[chosen]
        return [SampleKey(epoch, index) for index in samples.tolist()]

    def samples_before(self, step: int) -> int:
        """Count the samples that are consumed when a step begins."""
        epoch, place = divmod(step, self.steps_per_epoch)
        an_epoch = min(self.steps_per_epoch * self.global_batch_size, len(self.groups))
        return epoch * an_epoch + min(place * self.global_batch_size, an_epoch)


def build_order(
    heights: NDArray[np.int64], widths: NDArray[np.int64], indices: NDArray[np.int64], config: TrainConfig
) -> StepOrder:
    """Build the order of a training.

    Args:
        heights, widths: (N,) of all images of the data set, px.
        indices: of the images that are learnt from.
        config: of the training. Square crops waste no padding, so that they are not grouped.
    """
    groups = aspect_groups(heights[indices], widths[indices])
    if config.augment.crop_size_px:
        groups = np.zeros_like(groups)
    return StepOrder(groups, config.global_batch_size, config.seed, indices, keeps_rest=not config.norms_are_synced)


@functools.lru_cache(maxsize=4)
def _epoch_batches(order: StepOrder, epoch: int) -> list[NDArray[np.int64]]:
    """Cut a fresh permutation into batches of one group each; what is left of the groups makes the last ones."""
    rng = random_generator(order.seed, Purpose.ORDER, SampleKey(epoch, 0))
    permutation = rng.permutation(len(order.groups))
    size = order.global_batch_size
    batches: list[NDArray[np.int64]] = []
    rest: list[NDArray[np.int64]] = []
    for group in range(int(order.groups.max(initial=0)) + 1):
        members = permutation[order.groups[permutation] == group]
        whole = len(members) // size * size
        batches += np.split(members[:whole], whole // size) if whole else []
        rest.append(members[whole:])
    mixed = np.concatenate([np.zeros(0, np.int64), *rest])
    mixed_batches = [mixed[begin : begin + size] for begin in range(0, len(mixed), size)]
    # A short batch stays the last, so that a step number says how many samples came before it.
    short = [mixed_batches.pop()] if mixed_batches and len(mixed_batches[-1]) < size else []
    batches += mixed_batches
    return [batches[place] for place in rng.permutation(len(batches))] + short


def share_of_rank(num_items: int, rank: int, world_size: int) -> slice:
    """Give one rank's share of a step's samples: contiguous, the first ranks having one more where it does not divide.

    With fewer samples than ranks, some shares are empty; those ranks take part in the step all the same.
    """
    size, num_longer = divmod(num_items, world_size)
    begin = rank * size + min(rank, num_longer)
    return slice(begin, begin + size + (rank < num_longer))


class ShareSampler(Sampler[list[SampleKey]]):
    """One rank's samples, step after step: the batch sampler of its loader.

    Args:
        order: of the training.
        steps: the first and one past the last step.
        rank, world_size: whose shares.
    """

    def __init__(self, order: StepOrder, steps: range, rank: int, world_size: int) -> None:
        self._order, self._steps, self._rank, self._world_size = order, steps, rank, world_size

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in self._steps:
            keys = self._order.keys_of(step)
            yield keys[share_of_rank(len(keys), self._rank, self._world_size)]
