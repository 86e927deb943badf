"""All groups settled together keep what torchvision's loop keeps."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torchvision.ops import nms as torchvision_nms

from maskrcnn.model import nms
from maskrcnn.model.nms import find_survivors, settle_together


def draw_groups(num_groups: int, num_boxes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes that overlap often, a third of them no candidates, of three labels."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num_groups, num_boxes, 2, generator=generator) * 40
    sides = torch.rand(num_groups, num_boxes, 2, generator=generator) * 30 + 1
    is_candidate = torch.rand(num_groups, num_boxes, generator=generator) < 0.7
    labels = torch.randint(0, 3, (num_groups, num_boxes), generator=generator)
    return torch.cat([corners, corners + sides], dim=2), is_candidate, labels


def loop(boxes: Tensor, is_candidate: Tensor, threshold: float, labels: Tensor) -> Tensor:
    """Ask torchvision for each group and label alone."""
    is_kept = torch.zeros_like(is_candidate)
    ranks = torch.arange(boxes.shape[1], 0, -1).float()
    for group in range(len(boxes)):
        for label in labels.unique():
            places = (is_candidate[group] & (labels[group] == label)).nonzero()[:, 0]
            is_kept[group, places[torchvision_nms(boxes[group, places], ranks[places], threshold)]] = True
    return is_kept


@settings(max_examples=60, deadline=None)
@given(
    num_groups=st.integers(1, 4),
    num_boxes=st.integers(0, 60),
    seed=st.integers(0, 10**6),
    threshold=st.sampled_from([0.05, 0.3, 0.5, 0.7, 1.0]),
)
def test_rounds_keep_what_the_loop_keeps(num_groups: int, num_boxes: int, seed: int, threshold: float) -> None:
    boxes, is_candidate, labels = draw_groups(num_groups, num_boxes, seed)
    expected = loop(boxes, is_candidate, threshold, labels)
    together = settle_together(boxes, is_candidate, threshold, labels, is_patient=True)
    assert torch.equal(together.is_kept, expected)
    assert torch.equal(find_survivors(boxes, is_candidate, threshold, labels).is_kept, expected)
    unlabelled = settle_together(boxes, is_candidate, threshold, is_patient=True)
    assert torch.equal(unlabelled.is_kept, loop(boxes, is_candidate, threshold, torch.zeros_like(labels)))
    assert together.is_settled


def test_too_few_rounds_for_a_chain_say_so_and_patience_settles_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nms, "NUM_ROUNDS", 3)
    left = torch.arange(20.0)[None, :, None] * 4
    chain = torch.cat([left, torch.zeros_like(left), left + 10, torch.full_like(left, 10.0)], dim=2)
    is_candidate = torch.ones(1, 20, dtype=torch.bool)
    hasty = settle_together(chain, is_candidate, 0.3)
    assert not hasty.is_settled
    patient = settle_together(chain, is_candidate, 0.3, is_patient=True)
    assert patient.is_settled
    assert patient.is_kept[0].tolist() == [place % 2 == 0 for place in range(20)]
