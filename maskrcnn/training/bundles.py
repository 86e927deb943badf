"""The bundles that a training leaves: the best by validation, and the last."""

from __future__ import annotations

from torch import nn

from maskrcnn import storage
from maskrcnn.coco.evaluate import Metrics
from maskrcnn.model.bundle import save_bundle
from maskrcnn.training.checkpoint import TrainState
from maskrcnn.training.settings import RunSettings

BUNDLE, LAST_BUNDLE = "bundle", "bundle-last"


def save_trained(
    settings: RunSettings, name: str, network: nn.Module, state: TrainState, metrics: Metrics | None = None
) -> None:
    """Write a bundle into the output, with where it comes from.

    Args:
        settings: of the training.
        name: BUNDLE or LAST_BUNDLE.
        network: as it is to predict.
        state: where the training stands.
        metrics: of the validation of this very network, if there was one.
    """
    came_from = {**settings.provenance, "step": state.step, "num_samples": state.num_samples}
    save_bundle(
        storage.join(settings.output_uri, name),
        network,
        model=settings.model,
        preprocess=settings.preprocess,
        thresholds=settings.thresholds,
        categories=settings.categories,
        provenance={**came_from, "metrics": metrics} if metrics else came_from,
    )
