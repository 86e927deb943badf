"""How a network is trained, whatever it looks like and wherever it runs: the values of a training, and presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from maskrcnn.config import Precision, check, check_choice, warn_if_unusual
from maskrcnn.training.augment import AugmentConfig
from maskrcnn.training.schedule import ScheduleConfig

OptimizerName = Literal["sgd", "adamw"]
Crowds = Literal["ignore", "drop"]
Negatives = Literal["keep", "drop"]
TrainedNorm = Literal["auto", "frozen", "batch", "sync"]

MAX_FROZEN_STAGES = 5
"""The stem and the four groups of residual blocks."""


@dataclass(frozen=True)
class TrainConfig:
    """What happens in a training, resolved: it does not depend on the cluster, nor change when that does."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerName = "sgd"
    """SGD with momentum for fine-tuning, AdamW for short trainings from scratch."""
    momentum: float = 0.9
    """Of SGD."""
    weight_decay: float = 1e-4
    """None on norms and biases."""
    global_batch_size: int = 2
    """Images of an optimizer update, over all workers."""
    micro_batch_size: int = 2
    """Images of a forward pass."""
    max_grad_norm: float = 10.0
    """Longer gradients are shortened to this before the update."""
    rois_per_image: int = 512
    """Proposals that the heads learn from; a quarter of them on instances where there are enough."""
    proposals_per_image: int = 2000
    """The best proposals, among which RoIs are chosen; fewer are nearer to instances, hence harder to tell apart."""
    anchors_per_image: int = 256
    """Anchors that the proposal network learns from; half of them on instances where there are enough."""
    frozen_stages: int = 0
    """Of the backbone, from the stem up, whose weights stay as they are."""
    norms_are_synced: bool = False
    """Batch norms see the images of all workers; on GPUs only."""
    ema_decay: float | None = None
    """Keep a moving average of the weights, and validate and save that; 0.999 is usual."""
    crowds: Crowds = "ignore"
    """What lies in a crowd is neither an instance nor background; or: crowds are as if they were not there."""
    negatives: Negatives = "keep"
    """Images without instances teach background; or: they are left out."""
    precision: Precision = "auto"
    """bf16 computes in half the bits where that is safe; auto takes it on CUDA devices that have it."""
    compiles: bool = False
    """Compile the backbone and the heads before the first step."""
    max_nonfinite_steps: int = 5
    """Steps that may be skipped since their losses were not finite, before the training stops."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("optimizer", self.optimizer, ("sgd", "adamw"))
        check_choice("precision", self.precision, ("auto", "fp32", "bf16"))
        check_choice("crowds", self.crowds, ("ignore", "drop"))
        check_choice("negatives", self.negatives, ("keep", "drop"))
        check(0 <= self.momentum < 1, "momentum", self.momentum, "in [0, 1)")
        check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        check(self.micro_batch_size >= 1, "batch_size", self.micro_batch_size, "1 or more")
        check(self.global_batch_size >= 1, "global_batch_size", self.global_batch_size, "1 or more")
        check(self.max_grad_norm > 0, "max_grad_norm", self.max_grad_norm, "above 0")
        check(self.rois_per_image >= 4, "rois_per_image", self.rois_per_image, "4 or more")
        is_enough = self.proposals_per_image >= self.rois_per_image
        check(is_enough, "proposals_per_image", self.proposals_per_image, "at least --rois-per-image")
        check(self.anchors_per_image >= 2, "anchors_per_image", self.anchors_per_image, "2 or more")
        stages = f"in 0..{MAX_FROZEN_STAGES}"
        check(0 <= self.frozen_stages <= MAX_FROZEN_STAGES, "frozen_stages", self.frozen_stages, stages)
        is_decay = self.ema_decay is None or 0 < self.ema_decay < 1
        check(is_decay, "ema_decay", self.ema_decay, "in (0, 1)")
        check(self.max_nonfinite_steps >= 0, "max_nonfinite_steps", self.max_nonfinite_steps, "0 or more")
        check(self.seed >= 0, "seed", self.seed, "0 or more")


_USUAL_LEARNING_RATES = {"sgd": (0.001, 0.01), "adamw": (0.0001, 0.001)}


def warn_of_unusual(optimizer: OptimizerName, learning_rate: float, batch_size: int) -> None:
    """Warn in one line each of values of one worker outside the usual ranges; they are used all the same."""
    low, high = _USUAL_LEARNING_RATES[optimizer]
    is_usual = low <= learning_rate <= high
    warn_if_unusual(is_usual, "learning_rate", learning_rate, f"{low:g} to {high:g} with {optimizer}")
    warn_if_unusual(batch_size <= 8, "batch_size", batch_size, "1 to 8")


PRESETS: dict[str, dict[str, Any]] = {
    "coco-1x": {
        "epochs": 12,
        "decay": "multistep",
        "frozen_stages": 2,
        "short_sides": (640, 672, 704, 736, 768, 800),
        "color_jitter": 0.0,
    },
    "coco-lsj": {
        "epochs": 100,
        "decay": "cosine",
        "frozen_stages": 0,
        "norm": "batch",
        "scale_jitter": (0.1, 2.0),
        "crop_size": 1024,
        "color_jitter": 0.0,
        "min_size": 1024,
        "max_size": 1024,
        "ema_decay": 0.9998,
    },
    "finetune-small": {
        "epochs": 50,
        "learning_rate": 0.002,
        "decay": "cosine",
        "frozen_stages": 2,
        "short_sides": (640, 704, 768, 800),
        "color_jitter": 0.2,
        "ema_decay": 0.99,
    },
    "demo": {
        "backbone": "resnet18",
        "weights": "none",
        "norm": "batch",
        "optimizer": "adamw",
        "learning_rate": 9e-4,
        "decay": "cosine",
        "min_size": 160,
        "max_size": 160,
        "anchor_sizes": (20, 32, 48, 80, 128),
        "anchor_aspect_ratios": (1.0, 1.7, 3.0),
        "rois_per_image": 32,
        "anchors_per_image": 64,
        "proposals_per_image": 250,
        "max_steps": 320,
    },
}
"""What a preset sets instead of the defaults; what is given on the command line goes before it.

coco-1x: torchvision's and Detectron's 12 epochs, with multi-scale; large sets, weights trained before.
coco-lsj: large-scale jitter on 1024 px squares and a long training; from ImageNet weights or from scratch.
finetune-small: hundreds of images and weights trained before: a low rate, frozen low stages, many passes.
demo: the smallest network that learns drawn shelves in minutes on two cores.
"""
