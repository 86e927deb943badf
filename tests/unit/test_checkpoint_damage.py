"""A checkpoint whose counters are damaged is never taken for another one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from maskrcnn.training.checkpoint import TrainState, load_newest, save_checkpoint

OLDER = TrainState(step=1, num_samples=4)
NEWER = TrainState(step=2, num_samples=8, micro_batch_size=2, seconds=1.5, skipped=("step 1: image 7",), best_step=1)


@pytest.fixture
def newest(tmp_path: Path) -> Path:
    """The JSON of the newer one of two checkpoints."""
    for state in (OLDER, NEWER):
        save_checkpoint(str(tmp_path), state, {"model.weight": torch.zeros(2)})
    return tmp_path / "checkpoints" / "step-00000002" / "state.json"


def test_a_flipped_bit_of_the_counters_is_noticed_or_changes_nothing(newest: Path, tmp_path: Path) -> None:
    sound, states = newest.read_bytes(), set()
    for place in range(len(sound)):
        body = bytearray(sound)
        body[place] ^= 1 << place % 8
        newest.write_bytes(body)
        found = load_newest(str(tmp_path))
        assert found is not None
        states.add(found.state)
    assert states == {OLDER, NEWER}


def test_a_checkpoint_of_a_version_without_a_digest_of_its_counters_is_read(newest: Path, tmp_path: Path) -> None:
    document = json.loads(newest.read_bytes())
    del document["state_sha256"]
    newest.write_text(json.dumps(document))
    found = load_newest(str(tmp_path))
    assert found is not None
    assert found.state == NEWER
