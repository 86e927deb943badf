"""A bundle as a predictor with whatever refines its answers: mask NMS, and tiles for large images."""

from __future__ import annotations

from dataclasses import replace

from maskrcnn.config import Device, Precision, SliceConfig, ThresholdConfig, check_mask_nms
from maskrcnn.model.mask_nms import CANDIDATES_PER_DETECTION, MaskNmsPredictor
from maskrcnn.model.predictor import AnyPredictor, Predictor
from maskrcnn.model.slicing import SlicedPredictor


def load_predictor(
    uri: str,
    *,
    thresholds: ThresholdConfig,
    device: Device = "auto",
    precision: Precision = "auto",
    mask_nms: float | None = None,
    slicing: SliceConfig | None = None,
    batch_size: int = 2,
) -> AnyPredictor:
    """Load a model bundle.

    Args:
        uri: the bundle's folder: a path or any URI.
        thresholds: which detections are given back; with mask NMS, its box NMS comes before that of masks.
        device, precision: as for `Predictor.from_bundle`.
        mask_nms: masks of one category that overlap more than this (IoU) are one object; None: boxes tell.
        slicing: look at large images in tiles too; None: only as a whole.
        batch_size: tiles a forward.

    Raises:
        BundleError: no bundle there, or one that cannot be used.
        InputError: a device or precision that is not to be had, or a threshold of masks that cannot work.
    """
    check_mask_nms(mask_nms)
    num_candidates = thresholds.max_detections * (1 if mask_nms is None else CANDIDATES_PER_DETECTION)
    of_boxes = replace(thresholds, max_detections=num_candidates)
    predictor: AnyPredictor = Predictor.from_bundle(uri, device=device, precision=precision, thresholds=of_boxes)
    if mask_nms is not None:
        predictor = MaskNmsPredictor(predictor, mask_nms, thresholds)
    return predictor if slicing is None else SlicedPredictor(predictor, slicing, batch_size)
