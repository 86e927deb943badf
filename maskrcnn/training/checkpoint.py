"""Checkpoints: everything that a training needs to go on, in safetensors and JSON. Nothing is unpickled.

    OUTPUT/checkpoints/step-00000120/state.safetensors     model, moving average, optimizer, random state
    OUTPUT/checkpoints/step-00000120/state.json            counters, and the sha256 of both: written last

A checkpoint whose JSON is there is whole; one whose bytes disagree with it is passed over for the one before.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from maskrcnn import storage
from maskrcnn.config import config_from_dict
from maskrcnn.errors import BundleError, NotFoundError, OutputError
from maskrcnn.model.tensors import check_fit, parse_safetensors
from maskrcnn.redaction import redact_values
from maskrcnn.training.step import Learner

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"
_JSON, _TENSORS = "state.json", "state.safetensors"
_NAME = re.compile(r"/step-(\d{8,})/state\.json$")


@dataclass(frozen=True)
class TrainState:
    """Where a training stands, besides its tensors."""

    step: int = 0
    """Updates that are done; the next step has this number."""
    num_samples: int = 0
    """Samples that are consumed."""
    micro_batch_size: int = 0
    """Halved when a device's memory did not hold it; 0 before the first step."""
    seconds: float = 0.0
    """Spent training, over all attempts."""
    skipped: tuple[str, ...] = ()
    """Steps that were skipped since a loss was not finite, and their images."""
    best_step: int | None = None
    best_score: float | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and checked."""

    uri: str
    state: TrainState
    tensors: dict[str, Tensor] = field(repr=False)
    passed_over: tuple[str, ...] = ()
    """Newer ones that could not be used, and why."""


def training_tensors(learner: Learner, network: torch.nn.Module) -> dict[str, Tensor]:
    """Name every tensor of a training: where it is, not copied.

    Args:
        learner: of the network's weights.
        network: the network that is saved; its parameters are the ones that the learner trains.
    """
    tensors = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    name_of = {id(parameter): name for name, parameter in network.named_parameters()}
    for parameter, state in learner.optimizer.state.items():
        for slot, tensor in state.items():
            tensors[f"optimizer.{name_of[id(parameter)]}.{slot}"] = tensor
    if learner.average is not None:
        trained = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
        tensors |= {f"average.{name}": weight for name, weight in zip(trained, learner.average.weights, strict=True)}
        tensors["average.num_updates"] = learner.average.num_updates
    return tensors


def restore_tensors(learner: Learner, network: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's tensors into a training.

    Raises:
        BundleError: when they are another network's or optimizer's.
    """
    places = training_tensors(learner, network)
    found = {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith("random.")}
    if any(not name.startswith("model.") for name in found):
        check_fit(places, found, checkpoint.uri)
    else:  # the first one, from before any step: only weights
        check_fit({name: tensor for name, tensor in places.items() if name.startswith("model.")}, found, checkpoint.uri)
    with torch.no_grad():
        for name, tensor in found.items():
            places[name].copy_(tensor)
        if learner.average is not None and "average.num_updates" not in found:
            learner.average.restart()
    if "random.torch" in checkpoint.tensors:
        torch.set_rng_state(checkpoint.tensors["random.torch"])


