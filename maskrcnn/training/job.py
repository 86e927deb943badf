"""What the driver of a training does: check everything, say what will happen, write the first weights, start workers.

OUTPUT/training.json     what the training was begun with
OUTPUT/bundle            the best model by validation, else the last
OUTPUT/bundle-last       the last model
OUTPUT/metrics.jsonl     a line a step, and one a validation
OUTPUT/tensorboard/      the same for TensorBoard
OUTPUT/checkpoints/      the newest ones, and the best
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch

from maskrcnn import cluster, storage
from maskrcnn.coco.annotations import CocoDataset, load_coco
from maskrcnn.coco.categories import CategoryMap
from maskrcnn.errors import AccessError, InputError, NotFoundError, OutputError
from maskrcnn.model.bundle import Category
from maskrcnn.model.bundle_files import JSON_NAME
from maskrcnn.model.network import build_network
from maskrcnn.model.weights import load_weights
from maskrcnn.redaction import redact_values
from maskrcnn.storage import PutAnswer
from maskrcnn.training import checkpoint
from maskrcnn.training.arguments import TrainArguments, arguments_to_json, parse_workers, refuse_changes
from maskrcnn.training.augment import AugmentConfig
from maskrcnn.training.banner import describe_training
from maskrcnn.training.bundles import BUNDLE, LAST_BUNDLE
from maskrcnn.training.checkpoint import TrainState
from maskrcnn.training.group import WorkerGroup, size_group
from maskrcnn.training.preflight import check_categories, check_images, check_trainable, digest_samples
from maskrcnn.training.recipe import TrainConfig
from maskrcnn.training.samples import CocoSamples
from maskrcnn.training.settings import RunSettings
from maskrcnn.training.step import LossHook
from maskrcnn.training.trainer import run_group
from maskrcnn.training.validation import ValidationTurns, check_scorable

_Loaded = TypeVar("_Loaded")

TRAINING_NAME = "training.json"


@dataclass(frozen=True)
class TrainReport:
    """What a training left."""

    bundle_uri: str
    state: TrainState
    was_done: bool
    """Before this run began."""


class TrainingJob:
    """One run of a training: checked when it is built, run once.

    Args:
        arguments: what the user asked for.
        on_losses: sees every micro-batch's losses; for tests.

    Raises:
        InputError: when the annotations, the images or the output cannot be used.
    """

    def __init__(self, arguments: TrainArguments, *, on_losses: LossHook | None = None) -> None:
        self._arguments, self._on_losses = arguments, on_losses
        self._output_uri = storage.normalise(arguments.output)
        self._bundle_uri = storage.join(self._output_uri, BUNDLE)
        begun = self._read_begun()
        self._train = _load("--annotations", arguments.annotations, load_coco)
        samples = CocoSamples(self._train, arguments.images, arguments.preprocess, AugmentConfig())
        self._counts = samples.counts
        check_trainable(self._counts, self._train.categories, arguments.annotations)
        check_images(self._train, arguments.images, "--images")
        self._val_images = arguments.val_images or arguments.images
        self._val = self._load_val()
        learnt = samples.learnt_indices(arguments.negatives)
        self._num_learnt = len(learnt)
        self._samples_sha256 = digest_samples(self._train, learnt)
        # Trainings that were begun by older versions hold none.
        if begun.get("samples_sha256", self._samples_sha256) != self._samples_sha256:
            rule = "must hold the images, annotations and categories that the training was begun with, and does not"
            raise InputError("--annotations", rule, arguments.annotations, "give that file, or a new --output")
        # The global batch is the one that the training was begun with, whatever number of workers goes on.
        begun_workers = begun.get("arguments", {}).get("num_workers", arguments.num_workers)
        self._config: TrainConfig = replace(arguments, num_workers=begun_workers).train_config(self._num_learnt)

    def run(self, announce: Callable[[str], None] = lambda text: None) -> TrainReport:
        """Train; ``announce`` is told what will happen, just before it does.

        Raises:
            InputError: when the weights, the output or the cluster cannot be used.
            MaskrcnnError: when the training failed.
        """
        done = self._state_if_done()
        if done is not None:
            return TrainReport(self._bundle_uri, done, was_done=True)
        group = self._connect()
        try:
            loaded = self._begin()
        except (AccessError, NotFoundError) as error:
            raise OutputError("--output", f"cannot be written: {error.reason}", error.uri) from error
        announce(
            describe_training(
                self._arguments, self._config, group, self._counts, num_learnt=self._num_learnt, loaded=loaded
            )
        )
        settings = self._settings(group)
        state = run_group(settings, group, self._train, self._val, max_failures=self._arguments.max_failures)
        return TrainReport(self._bundle_uri, state, was_done=False)

    def _read_begun(self) -> dict[str, Any]:
        """Read what the output was begun with; refuse one that is used, unless it is to be gone on with."""
        uri = storage.join(self._output_uri, TRAINING_NAME)
        is_begun = storage.exists(uri)
        is_used = is_begun or storage.exists(storage.join(self._bundle_uri, JSON_NAME))
        if is_used and not self._arguments.resume:
            remedy = "go on with it by --resume, or name another"
            raise OutputError("--output", "must be a new one, and holds a training", self._output_uri, remedy)
        if is_used and not is_begun:
            raise OutputError("--output", f"must hold {TRAINING_NAME} to be resumed, and does not", self._output_uri)
        if not is_begun:
            return {}
        try:
            begun: dict[str, Any] = json.loads(storage.read_bytes(uri))
            if not isinstance(begun["arguments"], dict):
                raise TypeError("its arguments are no object")
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(TRAINING_NAME, f"must be as it was written: {error}", uri) from None
        refuse_changes(self._arguments, begun["arguments"], self._output_uri)
        return begun

    def _load_val(self) -> CocoDataset | None:
        if self._arguments.val_annotations is None:
            return None
        val = _load("--val-annotations", self._arguments.val_annotations, load_coco)
        check_categories(self._train, val)
        check_scorable(val)
        check_images(val, self._val_images, "--val-images" if self._arguments.val_images else "--images")
        return val

    def _state_if_done(self) -> TrainState | None:
        """Give the last state of a training that has nothing left to do."""
        steps = checkpoint.list_checkpoints(self._output_uri)
        has_bundle = storage.exists(storage.join(self._output_uri, LAST_BUNDLE, JSON_NAME))
        if not has_bundle or max(steps, default=0) < self._config.schedule.max_steps:
            return None
        found = checkpoint.load_newest(self._output_uri)
        return found.state if found is not None and found.state.step >= self._config.schedule.max_steps else None

    def _connect(self) -> WorkerGroup:
        cluster.connect()
        nodes, growth = cluster.nodes(), cluster.growth()
        has_gpus = any(node.get("GPU", 0) for node in [*nodes, growth])
        if self._arguments.device == "cuda" and not has_gpus:
            raise InputError("--device", "must be auto or cpu: the cluster has no GPU, got cuda")
        wants_gpu = has_gpus and self._arguments.device != "cpu"
        return size_group(nodes, growth, wants_gpu=wants_gpu, num_workers=parse_workers(self._arguments.num_workers))

    def _begin(self) -> str:
        """Write the checkpoint before the first step, unless there is one; say what the workers will load."""
        existing = checkpoint.list_checkpoints(self._output_uri)
        if existing:
            return f"checkpoint {existing[max(existing)]}"
        arguments = self._arguments
        torch.manual_seed(arguments.seed)
        model = arguments.model(len(self._train.categories))
        network = build_network(model, arguments.preprocess, arguments.thresholds)
        report = load_weights(network, arguments.weights, model, label_table(self._train.categories))
        document = {
            "format_version": 1,
            "arguments": arguments_to_json(arguments),
            "samples_sha256": self._samples_sha256,
            "weights": str(report),
        }
        body = (json.dumps(redact_values(document), indent=2) + "\n").encode()
        answer = storage.put_if_absent(storage.join(self._output_uri, TRAINING_NAME), body)
        if answer == PutAnswer.EXISTS and not self._arguments.resume:
            raise OutputError("--output", "must be a new one, and another training began there", self._output_uri)
        checkpoint.save_checkpoint(self._output_uri, TrainState(), checkpoint.first_tensors(network))
        return str(report)

    def _settings(self, group: WorkerGroup) -> RunSettings:
        arguments = self._arguments
        steps_per_epoch = -(-self._num_learnt // self._config.global_batch_size)
        loader_workers = arguments.loader_workers
        return RunSettings(
            output_uri=self._output_uri,
            run_id=uuid.uuid4().hex,
            images_uri=storage.normalise(arguments.images),
            val_images_uri=storage.normalise(self._val_images),
            model=arguments.model(len(self._train.categories)),
            preprocess=arguments.preprocess,
            thresholds=arguments.thresholds,
            config=self._config,
            categories=label_table(self._train.categories),
            provenance={"training_set": arguments.annotations, "arguments": arguments_to_json(arguments)},
            loader_workers=loader_workers if loader_workers is not None else 4 if group.num_gpus else 0,
            cache_bytes=int(arguments.cache_gib * 2**30),
            validation_turns=ValidationTurns(
                every_steps=_steps_of(arguments.validate_epochs, steps_per_epoch),
                every_s=arguments.validate_minutes * 60,
            ),
            save_steps=_steps_of(arguments.save_epochs, steps_per_epoch),
            save_s=arguments.save_minutes * 60,
            keep_checkpoints=arguments.keep_checkpoints,
            log_steps=arguments.log_steps,
            on_losses=self._on_losses,
        )


def _steps_of(epochs: float, steps_per_epoch: int) -> int:
    """Give the steps of some epochs; less than one only for none, since 0 stands for never."""
    return max(1, round(epochs * steps_per_epoch)) if epochs else 0


def label_table(categories: CategoryMap) -> tuple[Category, ...]:
    """Give the network's labels of a file's categories: contiguous from 1, in the order of their ids."""
    named = zip(categories.ids, categories.names, strict=True)
    return tuple(Category(category_id, name, label) for label, (category_id, name) in enumerate(named, start=1))


def _load(option: str, uri: str, load: Callable[[str], _Loaded]) -> _Loaded:
    try:
        return load(uri)
    except (NotFoundError, AccessError) as error:
        raise InputError(option, f"cannot be read: {error.reason}", error.uri) from error
