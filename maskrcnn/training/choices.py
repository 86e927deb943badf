"""Which anchors and RoIs an image teaches with: by chance, but depending on seed, epoch, sample and candidate alone.

Every candidate draws a priority from a counter-based generator, and those with the highest are chosen. Neither batch
mates nor the number of workers nor the device change a choice, and a resumed training chooses as it would have.
Whole numbers of 64 bits are the same everywhere, and nothing here waits for the device: shapes do not depend on values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskrcnn.training.transforms import Purpose, SampleKey

_INCREMENT = 0x9E3779B97F4A7C15 - (1 << 64)
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))
_LARGEST = (1 << 62) - 1


def open_stream(seed: int, purpose: Purpose, key: SampleKey) -> int:
    """Give the number that a sample's priorities begin with, 64 bits with a sign."""
    state = np.random.SeedSequence((seed, purpose, *key)).generate_state(1, np.uint64)
    return int(state.view(np.int64)[0])


def draw_priorities(streams: Tensor, ids: Tensor) -> Tensor:
    """Draw the priorities of candidates.

    Args:
        streams: (B,) int64, from ``open_stream``.
        ids: (A,) int64, 0 or more: what each candidate is known by, whatever else there is.

    Returns:
        (B, A) int64, 0 or more.

    Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", figure 16 (SplitMix64).
    """
    mixed = streams[:, None] + (ids + 1) * _INCREMENT
    mixed = (mixed ^ _shifted_right(mixed, 30)) * _MULTIPLIERS[0]
    mixed = (mixed ^ _shifted_right(mixed, 27)) * _MULTIPLIERS[1]
    return (mixed ^ _shifted_right(mixed, 31)) & _LARGEST


def _shifted_right(bits: Tensor, by: int) -> Tensor:
    """Shift zeros in from the left, whatever the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


@dataclass(frozen=True)
class Chosen:
    """What was chosen for each of B images: slots, instances first, then background, then slots without anything."""

    places: Tensor
    """(B, num) int64, among the candidates; any place where nothing is."""
    is_positive: Tensor
    """(B, num) bool."""
    is_chosen: Tensor
    """(B, num) bool."""


def choose(labels: Tensor, priorities: Tensor, num: int, max_positive: int) -> Chosen:
    """Choose as many candidates as there are slots, as many on instances as there may be, the rest on background.

    Args:
        labels: (B, A) of candidates: 1 or more on an instance, 0 on background, -1 on neither.
        priorities: (B, A) int64, from ``draw_priorities``.
        num: slots of an image.
        max_positive: of them on instances.

    Source: torchvision, ``models/detection/_utils.py``, ``BalancedPositiveNegativeSampler``.
    """
    positive, num_positive = _best(labels >= 1, priorities, num, max_positive)
    negative, num_negative = _best(labels == 0, priorities, num, num)
    slots = torch.arange(num, device=labels.device)
    is_positive = slots < num_positive
    place_in_negative = slots - num_positive
    is_chosen = is_positive | (place_in_negative < num_negative)
    places = torch.where(is_positive, positive, negative.gather(1, place_in_negative.clamp(min=0)))
    return Chosen(places, is_positive, is_chosen)


def _best(is_candidate: Tensor, priorities: Tensor, num: int, at_most: int) -> tuple[Tensor, Tensor]:
    """Give the places (B, num) of the highest priorities first, and how many of them count (B, 1)."""
    of_candidates = torch.where(is_candidate, priorities, -1)
    best, places = of_candidates.topk(min(at_most, is_candidate.shape[1]), dim=1)
    return F.pad(places, (0, num - places.shape[1])), (best >= 0).sum(1, keepdim=True)
