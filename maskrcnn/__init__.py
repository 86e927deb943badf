"""Mask R-CNN on COCO data: train with Ray Train, label millions of images with Ray Data."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskrcnn.labelling.table import read_predictions
    from maskrcnn.model.detections import Detections
    from maskrcnn.model.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Detections", "Predictor", "__version__", "read_predictions"]

# Loaded on first use, so that the core needs neither Ray nor pyarrow.
_HOMES = {
    "Detections": "maskrcnn.model.detections",
    "Predictor": "maskrcnn.model.predictor",
    "read_predictions": "maskrcnn.labelling.table",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'maskrcnn' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
