"""One worker's part of a training, alone and without Ray: what it does when, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskrcnn.coco.annotations import load_coco
from maskrcnn.coco.packed import PackedBytes
from maskrcnn.coco.runs import encode_counts
from maskrcnn.model.bundle import load_bundle
from maskrcnn.model.network import build_network
from maskrcnn.synthetic import write_shelves
from maskrcnn.training import checkpoint, worker
from maskrcnn.training.arguments import TrainArguments
from maskrcnn.training.checkpoint import TrainState
from maskrcnn.training.job import label_table
from maskrcnn.training.metrics import read_metrics
from maskrcnn.training.samples import Sample
from maskrcnn.training.settings import Place, RunSettings
from maskrcnn.training.validation import ValidationTurns
from maskrcnn.training.worker import WorkerRun
from tests.live_network import quick_networks

pytestmark = pytest.mark.filterwarnings("ignore::maskrcnn.config.UnusualValueWarning")
NUM_IMAGES, GLOBAL_BATCH = 6, 2


class Trial:
    """A training in this process, on drawn shelves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.is_preempted = False
        write_shelves(folder / "set", NUM_IMAGES, seed=3, width=64, height=64, num_boards=1)
        self.coco = load_coco(str(folder / "set" / "annotations.json"))
        self.output = folder / "out"

    def settings(self, **changes: Any) -> RunSettings:
        arguments = TrainArguments(
            images="-", annotations="-", output="-", backbone="resnet18", weights="none", norm="frozen",
            min_size=64, max_size=64, rois_per_image=8, anchors_per_image=16, proposals_per_image=20,
            learning_rate=1e-5, max_steps=4, batch_size=GLOBAL_BATCH, momentum=0.0, warmup_steps=0, decay="constant",
        )  # fmt: skip
        settings = RunSettings(
            output_uri=str(self.output), run_id="run", images_uri=str(self.folder / "set" / "images"),
            val_images_uri=str(self.folder / "set" / "images"), model=arguments.model(len(self.coco.categories)),
            preprocess=arguments.preprocess, thresholds=arguments.thresholds,
            config=arguments.train_config(NUM_IMAGES), categories=label_table(self.coco.categories), provenance={},
            loader_workers=0, cache_bytes=0, validation_turns=ValidationTurns(0, 0), save_steps=0, save_s=0,
            keep_checkpoints=2, log_steps=1,
        )  # fmt: skip
        return replace(settings, **changes)

    def run(self, settings: RunSettings, *, validates: bool = False) -> TrainState:
        if not self.output.exists():
            torch.manual_seed(0)
            network = build_network(settings.model, settings.preprocess, settings.thresholds)
            checkpoint.save_checkpoint(str(self.output), TrainState(), checkpoint.first_tensors(network))
        place = Place(
            rank=0, world_size=1, device=torch.device("cpu"), say=self.said.append, show=lambda glance: None,
            mark=lambda step: None, is_preempted=lambda: self.is_preempted,
        )  # fmt: skip
        run = WorkerRun(settings, place, self.coco, self.coco if validates else None)
        run.resume()
        while True:
            run.validate_if_due()
            run.save_if_due()
            if run.is_done:
                return run.finish()
            run.learn()

    def losses(self) -> list[float]:
        return [line["loss"] for line in read_metrics(str(self.output)) if "loss" in line]

    def said_of(self, word: str) -> list[str]:
        return [text for text in self.said if word in text]


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Trial(tmp_path)
    torch.set_num_threads(before)


def raising_once(step: int) -> Callable[[int, Sequence[Sample], Tensor], Tensor]:
    """Give a hook that is out of memory in a step's backward pass, once."""
    is_armed = True

    def hook(current: int, _: Sequence[Sample], sums: Tensor) -> Tensor:
        nonlocal is_armed

        def fail(gradient: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("no memory left for this test")

        if current == step and is_armed:
            is_armed = False
            sums.register_hook(fail)
        return sums

    return hook


def test_out_of_memory_halves_the_micro_batch_and_the_curve_stays(trial: Trial, tmp_path: Path) -> None:
    undisturbed = Trial(tmp_path / "undisturbed")
    undisturbed.run(undisturbed.settings())
    state = trial.run(trial.settings(on_losses=raising_once(1)))
    assert (state.step, state.micro_batch_size, state.num_samples) == (4, 1, 4 * GLOBAL_BATCH)
    assert trial.losses() == pytest.approx(undisturbed.losses(), rel=1e-4)
    assert trial.said_of("memory") == [
        "step 1: out of memory; micro-batches of 1 from now on, global batch and learning rate as they were"
    ]
    rates = {line["learning_rate"] for line in read_metrics(str(trial.output))}
    assert rates == {1e-5}


def test_out_of_memory_in_the_last_step_is_made_good_too(trial: Trial) -> None:
    state = trial.run(trial.settings(on_losses=raising_once(3)))
    assert state.step == 4
    assert len(trial.losses()) == 4
    assert len(trial.said_of("memory")) == 1


def test_a_machine_that_will_be_taken_away_makes_it_save_at_once(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PREEMPTION_CHECK_S", 1e-6)
    trial.is_preempted = True
    trial.run(trial.settings())
    assert trial.said_of("taken away")
    assert set(checkpoint.list_checkpoints(str(trial.output))) > {4}, "also before the last step"


def test_checkpoints_come_by_minutes_and_know_no_more_steps_than_the_metrics(trial: Trial) -> None:
    trial.run(trial.settings(save_s=1e-6, keep_checkpoints=9))
    assert set(checkpoint.list_checkpoints(str(trial.output))) > {0, 4}, "also between the first and the last"
    assert len(trial.losses()) == 4
    assert trial.run(trial.settings()).step == 4, "nothing is left"


def test_validation_by_steps_keeps_the_best_bundle_and_its_checkpoint(trial: Trial) -> None:
    settings = trial.settings(validation_turns=ValidationTurns(2, 0), keep_checkpoints=1)
    with quick_networks():
        state = trial.run(settings, validates=True)
    scores = {
        line["step"]: line["validation"]["segm"]["AP"]
        for line in read_metrics(str(trial.output))
        if "validation" in line
    }
    assert sorted(scores) == [2, 4]
    assert state.best_score == max(scores.values())
    assert state.best_step in checkpoint.list_checkpoints(str(trial.output))
    assert load_bundle(str(trial.output / "bundle")).provenance["step"] == state.best_step
    assert load_bundle(str(trial.output / "bundle-last")).provenance["step"] == 4
    assert len(trial.said_of("validation mAP")) == 2


def test_empty_masks_are_named_once(trial: Trial) -> None:
    packed = trial.coco.segmentations
    counts = [packed.counts[index] for index in range(len(packed.counts))]
    counts[0] = encode_counts(np.array([64 * 64]))
    trial.coco = replace(trial.coco, segmentations=replace(packed, counts=PackedBytes.from_list(counts)))
    config = trial.settings().config
    two_epochs = replace(config, schedule=replace(config.schedule, max_steps=2 * NUM_IMAGES // GLOBAL_BATCH))
    trial.run(trial.settings(config=two_epochs))
    [said] = trial.said_of("masks are empty")
    assert f"annotations {trial.coco.annotation_ids[0]} of image {trial.coco.image_ids[0]}" in said
