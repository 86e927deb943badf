"""What a worker is told, and whom it can talk to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.model.bundle import Category
from maskrcnn.training.metrics import Glance
from maskrcnn.training.recipe import TrainConfig
from maskrcnn.training.step import LossHook
from maskrcnn.training.validation import ValidationTurns


@dataclass(frozen=True)
class RunSettings:
    """What every worker is told."""

    output_uri: str
    run_id: str
    """Of this start of the driver, whatever number of workers it replaces."""
    images_uri: str
    val_images_uri: str
    model: ModelConfig
    preprocess: PreprocessConfig
    thresholds: ThresholdConfig
    config: TrainConfig
    categories: tuple[Category, ...]
    provenance: Mapping[str, Any]
    loader_workers: int
    cache_bytes: int
    validation_turns: ValidationTurns
    save_steps: int
    save_s: float
    keep_checkpoints: int
    log_steps: int
    on_losses: LossHook | None = None
    """Sees every micro-batch's losses; for tests."""


@dataclass(frozen=True)
class Place:
    """Where a worker stands, and whom it talks to."""

    rank: int
    world_size: int
    device: torch.device
    say: Callable[[str], None]
    """Tells people something, once."""
    show: Callable[[Glance], None]
    """Shows people how things are; the latest counts."""
    mark: Callable[[int], None]
    """Tells the group's controller which step was validated; all ranks do so together."""
    is_preempted: Callable[[], bool]
    """Asks whether a machine of the group will be taken away; all ranks do so together."""
