"""The values of a training: the impossible are refused by the option's name, the unusual are used with a warning."""

from __future__ import annotations

from typing import Any

import pytest

from maskrcnn.config import UnusualValueWarning
from maskrcnn.errors import InputError
from maskrcnn.training.recipe import TrainConfig, warn_of_unusual


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "adam"}, "--optimizer must be one of sgd, adamw, got adam"),
        ({"crowds": "keep"}, "--crowds must be one of ignore, drop, got keep"),
        ({"negatives": "ignore"}, "--negatives must be one of keep, drop, got ignore"),
        ({"precision": "fp16"}, "--precision must be one of auto, fp32, bf16, got fp16"),
        ({"momentum": 1.0}, r"--momentum must be in \[0, 1\), got 1.0"),
        ({"weight_decay": -1.0}, "--weight-decay must be 0 or more"),
        ({"micro_batch_size": 0}, "--batch-size must be 1 or more, got 0"),
        ({"global_batch_size": 0}, "--global-batch-size must be 1 or more, got 0"),
        ({"max_grad_norm": 0.0}, "--max-grad-norm must be above 0"),
        ({"rois_per_image": 3}, "--rois-per-image must be 4 or more"),
        ({"proposals_per_image": 511}, "--proposals-per-image must be at least --rois-per-image, got 511"),
        ({"anchors_per_image": 1}, "--anchors-per-image must be 2 or more"),
        ({"frozen_stages": 6}, "--frozen-stages must be in 0..5, got 6"),
        ({"ema_decay": 1.0}, r"--ema-decay must be in \(0, 1\), got 1.0"),
        ({"max_nonfinite_steps": -1}, "--max-nonfinite-steps must be 0 or more"),
        ({"seed": -1}, "--seed must be 0 or more"),
    ],
)
def test_impossible_values_are_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**fields)


@pytest.mark.parametrize(
    ("optimizer", "learning_rate", "batch_size", "message"),
    [
        ("sgd", 0.1, 2, "--learning-rate is usually 0.001 to 0.01 with sgd, got 0.1"),
        ("adamw", 0.005, 2, "--learning-rate is usually 0.0001 to 0.001 with adamw, got 0.005"),
        ("sgd", 0.005, 16, "--batch-size is usually 1 to 8, got 16"),
    ],
)
def test_unusual_values_are_used_with_a_warning(
    optimizer: Any, learning_rate: float, batch_size: int, message: str
) -> None:
    with pytest.warns(UnusualValueWarning, match=message):
        warn_of_unusual(optimizer, learning_rate, batch_size)


def test_usual_values_are_used_without_a_word() -> None:
    warn_of_unusual("sgd", 0.005, 2)
    warn_of_unusual("adamw", 0.0009, 8)
