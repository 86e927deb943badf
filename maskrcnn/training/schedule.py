"""The learning rate of every step, as a pure function: a checkpoint holds an integer, not a scheduler."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from maskrcnn.config import check, check_choice

Decay = Literal["constant", "multistep", "cosine"]

_LONGEST_DEFAULT_WARMUP = 1000


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate goes over the steps of a training."""

    learning_rate: float = 0.005
    """After the warm-up and before any decay."""
    max_steps: int = 1000
    """Optimizer updates of the whole training."""
    warmup_steps: int | None = None
    """Steps over which the rate rises linearly; by default a twentieth of --max-steps, at most 1000."""
    decay: Decay = "multistep"
    decay_at: tuple[float, ...] = (2 / 3, 8 / 9)
    """Multistep: where the rate drops, in shares of --max-steps."""
    decay_factor: float = 0.1
    """Multistep: what the rate is multiplied by at each drop."""

    def __post_init__(self) -> None:
        is_rate = math.isfinite(self.learning_rate) and self.learning_rate > 0
        check(is_rate, "learning_rate", self.learning_rate, "a finite number above 0")
        check(self.max_steps >= 1, "max_steps", self.max_steps, "1 or more")
        warmup_rule = f"in [0, {self.max_steps}), below --max-steps"
        check(0 <= self.num_warmup_steps < self.max_steps, "warmup_steps", self.warmup_steps, warmup_rule)
        check_choice("decay", self.decay, ("constant", "multistep", "cosine"))
        is_rising = all(0 < share < 1 for share in self.decay_at) and sorted(self.decay_at) == list(self.decay_at)
        check(is_rising, "decay_at", self.decay_at, "rising shares of --max-steps in (0, 1)")
        check(0 < self.decay_factor <= 1, "decay_factor", self.decay_factor, "in (0, 1]")

    @property
    def num_warmup_steps(self) -> int:
        """Steps before the full rate is reached."""
        if self.warmup_steps is None:
            return min(_LONGEST_DEFAULT_WARMUP, self.max_steps // 20)
        return self.warmup_steps


def learning_rate_at(step: int, config: ScheduleConfig) -> float:
    """Give the learning rate of an optimizer update.

    Args:
        step: counted from 0; beyond ``max_steps`` the last rate holds.
        config: of the whole training.

    Returns:
        A rate above 0 and at most ``config.learning_rate``, so that every step moves the weights.
    """
    if step < config.num_warmup_steps:
        return config.learning_rate * (step + 1) / (config.num_warmup_steps + 1)
    step = min(step, config.max_steps - 1)
    if config.decay == "multistep":
        num_drops = sum(step >= share * config.max_steps for share in config.decay_at)
        return config.learning_rate * config.decay_factor**num_drops
    if config.decay == "cosine":
        share = (step - config.num_warmup_steps) / (config.max_steps - config.num_warmup_steps)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
    return config.learning_rate
