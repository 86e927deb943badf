"""One optimizer update: forward, losses, backward, clip, check, update. Knows nothing of loops, ranks or files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from maskrcnn.config import Precision, check, check_choice, warn_if_unusual
from maskrcnn.errors import NonFiniteError
from maskrcnn.model.precision import uses_bf16, variant_of
from maskrcnn.training.samples import Batch
from maskrcnn.training.schedule import ScheduleConfig, learning_rate_at
from maskrcnn.training.transforms import AugmentConfig, Purpose, SampleKey, random_generator

OptimizerName = Literal["sgd", "adamw"]

_ROI_MODULES = ("box_head", "box_predictor", "mask_head", "mask_predictor")
_USUAL_LEARNING_RATES = {"sgd": (0.001, 0.01), "adamw": (0.0001, 0.001)}


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained, whatever it looks like and wherever it runs."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerName = "sgd"
    """SGD with momentum for fine-tuning, AdamW for short trainings from scratch."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 1e-4
    """None on norms and biases."""
    batch_size: int = 2
    """Images in a forward pass of one worker."""
    grad_accum_steps: int = 1
    """Forward passes of one worker for an optimizer update."""
    max_grad_norm: float = 10.0
    """Longer gradients are shortened to this before the update."""
    rois_per_image: int = 512
    """Proposals that the heads learn from; a quarter of them on instances where there are enough."""
    proposals_per_image: int = 2000
    """The best proposals, among which RoIs are chosen; fewer are nearer to instances, hence harder to tell apart."""
    anchors_per_image: int = 256
    """Anchors that the proposal network learns from; half of them on instances where there are enough."""
    precision: Precision = "auto"
    """bf16 computes in half the bits where that is safe; auto takes it on CUDA devices that have it."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, ("sgd", "adamw"))
        check_choice("precision", self.precision, ("auto", "fp32", "bf16"))
        check(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        check(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        check(self.grad_accum_steps >= 1, "grad_accum_steps", self.grad_accum_steps, "1 or more")
        check(self.max_grad_norm > 0, "max_grad_norm", self.max_grad_norm, "above 0")
        check(self.rois_per_image >= 4, "rois_per_image", self.rois_per_image, "4 or more")
        is_enough = self.proposals_per_image >= self.rois_per_image
        check(is_enough, "proposals_per_image", self.proposals_per_image, "at least --rois-per-image")
        check(self.anchors_per_image >= 2, "anchors_per_image", self.anchors_per_image, "2 or more")
        check(self.seed >= 0, "seed", self.seed, "0 or more")
        low, high = _USUAL_LEARNING_RATES[self.optimizer]
        rate = self.schedule.learning_rate
        warn_if_unusual(low <= rate <= high, "learning_rate", rate, f"{low:g} to {high:g} with {self.optimizer}")
        warn_if_unusual(self.batch_size <= 8, "batch_size", self.batch_size, "1 to 8")


@dataclass(frozen=True)
class StepResult:
    """What one update did."""

    losses: dict[str, float]
    """torchvision's five losses by name, averaged over the images of the step."""
    grad_norm: float
    """Before it was clipped."""
    learning_rate: float
    num_images: int

    @property
    def loss(self) -> float:
        """The sum that was minimised."""
        return sum(self.losses.values())


