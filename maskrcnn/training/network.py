"""A torchvision Mask R-CNN set up to be trained: numbers of choices, frozen stages, precision, norms, memory format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from maskrcnn.errors import InputError
from maskrcnn.model.precision import InBf16, uses_bf16, variant_of
from maskrcnn.model.proposals import ProposalRule, Proposals, propose
from maskrcnn.training.anchors import AnchorCache
from maskrcnn.training.folding import FoldedConv, fold_frozen_norms
from maskrcnn.training.recipe import TrainConfig
from maskrcnn.training.targets import Targets

_ROI_MODULES = ("box_head", "box_predictor", "mask_head", "mask_predictor")
_STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))


def prepare_network(network: Any, config: TrainConfig) -> Any:
    """Set up a torchvision Mask R-CNN to be trained, on the device where it is.

    Frozen stages, synced norms and the memory format are set in the network itself.

    Returns:
        A network that shares its weights and buffers, with frozen norms folded into convolutions, and bf16 inside
        modules where the config says so. Features are then bf16; what is pooled, boxes and losses are float32 either
        way. The original stays as it was, for saving and predicting.

    Raises:
        InputError: synced norms on a device that cannot.
    """
    device = next(network.parameters()).device
    freeze_stages(network, config.frozen_stages)
    if config.norms_are_synced:
        if device.type != "cuda":
            raise InputError("--norm", f"must be frozen or batch on {device}, got sync", remedy="GPUs can sync norms")
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    network.to(memory_format=torch.channels_last)
    is_bf16 = uses_bf16(config.precision, device)
    rpn = variant_of(network.rpn, ("head",) if is_bf16 else ())
    rpn.fg_bg_sampler = BalancedPositiveNegativeSampler(config.anchors_per_image, 0.5)
    roi_heads = variant_of(network.roi_heads, _ROI_MODULES if is_bf16 else ())
    roi_heads.fg_bg_sampler = BalancedPositiveNegativeSampler(config.rois_per_image, 0.25)
    prepared = variant_of(network)
    backbone = fold_frozen_norms(network.backbone)
    # They stay in eval mode, so that their batch norms learn nothing either: of the copy, which is what runs.
    prepared.frozen_modules = stages_of(backbone, config.frozen_stages)
    prepared.folded = [each for each in backbone.modules() if isinstance(each, FoldedConv)]
    prepared.backbone = InBf16(backbone, gives_float32=False) if is_bf16 else backbone
    prepared.rpn, prepared.roi_heads = rpn, roi_heads
    if config.compiles:
        prepared.backbone, rpn.head = torch.compile(prepared.backbone), torch.compile(rpn.head)
        for name in _ROI_MODULES:
            setattr(roi_heads, name, torch.compile(getattr(roi_heads, name)))
    # Finding the slots that are filled makes the host wait for a GPU, while a CPU gains by computing no others; and
    # batch norms must not see what fills the others.
    has_norms = any(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in roi_heads.modules())
    prepared.uses_every_slot = device.type == "cuda" and not has_norms
    prepared.pools_from_table = device.type == "cpu"
    prepared.anchors = AnchorCache(rpn.anchor_generator)
    prepared.proposal_rule = replace(
        ProposalRule.of(rpn, device),
        num_per_level=rpn._pre_nms_top_n["training"],
        num_per_image=config.proposals_per_image,
    )
    prepared.propose = _proposing(prepared.proposal_rule)
    return prepared


def _proposing(
    rule: ProposalRule,
) -> Callable[[Sequence[Tensor], Sequence[Tensor], Targets, tuple[int, int]], Proposals]:
    @torch.no_grad()
    def propose_for(
        objectness: Sequence[Tensor], deltas: Sequence[Tensor], targets: Targets, shape: tuple[int, int]
    ) -> Proposals:
        return propose(objectness, deltas, targets.extents.flip(1), shape, rule)

    return propose_for


def freeze_stages(network: Any, num_stages: int) -> None:
    """Keep the weights of the backbone's first stages as they are; 1 is the stem, 5 all of the ResNet."""
    for module in stages_of(network.backbone, num_stages):
        module.requires_grad_(False)


def stages_of(backbone: Any, num_stages: int) -> tuple[nn.Module, ...]:
    """Give the modules of a backbone's first stages."""
    return tuple(getattr(backbone.body, name) for names in _STAGES[:num_stages] for name in names)


def describe_frozen(num_stages: int) -> str:
    """Name what ``freeze_stages`` freezes."""
    names = ["the stem", *(f"layer{number}" for number in range(1, 5))][:num_stages]
    return ", ".join(names) or "nothing"
