from __future__ import annotations

import json
from typing import Any

import pytest

from maskrcnn.config import (
    LabelConfig,
    ModelConfig,
    PreprocessConfig,
    SliceConfig,
    ThresholdConfig,
    UnusualValueWarning,
    config_from_dict,
    to_json_dict,
    warn_if_unusual,
)
from maskrcnn.errors import InputError


@pytest.mark.parametrize(
    ("config_class", "values", "message"),
    [
        (ModelConfig, {"backbone": "resnet12"}, "--backbone must be one of resnet18, .* got resnet12"),
        (ModelConfig, {"heads": "v3"}, "--heads must be one of v1, v2, got v3"),
        (ModelConfig, {"num_labels": 1}, "--num-labels must be 2 or more"),
        (PreprocessConfig, {"min_size_px": 800, "max_size_px": 700}, "--max-size must be at least --min-size, got 700"),
        (PreprocessConfig, {"pad_multiple_px": 48}, "multiple of 32"),
        (PreprocessConfig, {"decode_scale": 3}, "--decode-scale must be one of 1, 2, 4, 8, got 3"),
        (PreprocessConfig, {"decode_scale": 0}, "--decode-scale must be one of 1, 2, 4, 8, got 0"),
        (ThresholdConfig, {"score_threshold": 1.5}, r"--score-threshold must be in \[0, 1\], got 1.5"),
        (ThresholdConfig, {"score_threshold": float("nan")}, r"--score-threshold must be in \[0, 1\], got nan"),
        (ThresholdConfig, {"nms_threshold": 0}, "--nms-threshold"),
        (SliceConfig, {"slice": 63}, "--slice must be 64 px or more, got 63"),
        (SliceConfig, {"slice": 64, "slice_overlap": 0.9}, r"--slice-overlap must be in \[0, 0.9\), got 0.9"),
        (SliceConfig, {"slice": 64, "slice_overlap": -0.1}, r"--slice-overlap must be in \[0, 0.9\), got -0.1"),
        (SliceConfig, {"slice": 64, "slice_merge": "none"}, "--slice-merge must be one of nms, merge, got none"),
        (SliceConfig, {"slice": 64, "slice_metric": "ios"}, "--slice-metric must be one of iou, iomin, got ios"),
        (SliceConfig, {"slice": 64, "slice_threshold": 1}, r"--slice-threshold must be in \(0, 1\), got 1"),
        (ThresholdConfig, {"max_detections": 0}, "--max-detections must be 1 or more, got 0"),
    ],
)
def test_values_that_cannot_work_are_refused(config_class: type, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config_class(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"score_threshold": 1.5}, r"--score-threshold must be in \[0, 1\], got 1.5"),
        ({"batch_size": 0}, "--batch-size must be 1 or more, got 0"),
        ({"num_actors": (3, 2)}, "--num-actors must be MIN"),
        ({"rows_per_part": 0}, "--rows-per-part"),
        ({"images_uri": ""}, "--images must be a path or URI"),
        ({"device": "tpu"}, "--device must be one of auto, cpu, cuda, got tpu"),
        ({"mask_nms": 0}, r"--mask-nms must be in \(0, 1\], got 0"),
        ({"mask_nms": 1.1}, r"--mask-nms must be in \(0, 1\], got 1.1"),
        ({"mask_nms": 0.5, "masks": "none"}, "--mask-nms needs masks; leave out --masks none"),
    ],
)
def test_a_labelling_run_that_cannot_work_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LabelConfig(**{"bundle_uri": "b", "images_uri": "i", "output_uri": "o", **values})


def test_unusual_values_are_used_with_one_warning() -> None:
    with pytest.warns(UnusualValueWarning, match="--learning-rate is usually 0.001 to 0.01, got 5"):
        warn_if_unusual(False, "learning_rate", 5, "0.001 to 0.01")


@pytest.mark.parametrize("config", [ModelConfig(), PreprocessConfig(), ThresholdConfig(), SliceConfig(512)])
def test_configs_survive_json(config: Any) -> None:
    text = json.dumps(to_json_dict(config))
    assert config_from_dict(type(config), json.loads(text)) == config


def test_keys_of_newer_versions_are_ignored() -> None:
    assert config_from_dict(ThresholdConfig, {"score_threshold": 0.3, "new": 1}) == ThresholdConfig(score_threshold=0.3)