class KeyedSampler:
    """Chooses the anchors or RoIs to learn from, as torchvision's sampler does, but by each image's own generator.

    Neither batch mates nor the number of workers then change what an image teaches.

    Source: torchvision, ``models/detection/_utils.py``, ``BalancedPositiveNegativeSampler``.
    """

    def __init__(self, num_per_image: int, positive_fraction: float, seed: int, purpose: Purpose) -> None:
        self.keys: Sequence[SampleKey] = ()
        self._num_per_image = num_per_image
        self._max_positive = int(num_per_image * positive_fraction)
        self._seed, self._purpose = seed, purpose

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Choose among candidates.

        Args:
            matched_idxs: for each image (num_candidates,) int64: 1 or more on an instance, 0 on background, -1 on
                neither.

        Returns:
            For each image, (num_candidates,) uint8 that mark the chosen on instances, and on background.
        """
        chosen: tuple[list[Tensor], list[Tensor]] = ([], [])
        for key, matched in zip(self.keys, matched_idxs, strict=True):
            rng = random_generator(self._seed, self._purpose, key)
            positive = _choose(matched >= 1, self._max_positive, rng)
            negative = _choose(matched == 0, self._num_per_image - int(positive.sum()), rng)
            chosen[0].append(positive)
            chosen[1].append(negative)
        return chosen


def _choose(is_candidate: Tensor, at_most: int, rng: np.random.Generator) -> Tensor:
    candidates = torch.where(is_candidate)[0]
    places = rng.choice(len(candidates), min(at_most, len(candidates)), replace=False, shuffle=False)
    marked = torch.zeros_like(is_candidate, dtype=torch.uint8)
    marked[candidates[torch.from_numpy(places).to(candidates.device)]] = 1
    return marked


def prepare_network(network: Any, config: TrainConfig) -> Any:
    """Set up a torchvision Mask R-CNN for ``train_step``, on the device where it is.

    Returns:
        A network that shares its weights and buffers, with keyed samplers, and bf16 inside modules where the config
        says so. Boxes and losses are float32 either way. The original is left as it was, for saving and predicting.
    """
    is_bf16 = uses_bf16(config.precision, next(network.parameters()).device)
    rpn = variant_of(network.rpn, ("head",) if is_bf16 else ())
    rpn.fg_bg_sampler = KeyedSampler(config.anchors_per_image, 0.5, config.seed, Purpose.ANCHORS)
    rpn._post_nms_top_n = {**rpn._post_nms_top_n, "training": config.proposals_per_image}
    roi_heads = variant_of(network.roi_heads, _ROI_MODULES if is_bf16 else ())
    roi_heads.fg_bg_sampler = KeyedSampler(config.rois_per_image, 0.25, config.seed, Purpose.ROIS)
    prepared = variant_of(network, ("backbone",) if is_bf16 else ())
    prepared.rpn, prepared.roi_heads = rpn, roi_heads
    return prepared


def build_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build the optimizer of a network's trainable parameters; norms and biases are not decayed."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    learning_rate = config.schedule.learning_rate
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, learning_rate, fused=True)
    return torch.optim.SGD(groups, learning_rate, momentum=config.momentum, fused=True)


def train_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    step: int,
    config: TrainConfig,
) -> StepResult:
    """Update the weights once.

    Args:
        network: from ``prepare_network``, or a wrapper that holds that as ``module``.
        optimizer: of its parameters; its learning rate is set from the schedule.
        batches: one for each forward pass, on the CPU; each counts by its images.
        step: counted from 0.
        config: of the training.

    Raises:
        NonFiniteError: when a loss or the gradient is NaN or infinite; the weights are left as they were.
    """
    network.train()
    learning_rate = learning_rate_at(step, config.schedule)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad()
    num_images = sum(len(batch.images) for batch in batches)
    losses: dict[str, Tensor] = {}
    for batch in batches:
        for name, loss in _backward(network, batch, len(batch.images) / num_images).items():
            losses[name] = losses[name] + loss if name in losses else loss
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    grad_norm = nn.utils.clip_grad_norm_(trained, config.max_grad_norm)
    # One copy from the device for all of them.
    values = torch.stack([*losses.values(), grad_norm]).tolist()
    if not np.isfinite(values).all():
        image_ids = tuple(image_id for batch in batches for image_id in batch.image_ids)
        raise NonFiniteError(step, image_ids, dict(zip([*losses, "gradient"], values, strict=True)))
    optimizer.step()
    return StepResult(dict(zip(losses, values, strict=False)), values[-1], learning_rate, num_images)


def _backward(network: nn.Module, batch: Batch, share: float) -> dict[str, Tensor]:
    """Add a batch's share of the gradient, and give its share of the losses."""
    bare: Any = getattr(network, "module", network)
    for sampler in (bare.rpn.fg_bg_sampler, bare.roi_heads.fg_bg_sampler):
        if not isinstance(sampler, KeyedSampler):
            raise TypeError("train_step takes the network that prepare_network returns")
        sampler.keys = batch.keys
    images, targets = batch.to(next(network.parameters()).device)
    losses = {name: loss * share for name, loss in network(images, targets).items()}
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    return {name: loss.detach() for name, loss in losses.items()}
