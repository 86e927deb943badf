"""Checkpoints: a training goes on as if nothing had been, whatever became of the newest one."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead

from maskrcnn.coco.annotations import load_coco
from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.errors import BundleError, OutputError, UnavailableError
from maskrcnn.model.network import build_network
from maskrcnn.synthetic import CATEGORIES, write_shelves
from maskrcnn.training import checkpoint
from maskrcnn.training.augment import AugmentConfig
from maskrcnn.training.checkpoint import (
    CheckpointWriter,
    TrainState,
    list_checkpoints,
    load_newest,
    prune_checkpoints,
    restore_tensors,
    save_checkpoint,
    training_tensors,
)
from maskrcnn.training.network import prepare_network
from maskrcnn.training.recipe import TrainConfig
from maskrcnn.training.samples import CocoSamples, Sample
from maskrcnn.training.schedule import ScheduleConfig
from maskrcnn.training.step import Learner, StepResult
from maskrcnn.training.transforms import SampleKey

PREPROCESS = PreprocessConfig(64, 64)
CONFIG = TrainConfig(
    schedule=ScheduleConfig(learning_rate=1e-3, max_steps=20, decay="constant", warmup_steps=0),
    rois_per_image=16,
    anchors_per_image=32,
    proposals_per_image=50,
    precision="fp32",
    ema_decay=0.9,
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("shelves")
    path = write_shelves(folder, 2, seed=1, width=64, height=64, num_boards=1)
    found = CocoSamples(load_coco(str(path)), str(folder / "images"), PREPROCESS, AugmentConfig())
    return [found[SampleKey(0, index)] for index in range(2)]


def build_learner(config: TrainConfig, seed: int) -> tuple[Any, Learner]:
    torch.manual_seed(seed)
    sizes = ((8,), (16,), (24,), (32,), (48,))
    model = ModelConfig("resnet18", num_labels=len(CATEGORIES) + 1, norm="batch", anchor_sizes_px=sizes)
    network = build_network(model, PREPROCESS, ThresholdConfig())
    # Half of all weights are in the box head, and every one of them is written.
    network.roi_heads.box_head = TwoMLPHead(256 * 7 * 7, 16)
    network.roi_heads.box_predictor = FastRCNNPredictor(16, model.num_labels)
    return network, Learner(prepare_network(network, config), PREPROCESS, config)


def learn(learner: Learner, samples: list[Sample], step: int) -> StepResult:
    return learner.step(samples[step : step + 1], step, (64, 64)).read()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_training_goes_on_as_without_the_interruption(tmp_path: Path, samples: list[Sample], optimizer: Any) -> None:
    config = replace(CONFIG, optimizer=optimizer)
    network, learner = build_learner(config, seed=0)
    assert learn(learner, samples, 0).is_finite
    state = TrainState(1, 1, 1, 12.5, ("step 0 on image 3",), best_step=1, best_score=0.25)
    save_checkpoint(str(tmp_path), state, checkpoint.copy_to_host(training_tensors(learner, network)))
    random_state = torch.get_rng_state()
    expected = learn(learner, samples, 1)

    other_network, other = build_learner(config, seed=7)
    found = load_newest(str(tmp_path))
    assert found is not None
    assert (found.state, found.passed_over) == (state, ())
    restore_tensors(other, other_network, found)
    assert torch.get_rng_state().equal(random_state)
    assert learn(other, samples, 1) == expected
    restored, uninterrupted = training_tensors(other, other_network), training_tensors(learner, network)
    assert [name for name in uninterrupted if not restored[name].equal(uninterrupted[name])] == []
    slots = {name.rsplit(".", 1)[1] for name in restored if name.startswith("optimizer.")}
    assert slots == ({"momentum_buffer"} if optimizer == "sgd" else {"step", "exp_avg", "exp_avg_sq"})
    assert float(restored["average.num_updates"]) == 2


def small_learner(config: TrainConfig = CONFIG, num_inputs: int = 3) -> tuple[Any, Learner]:
    network = nn.Linear(num_inputs, 2)
    return network, Learner(network, PREPROCESS, config)


def save_small(output: Path, step: int, learner: Learner, network: nn.Module) -> None:
    save_checkpoint(str(output), TrainState(step), checkpoint.copy_to_host(training_tensors(learner, network)))


@pytest.mark.parametrize(
    "config",
    [CONFIG, replace(CONFIG, momentum=0.0), replace(CONFIG, ema_decay=None), replace(CONFIG, optimizer="adamw")],
)
def test_every_kind_of_training_can_be_restored(tmp_path: Path, config: TrainConfig) -> None:
    network, learner = small_learner(config)
    with torch.no_grad():
        for number, tensor in enumerate(training_tensors(learner, network).values()):
            tensor.fill_(number + 1)
    save_small(tmp_path, 1, learner, network)
    other_network, other = small_learner(config)
    found = load_newest(str(tmp_path))
    assert found is not None
    restore_tensors(other, other_network, found)
    restored = training_tensors(other, other_network)
    assert {name: tensor.flatten()[0].item() for name, tensor in restored.items()} == {
        name: number + 1 for number, name in enumerate(restored)
    }


def test_the_checkpoint_before_the_first_step_starts_the_average_with_its_weights(tmp_path: Path) -> None:
    network, _ = small_learner()
    save_checkpoint(str(tmp_path), TrainState(), checkpoint.first_tensors(network))
    other_network, other = small_learner()
    found = load_newest(str(tmp_path))
    assert found is not None
    restore_tensors(other, other_network, found)
    assert other_network.weight.equal(network.weight)
    assert other.average is not None
    assert other.average.weights[0].equal(network.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_inputs": 4}, r"tensor model.weight must have the shape \(2, 4\), got \(2, 3\), in .*step-00000001"),
        ({"config": replace(CONFIG, optimizer="adamw")}, "tensor optimizer.weight.step is missing"),
        ({"config": replace(CONFIG, ema_decay=None)}, r"tensor average\.\w+ has no place in the network"),
    ],
)
def test_another_networks_checkpoint_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save_small(tmp_path, 1, *reversed(small_learner()))
    found = load_newest(str(tmp_path))
    assert found is not None
    network, learner = small_learner(**change)
    before = network.weight.detach().clone()
    with pytest.raises(BundleError, match=message):
        restore_tensors(learner, network, found)
    assert network.weight.equal(before)


def save(output: Path, step: int, value: float = 0.0) -> Path:
    return Path(save_checkpoint(str(output), TrainState(step), {"model.a": torch.full((500,), value)}))


def flip(folder: Path) -> None:
    body = bytearray((folder / "state.safetensors").read_bytes())
    body[-1] ^= 1
    (folder / "state.safetensors").write_bytes(body)


def cut(folder: Path) -> None:
    body = (folder / "state.safetensors").read_bytes()
    (folder / "state.safetensors").write_bytes(body[:-1])


def edit(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        document = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps({**document, **changes}))

    return change


def write_json(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "state.json").write_text(text) and None


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped": (flip, "state.safetensors must have the sha256 "),
    "cut": (cut, "(2079 bytes)"),
    "no tensors": (lambda folder: (folder / "state.safetensors").unlink(), "No such file or directory"),
    "broken JSON": (write_json('{"sha256": "'), "Unterminated string"),
    "empty JSON": (write_json(""), "Expecting value"),
    "JSON of another kind": (write_json("[]"), "list"),
    "no sha256": (write_json("{}"), "'sha256'"),
    "no state": (edit(state=None), "NoneType"),
    "state of another kind": (edit(state=[]), "list"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_newest_checkpoint_is_passed_over_and_named(tmp_path: Path, name: str) -> None:
    damage, reason = DAMAGES[name]
    save(tmp_path, 2, 2.0)
    newest = save(tmp_path, 4, 4.0)
    damage(newest)
    found = load_newest(str(tmp_path))
    assert found is not None
    assert found.state.step == 2
    assert found.tensors["model.a"][0] == 2
    [passed_over] = found.passed_over
    assert passed_over.startswith(f"{newest}: ")
    assert reason in passed_over


def test_a_checkpoint_whose_writing_was_cut_off_does_not_count(tmp_path: Path) -> None:
    save(tmp_path, 2)
    (save(tmp_path, 4) / "state.json").unlink()
    assert sorted(list_checkpoints(str(tmp_path))) == [2]
    found = load_newest(str(tmp_path))
    assert found is not None
    assert (found.state.step, found.passed_over) == (2, ())


def test_no_checkpoint_is_none_and_only_damaged_ones_are_an_error(tmp_path: Path) -> None:
    assert load_newest(str(tmp_path)) is None
    for step in (2, 4):
        cut(save(tmp_path, step))
    with pytest.raises(OutputError, match="checkpoints must hold a sound one; .*step-00000004.*step-00000002"):
        load_newest(str(tmp_path))


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    body = pickle.dumps(Payload(tmp_path / "was run"))
    (folder / "state.safetensors").write_bytes(body)
    edit(sha256=hashlib.sha256(body).hexdigest())(folder)
    with pytest.raises(OutputError, match="must be a whole safetensors file"):
        load_newest(str(tmp_path))
    assert not (tmp_path / "was run").exists()


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(6):
        save(tmp_path, step)
    prune_checkpoints(str(tmp_path), 2, TrainState(5, best_step=1))
    assert sorted(list_checkpoints(str(tmp_path))) == [1, 4, 5]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3


def test_a_damaged_one_from_before_is_not_kept_instead_of_the_last(tmp_path: Path) -> None:
    save(tmp_path, 2)
    cut(save(tmp_path, 9))
    writer = CheckpointWriter(str(tmp_path), 1)
    writer.write(TrainState(3), {"model.a": torch.zeros(2)})
    writer.wait()
    assert sorted(list_checkpoints(str(tmp_path))) == [3]


def test_the_writer_copies_and_waits_for_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, int, float]] = []

    def slow(output_uri: str, state: TrainState, tensors: dict[str, Tensor]) -> None:
        time.sleep(0.1)
        events.append(("end", state.step, tensors["model.a"].item()))

    monkeypatch.setattr(checkpoint, "save_checkpoint", slow)
    writer = CheckpointWriter(str(tmp_path), 3)
    tensor = torch.tensor(1.0)
    writer.write(TrainState(1), {"model.a": tensor})
    tensor.fill_(2)
    writer.write(TrainState(2), {"model.a": tensor})
    assert events == [("end", 1, 1.0)]
    writer.wait()
    assert events == [("end", 1, 1.0), ("end", 2, 2.0)]


def test_the_writer_raises_what_became_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def fail(output_uri: str, state: TrainState, tensors: dict[str, Tensor]) -> None:
        asked.append(state.step)
        raise UnavailableError("s3://b/k", "reset")

    monkeypatch.setattr(checkpoint, "save_checkpoint", fail)
    writer = CheckpointWriter(str(tmp_path), 3)
    writer.write(TrainState(1), {})
    with pytest.raises(UnavailableError, match="reset"):
        writer.write(TrainState(2), {})
    assert asked == [1]
    writer.wait()  # it was told
