"""A torchvision Mask R-CNN set up to be trained: keyed choices, frozen stages, precision, norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskrcnn.errors import InputError
from maskrcnn.model.precision import uses_bf16, variant_of
from maskrcnn.training.recipe import TrainConfig
from maskrcnn.training.transforms import Purpose, SampleKey, random_generator

_ROI_MODULES = ("box_head", "box_predictor", "mask_head", "mask_predictor")
_STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))


class KeyedSampler:
    """Chooses the anchors or RoIs to learn from, as torchvision's sampler does, but by each image's own generator.

    Neither batch mates nor the number of workers then change what an image teaches.

    Source: torchvision, ``models/detection/_utils.py``, ``BalancedPositiveNegativeSampler``.
    """

    def __init__(self, num_per_image: int, positive_fraction: float, seed: int, purpose: Purpose) -> None:
        self.keys: Sequence[SampleKey] = ()
        self._num_per_image = num_per_image
        self._max_positive = int(num_per_image * positive_fraction)
        self._seed, self._purpose = seed, purpose

    def __call__(self, matched_idxs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Choose among candidates.

        Args:
            matched_idxs: for each image (num_candidates,) int64: 1 or more on an instance, 0 on background, -1 on
                neither.

        Returns:
            For each image, (num_candidates,) uint8 that mark the chosen on instances, and on background.
        """
        chosen: tuple[list[Tensor], list[Tensor]] = ([], [])
        for key, matched in zip(self.keys, matched_idxs, strict=True):
            rng = random_generator(self._seed, self._purpose, key)
            positive = _choose(matched >= 1, self._max_positive, rng)
            negative = _choose(matched == 0, self._num_per_image - int(positive.sum()), rng)
            chosen[0].append(positive)
            chosen[1].append(negative)
        return chosen


def _choose(is_candidate: Tensor, at_most: int, rng: np.random.Generator) -> Tensor:
    candidates = torch.where(is_candidate)[0]
    places = rng.choice(len(candidates), min(at_most, len(candidates)), replace=False, shuffle=False)
    marked = torch.zeros_like(is_candidate, dtype=torch.uint8)
    marked[candidates[torch.from_numpy(places).to(candidates.device)]] = 1
    return marked


def prepare_network(network: Any, config: TrainConfig) -> Any:
    """Set up a torchvision Mask R-CNN to be trained, on the device where it is.

    Frozen stages, synced norms and, on CUDA, the memory format are set in the network itself.

    Returns:
        A network that shares its weights and buffers, with keyed samplers, and bf16 inside modules where the config
        says so. Boxes and losses are float32 either way. The original stays as it was, for saving and predicting.

    Raises:
        InputError: synced norms on a device that cannot.
    """
    device = next(network.parameters()).device
    frozen = freeze_stages(network, config.frozen_stages)
    if config.norms_are_synced:
        if device.type != "cuda":
            raise InputError("--norm", f"must be frozen or batch on {device}, got sync", remedy="GPUs can sync norms")
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    if device.type == "cuda":
        network.to(memory_format=torch.channels_last)
    is_bf16 = uses_bf16(config.precision, device)
    rpn = variant_of(network.rpn, ("head",) if is_bf16 else ())
    rpn.fg_bg_sampler = KeyedSampler(config.anchors_per_image, 0.5, config.seed, Purpose.ANCHORS)
    rpn._post_nms_top_n = {**rpn._post_nms_top_n, "training": config.proposals_per_image}
    roi_heads = variant_of(network.roi_heads, _ROI_MODULES if is_bf16 else ())
    roi_heads.fg_bg_sampler = KeyedSampler(config.rois_per_image, 0.25, config.seed, Purpose.ROIS)
    prepared = variant_of(network, ("backbone",) if is_bf16 else ())
    if config.compiles:
        prepared.backbone = torch.compile(prepared.backbone)
    prepared.rpn, prepared.roi_heads = rpn, roi_heads
    prepared.frozen_modules = tuple(frozen)  # stay in eval mode, so that their batch norms learn nothing either
    return prepared


def freeze_stages(network: Any, num_stages: int) -> list[nn.Module]:
    """Keep the weights of the backbone's first stages as they are; 1 is the stem, 5 all of the ResNet.

    Returns:
        Their modules.
    """
    modules: list[nn.Module] = [
        getattr(network.backbone.body, name) for names in _STAGES[:num_stages] for name in names
    ]
    for module in modules:
        module.requires_grad_(False)
    return modules


def describe_frozen(num_stages: int) -> str:
    """Name what ``freeze_stages`` freezes."""
    names = ["the stem", *(f"layer{number}" for number in range(1, 5))][:num_stages]
    return ", ".join(names) or "nothing"
