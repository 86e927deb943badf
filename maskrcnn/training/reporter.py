"""Rank 0's words: lines of metrics, the glance that people watch, and a clock that training time is told by."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from maskrcnn.training.metrics import Glance, MetricsLog
from maskrcnn.training.step import StepResult
from maskrcnn.training.validation import ValidationTurns

GLANCE_S = 0.5
_SMOOTHING = 0.9


class Clock:
    """Tells when something is due again, and how long a training has taken over all its attempts."""

    def __init__(self, seconds_before: float) -> None:
        self._begin = time.monotonic() - seconds_before
        self._last: dict[str, float] = defaultdict(time.monotonic)

    def is_due(self, what: str, every_s: float) -> bool:
        """Say whether so many seconds have passed since this was last due; never for 0."""
        now = time.monotonic()
        if every_s <= 0 or now - self._last[what] < every_s:
            return False
        self._last[what] = now
        return True

    def total_s(self) -> float:
        """Give the seconds since the training began."""
        return time.monotonic() - self._begin


class Reporter:
    """Turns what steps did into lines and glances.

    Args:
        output_uri: of the training.
        step: where it goes on.
        max_steps: of the training.
        steps_per_epoch: of the training.
        log_steps: steps a line of metrics.
        turns: when the network is validated; None: never.
        show: takes a glance now and then.
    """

    def __init__(
        self,
        output_uri: str,
        step: int,
        *,
        max_steps: int,
        steps_per_epoch: int,
        log_steps: int,
        turns: ValidationTurns | None,
        show: Callable[[Glance], None],
    ) -> None:
        self._log = MetricsLog(output_uri, step)
        self._first_step, self._max_steps, self._steps_per_epoch = step, max_steps, steps_per_epoch
        self._log_steps, self._turns, self._show = log_steps, turns, show
        self._validation_s, self._validated_step = 0.0, -1
        self._images_per_s = 0.0
        self._smoothed: dict[str, float] = {}
        self._smoothed_s = self._smoothed_wait_s = 0.0
        self._scores: dict[str, float] | None = None
        self._shown_s = 0.0
        self._lap_s = time.monotonic()
        self._since: list[StepResult] = []
        self._since_s = self._since_wait_s = 0.0
        self._since_images = 0

    def end_validation(self, step: int) -> None:
        """Count the time since the last step as a validation's, not as the next step's."""
        now = time.monotonic()
        self._validation_s, self._lap_s, self._validated_step = now - self._lap_s, now, step
        if step == self._max_steps:
            self._show(self._glance(step))

    def add_step(self, result: StepResult, num_images: int, wait_s: float, num_samples: int) -> None:
        """Take in a step.

        Args:
            result: what it did.
            num_images: of its global batch.
            wait_s: that a rank waited for images, on average.
            num_samples: consumed since the training began.
        """
        now = time.monotonic()
        seconds, self._lap_s = now - self._lap_s, now
        is_first = not self._smoothed
        for name, value in result.losses.items():
            if result.is_finite:
                before = self._smoothed.get(name, value)
                self._smoothed[name] = value if is_first else _SMOOTHING * before + (1 - _SMOOTHING) * value
        self._smoothed_s = seconds if is_first else _SMOOTHING * self._smoothed_s + (1 - _SMOOTHING) * seconds
        self._smoothed_wait_s = wait_s if is_first else _SMOOTHING * self._smoothed_wait_s + (1 - _SMOOTHING) * wait_s
        self._images_per_s = num_images / self._smoothed_s if self._smoothed_s else 0.0
        self._since.append(result)
        self._since_s += seconds
        self._since_wait_s += wait_s
        self._since_images += num_images
        if (result.step + 1) % self._log_steps == 0 or result.step + 1 == self._max_steps:
            self._write_line(result, num_samples)
        if now - self._shown_s >= GLANCE_S or result.step + 1 == self._max_steps:
            self._shown_s = now
            self._show(self._glance(result.step + 1))

    def add_scores(self, step: int, metrics: dict[str, Any]) -> None:
        """Take in a validation."""
        self._scores = metrics["segm"]
        self._log.add({"step": step, "epoch": step // self._steps_per_epoch, "validation": metrics})
        self._log.flush()

    def flush(self) -> None:
        """Write everything so far, and wait for it: a checkpoint must not know more steps than the metrics."""
        self._log.flush()
        self._log.wait()

    def close(self) -> None:
        """Write everything."""
        self._log.close()

    def _write_line(self, last: StepResult, num_samples: int) -> None:
        finite = [result for result in self._since if result.is_finite]
        losses = {name: sum(r.losses[name] for r in finite) / len(finite) for name in last.losses if finite}
        line = {
            "step": last.step,
            "epoch": last.step // self._steps_per_epoch,
            "num_samples": num_samples,
            **({"loss": sum(losses.values())} if finite else {}),
            "losses": losses,
            "learning_rate": last.learning_rate,
            "grad_norm": last.grad_norm if last.is_finite else -1.0,
            "images_per_s": self._since_images / self._since_s if self._since_s else 0.0,
            "data_wait_s": self._since_wait_s,
            "memory_bytes": memory_bytes(),
            "num_skipped": len(self._since) - len(finite),
        }
        self._log.add(line)
        self._since = []
        self._since_s = self._since_wait_s = 0.0
        self._since_images = 0

    def _glance(self, step: int) -> Glance:
        seconds = self._smoothed_s * (self._max_steps - step)
        if self._turns is not None and self._validated_step < self._max_steps:
            seconds += self._turns.num_left(step, self._max_steps, seconds) * self._validation_s
        return Glance(
            step=step,
            max_steps=self._max_steps,
            epoch=step // self._steps_per_epoch,
            losses=dict(self._smoothed),
            images_per_s=self._images_per_s,
            data_wait_share=min(1.0, self._smoothed_wait_s / self._smoothed_s) if self._smoothed_s else 0.0,
            memory_bytes=memory_bytes(),
            seconds_left=seconds,
            scores=self._scores,
        )


def memory_bytes() -> int:
    """Give the most that this process has held: of the GPU's memory where it has one, else of the machine's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