def copy_to_host(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, so that they can be written while the training goes on."""
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return {**copies, "random.torch": torch.get_rng_state()}


def save_checkpoint(output_uri: str, state: TrainState, tensors: dict[str, Tensor]) -> str:
    """Write a checkpoint and give its URI.

    Raises:
        StorageError: when the store does not take it.
    """
    uri = storage.join(output_uri, FOLDER, f"step-{state.step:08d}")
    body = safetensors.torch.save(tensors)
    counters = redact_values(asdict(state))
    document = {
        "format_version": 1,
        "sha256": hashlib.sha256(body).hexdigest(),
        "state_sha256": _digest(counters),
        "state": counters,
    }
    storage.put(storage.join(uri, _TENSORS), body)
    storage.put(storage.join(uri, _JSON), (json.dumps(document, indent=2) + "\n").encode())
    return uri


def list_checkpoints(output_uri: str) -> dict[int, str]:
    """List the checkpoints that were written to their end: their URIs by step."""
    found = (_NAME.search(uri) for uri in storage.list_uris(storage.join(output_uri, FOLDER)))
    return {int(match[1]): match.string.removesuffix(f"/{_JSON}") for match in found if match}


def load_newest(output_uri: str) -> Checkpoint | None:
    """Read the newest checkpoint that is sound; None where there is none at all.

    Raises:
        OutputError: when there are checkpoints, but none is sound.
        StorageError: when the store does not answer.
    """
    passed_over: list[str] = []
    for _, uri in sorted(list_checkpoints(output_uri).items(), reverse=True):
        try:
            state, tensors = _read(uri)
        except (BundleError, NotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
            passed_over.append(f"{uri}: {error}")
            logger.warning("checkpoint %s cannot be used, the one before is taken: %s", uri, error)
        else:
            return Checkpoint(uri, state, tensors, tuple(passed_over))
    if passed_over:
        raise OutputError("checkpoints", f"must hold a sound one; {'; '.join(passed_over)}", output_uri)
    return None


def _read(uri: str) -> tuple[TrainState, dict[str, Tensor]]:
    document = json.loads(storage.read_bytes(storage.join(uri, _JSON)))
    place = storage.join(uri, _TENSORS)
    body = storage.read_bytes(place)
    found = hashlib.sha256(body).hexdigest()
    if found != document["sha256"]:
        raise BundleError(
            _TENSORS, f"must have the sha256 {document['sha256']}, got {found} ({len(body)} bytes)", place
        )
    state = config_from_dict(TrainState, document["state"])
    # Older checkpoints have none.
    if "state_sha256" in document and document["state_sha256"] != _digest(document["state"]):
        raise BundleError(_JSON, f"must have the state whose sha256 is {document['state_sha256']}, got another", uri)
    return state, parse_safetensors(body, place)


def _digest(counters: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(counters, sort_keys=True).encode()).hexdigest()


def prune_checkpoints(output_uri: str, num_to_keep: int, state: TrainState) -> None:
    """Delete all but the newest checkpoints and the best one; the JSON goes first, so that none looks whole.

    Those of later steps go too: the training began before them again, since they were damaged.
    """
    checkpoints = list_checkpoints(output_uri)
    kept = {*sorted(step for step in checkpoints if step <= state.step)[-num_to_keep:], state.best_step}
    for step, uri in checkpoints.items():
        if step not in kept:
            storage.delete(storage.join(uri, _JSON))
            storage.delete(storage.join(uri, _TENSORS))


class CheckpointWriter:
    """Writes checkpoints while the training goes on; one at a time.

    Args:
        output_uri: of the training.
        num_to_keep: the newest ones, besides the best.
    """

    def __init__(self, output_uri: str, num_to_keep: int) -> None:
        self._output_uri, self._num_to_keep = output_uri, num_to_keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._last: Future[None] | None = None

    def write(self, state: TrainState, tensors: dict[str, Tensor]) -> None:
        """Copy the tensors and begin to write; waits for the one before.

        Raises:
            StorageError: when the one before could not be written.
        """
        self.wait()
        self._last = self._thread.submit(self._write, state, copy_to_host(tensors))

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            StorageError: when it could not be.
        """
        if self._last is not None:
            last, self._last = self._last, None
            last.result()

    def _write(self, state: TrainState, tensors: dict[str, Tensor]) -> None:
        save_checkpoint(self._output_uri, state, tensors)
        prune_checkpoints(self._output_uri, self._num_to_keep, state)


def first_tensors(network: torch.nn.Module) -> dict[str, Tensor]:
    """Give what the checkpoint before the first step holds: a network's first weights."""
    return {f"model.{name}": tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
