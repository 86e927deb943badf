"""`ray job submit` to a cluster with token auth: the training command runs there, and its exit code comes through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from maskrcnn.synthetic import write_shelves
from tests.integration.head import Head
from tests.integration.test_training_job import arguments, words

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::maskrcnn.config.UnusualValueWarning"),
]


def test_a_submitted_training_leaves_a_bundle_and_bad_input_its_exit_code(head: Head, tmp_path: Path) -> None:
    write_shelves(tmp_path / "set", 4, seed=6, width=64, height=64, num_boards=1)
    given = arguments(tmp_path / "set", tmp_path / "out", max_steps=2, save_epochs=0.0, num_workers="2")
    done = head.submit("-m", "jobs.train", *words(given))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "2 1-thread CPU worker(s) x 2 x 1 accumulated = 4 images an update" in done.stdout
    assert "trained: 2 steps" in done.stdout
    assert (tmp_path / "out" / "bundle" / "model.json").exists()

    refused = head.submit("-m", "jobs.train", *words(given))
    assert "--output must be a new one, and holds a training" in refused.stdout + refused.stderr
    assert refused.returncode == 1, "the submitting command knows only success and failure"
    assert sorted(head.exit_codes()) == [0, 2], "the cluster knows the command's own"

    stranger = replace(head, environment={**head.environment, "RAY_AUTH_TOKEN": "another"})
    assert stranger.submit("-c", "pass").returncode != 0
