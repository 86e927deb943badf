"""What the rows of an output depend on: one output has one of each."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

from maskrcnn.config import BOX_NMS_BEFORE_MASK_NMS, LabelConfig, SliceConfig, ThresholdConfig
from maskrcnn.model.bundle import Bundle


def choose_thresholds(config: LabelConfig, bundle: Bundle) -> ThresholdConfig:
    """Take the user's thresholds where given, else the bundle's; where masks tell what is one object, boxes do less."""
    defaults = asdict(bundle.thresholds)
    if config.mask_nms is not None:
        defaults["nms_threshold"] = BOX_NMS_BEFORE_MASK_NMS
    given = {name: getattr(config, name) for name in ("score_threshold", "nms_threshold", "max_detections")}
    return ThresholdConfig(**{**defaults, **{k: v for k, v in given.items() if v is not None}})


def name_settings(config: LabelConfig, bundle: Bundle, thresholds: ThresholdConfig) -> dict[str, Any]:
    """Give everything that rows depend on, as plans and records hold it."""
    return {
        "bundle_sha256": bundle.sha256,
        **asdict(thresholds),
        **_slicing_settings(config),
        "mask_nms": config.mask_nms,
        "masks": config.masks,
        "date_from": config.date_from,
    }


def _slicing_settings(config: LabelConfig) -> dict[str, Any]:
    """Name what rows depend on; nothing where there is no slicing, as in the plans of versions that had none."""
    nothing = {field.name: None for field in fields(SliceConfig)}
    return asdict(config.slicing) if config.slicing is not None else nothing
