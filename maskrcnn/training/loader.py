"""The loader of one rank: its shares of the steps, read and prepared ahead by processes of its own."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import partial

import torch
from torch.utils.data import DataLoader

from maskrcnn import storage
from maskrcnn.training.sampler import ShareSampler, StepOrder
from maskrcnn.training.samples import CocoSamples, Sample, keep_samples

PREFETCHED_STEPS = 4
"""A process; steps ahead of the network."""


def load_shares(
    samples: CocoSamples,
    order: StepOrder,
    steps: range,
    *,
    rank: int,
    world_size: int,
    num_workers: int,
    pins_memory: bool,
) -> Iterator[list[Sample]]:
    """Give one rank's samples, step after step.

    Args:
        samples: the data set.
        order: of the training.
        steps: the ones to load.
        rank, world_size: whose shares.
        num_workers: processes that load; 0: this one, when a step is asked for.
        pins_memory: for a GPU.
    """
    # What is frozen is not touched by the collector, and so stays one copy for all processes.
    gc.collect()
    gc.freeze()
    loader = DataLoader(
        samples,
        batch_sampler=ShareSampler(order, steps, rank, world_size),
        num_workers=num_workers,
        collate_fn=keep_samples,
        pin_memory=pins_memory,
        prefetch_factor=PREFETCHED_STEPS if num_workers else None,
        worker_init_fn=partial(_set_up_process, storage.reached_stores()),
    )
    return iter(loader)


def _set_up_process(reached_stores: tuple[str, ...], _: int) -> None:
    """Make a loader's process one of many: on one thread, and as patient as the one that sent for it."""
    torch.set_num_threads(1)
    storage.expect_outages(reached_stores)
