"""One worker's part of a training: its share of every step, and what follows from what a step did. Knows no Ray.

Every decision is the same on every rank: it follows from the step, from what was summed over the ranks with the
gradients, or from rank 0's clock, which travels the same way. What a step did is read while the next one runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist

from maskrcnn.coco.annotations import CocoDataset
from maskrcnn.coco.evaluate import Metrics
from maskrcnn.errors import InputError, NonFiniteError, OutputError
from maskrcnn.model.network import build_network
from maskrcnn.training import checkpoint
from maskrcnn.training.bundles import BUNDLE, LAST_BUNDLE, save_trained
from maskrcnn.training.checkpoint import CheckpointWriter, TrainState
from maskrcnn.training.image_cache import ImageCache
from maskrcnn.training.loader import load_shares
from maskrcnn.training.network import prepare_network
from maskrcnn.training.reporter import Clock, Reporter
from maskrcnn.training.sampler import build_order, share_of_rank
from maskrcnn.training.samples import CocoSamples, Sample
from maskrcnn.training.settings import Place, RunSettings
from maskrcnn.training.step import Learner, PendingStep, StepResult
from maskrcnn.training.validation import validate

PREEMPTION_CHECK_S = 5.0
_DATA_WAIT, _SAVE, _VALIDATE, _LOOK_FOR_PREEMPTION = range(4)
"""Places of the numbers that are summed over the ranks with the gradients."""


class WorkerRun:
    """One worker's part of a training."""

    def __init__(self, settings: RunSettings, place: Place, train: CocoDataset, val: CocoDataset | None) -> None:
        self._settings, self._config, self._place, self._val = settings, settings.config, place, val
        if settings.config.norms_are_synced and settings.config.global_batch_size % place.world_size:
            rule = f"needs the same images on every worker: {settings.config.global_batch_size} on {place.world_size}"
            raise InputError("--norm sync", rule, remedy="take another --num-workers or --batch-size")
        self._group = dist.group.WORLD if place.world_size > 1 else None
        self._object_group: Any = dist.new_group(backend="gloo") if self._group is not None else None
        self._cache = ImageCache(settings.output_uri, settings.run_id, settings.cache_bytes)
        self._samples = CocoSamples(
            train,
            settings.images_uri,
            settings.preprocess,
            self._config.augment,
            seed=self._config.seed,
            crowds_are_ignored=self._config.crowds == "ignore",
            read=self._cache.read,
        )
        learnt = self._samples.learnt_indices(self._config.negatives)
        self._order = build_order(train.heights, train.widths, learnt, self._config)

        torch.manual_seed(self._config.seed)
        self._network = build_network(settings.model, settings.preprocess, settings.thresholds).to(place.device)
        prepared = prepare_network(self._network, self._config)
        self._learner = Learner(
            prepared, settings.preprocess, self._config, group=self._group, on_losses=settings.on_losses
        )
        self._state = TrainState()
        self._pending: PendingStep | None = None
        self._loader: Iterator[list[Sample]] | None = None
        self._asked = {_SAVE: False, _VALIDATE: False, _LOOK_FOR_PREEMPTION: False}
        self._validated_step = self._saved_step = -1
        self._writer = CheckpointWriter(settings.output_uri, settings.keep_checkpoints)
        self._clock = Clock(0)
        self._reporter: Reporter | None = None  # of rank 0

    def resume(self) -> None:
        """Go on with the newest sound checkpoint, which rank 0 reads and gives to the others."""
        if self._place.rank == 0:
            found = checkpoint.load_newest(self._settings.output_uri)
            if found is None:
                raise OutputError("checkpoints", "must hold the first one, and hold none", self._settings.output_uri)
            for reason in found.passed_over:
                self._say(f"passed over a damaged checkpoint: {reason}")
            checkpoint.restore_tensors(self._learner, self._network, found)
            self._state = found.state
        if self._group is not None:
            box: list[Any] = [self._state]
            dist.broadcast_object_list(box, src=0, group=self._object_group)
            self._state = box[0]
            self._broadcast(checkpoint.training_tensors(self._learner, self._network))
        self._learner.micro_batch_size = self._state.micro_batch_size or self._config.micro_batch_size
        self._saved_step = self._state.step
        self._clock = Clock(self._state.seconds)
        if self._place.rank == 0:
            max_steps = self._config.schedule.max_steps
            self._reporter = Reporter(
                self._settings.output_uri,
                self._state.step,
                max_steps=max_steps,
                steps_per_epoch=self._order.steps_per_epoch,
                log_steps=self._settings.log_steps,
                turns=None if self._val is None else self._settings.validation_turns,
                show=self._place.show,
            )
            self._say(f"{self._place.world_size} worker(s) at step {self._state.step:,} of {max_steps:,}")

    @property
    def is_done(self) -> bool:
        """Say whether every step is done."""
        self._settle(if_last=True)
        return self._state.step == self._config.schedule.max_steps

    def learn(self) -> None:
        """Do one step; what the one before did is read while this one runs."""
        step = self._state.step
        keys = self._order.keys_of(step)
        share = share_of_rank(len(keys), self._place.rank, self._place.world_size)
        begin = time.monotonic()
        if self._loader is None:
            self._loader = load_shares(
                self._samples,
                self._order,
                range(step, self._config.schedule.max_steps),
                rank=self._place.rank,
                world_size=self._place.world_size,
                num_workers=self._settings.loader_workers,
                pins_memory=self._place.device.type == "cuda",
            )
        samples = next(self._loader)
        waited_s = time.monotonic() - begin
        self._name_left_out(samples)
        launched = self._learner.step(
            samples,
            step,
            self._samples.padded_shape(keys),
            first_place=share.start,
            num_places=len(keys),
            notices=self._notices(waited_s),
        )
        self._state = replace(self._state, step=step + 1, num_samples=self._order.samples_before(step + 1))
        before, self._pending = self._pending, launched
        if before is not None:
            self._take(before.read())

    def _name_left_out(self, samples: list[Sample]) -> None:
        """Say which masks are empty, in the epoch in which each image comes for the first time."""
        for sample in samples:
            if sample.left_out_ids and sample.key.epoch == 0:
                ids = ", ".join(map(str, sample.left_out_ids))
                self._place.say(f"left out, since their masks are empty: annotations {ids} of image {sample.image_id}")

    def _settle(self, *, if_last: bool = False) -> None:
        """Read the step that may still be running; ``if_last``: only when there is none to come."""
        if self._pending is not None and not (if_last and self._state.step < self._config.schedule.max_steps):
            last, self._pending = self._pending, None
            self._take(last.read())

    def _take(self, result: StepResult) -> None:
        """Draw the consequences of a step, the same on every rank."""
        if result.is_out_of_memory:
            self._learner.halve(-(-self._config.global_batch_size // self._place.world_size))
            self._pending, self._loader = None, None  # whatever ran since has changed nothing
            micro_batch_size = self._learner.micro_batch_size
            self._state = replace(
                self._state,
                step=result.step,
                num_samples=self._order.samples_before(result.step),
                micro_batch_size=micro_batch_size,
            )
            self._say(
                f"step {result.step}: out of memory; micro-batches of {micro_batch_size} from now on, "
                "global batch and learning rate as they were"
            )
            return
        if not result.is_finite:
            self._skip(result)
        for notice in self._asked:
            self._asked[notice] |= result.notices[notice] > 0
        if self._reporter is not None:
            num_images = len(self._order.keys_of(result.step))
            wait_s = result.notices[_DATA_WAIT] / self._place.world_size
            self._reporter.add_step(result, num_images, wait_s, self._order.samples_before(result.step + 1))

    def _skip(self, result: StepResult) -> None:
        keys = self._order.keys_of(result.step)
        places = result.nonfinite_places or range(len(keys))
        losses = ", ".join(f"{name} {value:g}" for name, value in result.losses.items())
        images = "; ".join(self._samples.describe(keys[place]) for place in places)
        skipped = f"step {result.step} ({losses}, gradient {result.grad_norm:g}) on {images}"
        self._state = replace(self._state, skipped=(*self._state.skipped, skipped))
        if len(self._state.skipped) > self._config.max_nonfinite_steps:
            raise NonFiniteError(self._state.skipped)
        self._say(f"skipped {skipped}")

    def validate_if_due(self) -> None:
        """Score the network, keep the best bundle."""
        step, settings = self._state.step, self._settings
        is_end = step == self._config.schedule.max_steps
        is_turn = settings.validation_turns.is_turn(step)
        if self._val is None or step == self._validated_step or not (is_end or is_turn or self._asked[_VALIDATE]):
            return
        self._settle()
        if self._state.step != step:
            return
        self._asked[_VALIDATE], self._validated_step = False, step
        if self._group is not None:
            self._broadcast(dict(self._network.named_buffers()))  # batch norms see other images on every rank
        network = self._final_network()
        metrics = validate(
            network,
            self._val,
            settings.val_images_uri,
            preprocess=settings.preprocess,
            max_detections=settings.thresholds.max_detections,
            categories=settings.categories,
            precision=self._config.precision,
            rank=self._place.rank,
            world_size=self._place.world_size,
            group=self._object_group,
        )
        if self._reporter is not None and metrics is not None:
            self._reporter.add_scores(step, metrics)
            self._keep_if_best(network, metrics)
            self._reporter.end_validation(step)
        self._place.mark(step)

    def _keep_if_best(self, network: Any, metrics: Metrics) -> None:
        segm, bbox, step = metrics["segm"], metrics["bbox"], self._state.step
        self._say(
            f"step {step:,}: validation mAP {segm['AP']:.3f}  mAP@0.5 {segm['AP50']:.3f}  box mAP {bbox['AP']:.3f}"
        )
        if self._state.best_score is None or segm["AP"] > self._state.best_score:
            self._state = replace(self._state, best_step=step, best_score=segm["AP"])
            save_trained(self._settings, BUNDLE, network, self._state, metrics)
            self._asked[_SAVE] = True

    def save_if_due(self) -> None:
        """Save a checkpoint: every so many steps or minutes, after the best validation, and before a preemption."""
        step, settings = self._state.step, self._settings
        is_preempted = self._is_preempted()
        is_turn = settings.save_steps > 0 and step % settings.save_steps == 0
        is_end = step == self._config.schedule.max_steps
        if step == self._saved_step or not (is_turn or is_end or is_preempted or self._asked[_SAVE]):
            return
        self._settle()
        if self._state.step != step:
            return
        self._asked[_SAVE], self._saved_step = False, step
        if self._reporter is not None:
            self._reporter.flush()
            state = replace(self._state, seconds=self._clock.total_s())
            self._writer.write(state, checkpoint.training_tensors(self._learner, self._network))
            if is_preempted:
                self._writer.wait()
                self._say(f"step {step:,}: saved, since a machine will be taken away")

    def finish(self) -> TrainState:
        """Write the last bundle, and what is still on its way; give where the training stands."""
        if self._reporter is not None:
            network = self._final_network()
            if self._val is None:
                save_trained(self._settings, BUNDLE, network, self._state)
            save_trained(self._settings, LAST_BUNDLE, network, self._state)
            self._writer.wait()
            self._reporter.close()
        if self._object_group is not None:
            dist.barrier(group=self._object_group)
        self._cache.remove()
        return replace(self._state, seconds=self._clock.total_s())

    def _notices(self, waited_s: float) -> list[float]:
        """Say what goes round with the gradients: the wait for images, and what rank 0's clock asks for."""
        if self._place.rank != 0:
            return [waited_s, 0, 0, 0]
        settings = self._settings
        return [
            waited_s,
            self._clock.is_due("save", settings.save_s),
            self._clock.is_due("validate", settings.validation_turns.every_s),
            self._clock.is_due("look for preemption", PREEMPTION_CHECK_S),
        ]

    def _is_preempted(self) -> bool:
        if not self._asked[_LOOK_FOR_PREEMPTION]:
            return False
        self._asked[_LOOK_FOR_PREEMPTION] = False
        return self._place.is_preempted()

    def _broadcast(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name in sorted(tensors):
            dist.broadcast(tensors[name].data, src=0, group=self._group)

    def _final_network(self) -> Any:
        average = self._learner.average
        return self._network if average is None else average.averaged(self._network)

    def _say(self, text: str) -> None:
        if self._place.rank == 0:
            self._place.say(text)
