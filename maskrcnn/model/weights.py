"""Where a network's first weights come from: torchvision's sets by name, a bundle, a file on any URI, or nowhere.

Files are read with `weights_only`, so that nothing in them runs. A part of the network (backbone, proposal head, …) is
loaded whole or not at all; only the predictors' last layers, whose size is the number of labels, may start anew.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models import WeightsEnum, get_model_weights
from torchvision.models.detection.mask_rcnn import (
    MaskRCNN,
    MaskRCNN_ResNet50_FPN_V2_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
)

from maskrcnn import storage
from maskrcnn.config import ModelConfig
from maskrcnn.errors import BundleError, NotFoundError
from maskrcnn.model.bundle import Category, load_bundle, read_weights
from maskrcnn.model.bundle_files import JSON_NAME
from maskrcnn.model.tensors import check_finite, check_fit, parse_safetensors

logger = logging.getLogger(__name__)

PARTS = (
    "backbone.body.",
    "backbone.fpn.",
    "rpn.head.",
    "roi_heads.box_head.",
    "roi_heads.box_predictor.",
    "roi_heads.mask_head.",
    "roi_heads.mask_predictor.",
)
_BODY = PARTS[0]
_PER_LABEL = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")
_COCO_SETS: dict[str, WeightsEnum] = {
    "v1": MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
    "v2": MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
}
_FROZEN_NORM_EPS = 1e-5

# torchvision's first COCO file is older than the modules' present names.
_RENAMED = (
    (re.compile(r"^rpn\.head\.conv\.(weight|bias)$"), r"rpn.head.conv.0.0.\1"),
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d)\.(weight|bias)$"), r"roi_heads.mask_head.\1.0.\2"),
)
_COUNTED_FROM_ONE = re.compile(r"^roi_heads\.mask_head\.mask_fcn(\d)\.")


@dataclass(frozen=True)
class WeightsReport:
    """What became of every tensor, by name; the step counters of trained norms, which nothing reads, aside."""

    source: str
    loaded: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    """The predictors' layers that start at random, since the source's are for other categories."""
    left_out: tuple[str, ...] = ()
    """In the source, without a place in the network."""
    not_in_source: tuple[str, ...] = ()
    """In the network, as it was before."""

    def __str__(self) -> str:
        parts = [f"weights {self.source}: loaded {_summary(self.loaded)}"]
        for names, what in (
            (self.replaced, "replaced for other categories"),
            (self.left_out, "left out"),
            (self.not_in_source, "not in the source, so random"),
        ):
            if names:
                parts.append(f"{what}: {_summary(names)}")
        return "; ".join(parts)


@dataclass(frozen=True)
class _Source:
    name: str
    tensors: dict[str, Tensor]
    category_names: dict[int, str] | None = None
    """By label, where known."""


def coco_categories() -> tuple[Category, ...]:
    """Give the table of torchvision's COCO weights: labels are COCO's category ids, with gaps."""
    return tuple(Category(id=label, name=name, label=label) for label, name in _coco_names().items())


def load_weights(
    network: MaskRCNN, weights: str, config: ModelConfig, categories: Sequence[Category] | None = None
) -> WeightsReport:
    """Load first weights into a network, in place, and log what became of every tensor.

    Args:
        network: as `build_network` made it from ``config``.
        weights: "coco" or "imagenet" (torchvision's, downloaded once), "none", or the path or URI of a bundle, a
            safetensors file or a PyTorch state dict: a whole detector's or a bare ResNet's.
        config: what the network was built from.
        categories: the network's label table. Where the source's is known and differs, or its size does, the
            predictors' last layers keep their random weights.

    Returns:
        Which tensors were loaded, replaced and left out.

    Raises:
        BundleError: weights that cannot be had, read or fitted, with what to do instead.
        StorageError: when the store does not answer.
    """
    if weights == "none":
        report = WeightsReport("none", not_in_source=tuple(network.state_dict()))
    else:
        report = _fit(network, _read(weights, config), categories)
    logger.info("%s", report)
    return report


def _read(weights: str, config: ModelConfig) -> _Source:
    if weights == "imagenet":
        return _Source(weights, _download(get_model_weights(config.backbone).IMAGENET1K_V1, weights))
    if weights == "coco":
        if config.backbone != "resnet50":
            rule = f"exists for --backbone resnet50 only, got {config.backbone}"
            raise BundleError("--weights coco", rule, remedy="use --weights imagenet or --weights none")
        tensors = _download(_COCO_SETS[config.heads], weights)
        return _coco_source(weights, tensors, config.heads)
    if storage.exists(storage.join(weights, JSON_NAME)):
        bundle = load_bundle(weights)
        names = {category.label: category.name for category in bundle.categories}
        return _Source(weights, read_weights(bundle), names)
    return _read_file(weights)


def _download(chosen: WeightsEnum, name: str) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # no network, or a download cut off
        remedy = "give the file as --weights PATH, or start at random with --weights none"
        raise BundleError(f"--weights {name}", f"could not be downloaded ({error})", chosen.url, remedy) from None
    return dict(tensors)


def _read_file(uri: str) -> _Source:
    try:
        body = storage.read_bytes(uri)
    except NotFoundError:
        rule = "must be coco, imagenet, none, or the path or URI of a bundle or a file; nothing is there"
        raise BundleError(f"--weights {uri}", rule) from None
    if body.startswith((b"PK", b"\x80")):
        tensors = _unwrap(_unpickle_tensors(body, uri), uri)
    else:
        tensors = parse_safetensors(body, uri)
    sha256 = hashlib.sha256(body).hexdigest()
    for heads, chosen in _COCO_SETS.items():
        if sha256.startswith(_hash_in_name(chosen)):
            return _coco_source(uri, tensors, heads)
    return _Source(uri, tensors)


def _unpickle_tensors(body: bytes, uri: str) -> object:
    _refuse_compressed(body, uri)
    try:
        return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or damaged file fails in any way it likes; what it holds has not run
        reason = str(error).strip().split("\n")[0]
        rule = f"must hold tensors and nothing else, and be whole ({type(error).__name__}: {reason:.120})"
        raise BundleError("weights", rule, uri, "save network.state_dict() as safetensors") from None


def _refuse_compressed(body: bytes, uri: str) -> None:
    """Refuse an archive with compressed members, which torch.save never makes: a little may unpack to all memory."""
    if not zipfile.is_zipfile(io.BytesIO(body)):
        return
    try:
        members = zipfile.ZipFile(io.BytesIO(body)).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # damaged, which torch.load says better
    if any(member.compress_type != zipfile.ZIP_STORED or member.file_size > len(body) for member in members):
        raise BundleError("weights", "must not be compressed inside", uri, "save network.state_dict() as safetensors")


def _unwrap(document: object, uri: str) -> dict[str, Tensor]:
    """Find the state dict in what a training script saved: bare, or under "model" or "state_dict"."""
    for key in ("model", "state_dict"):
        if isinstance(document, Mapping) and isinstance(document.get(key), Mapping):
            document = document[key]
    if isinstance(document, Mapping) and document and all(map(_is_plain_tensor, document.values())):
        return {str(name): tensor for name, tensor in document.items()}
    raise BundleError("weights", "must be a state dict: names and tensors", uri)


def _is_plain_tensor(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and value.is_cpu and not value.is_quantized


def _hash_in_name(chosen: WeightsEnum) -> str:
    return str(chosen.url).rsplit("-", 1)[1].removesuffix(".pth")


def _coco_names() -> dict[int, str]:
    names = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return {label: name for label, name in enumerate(names) if label > 0 and name != "N/A"}


def _coco_source(name: str, tensors: dict[str, Tensor], heads: str) -> _Source:
    return _Source(name, _absorb_missing_eps(tensors) if heads == "v1" else tensors, _coco_names())


def _absorb_missing_eps(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Scale the norms of torchvision's first COCO set, made when its frozen norms added no epsilon to the variance.

    Changing the tensors, rather than the modules' epsilon, keeps the network's results in its tensors alone.

    Source: torchvision `models/detection/_utils.py`, `overwrite_eps`.
    """
    absorbed = dict(tensors)
    for name, variance in tensors.items():
        if name.startswith(_BODY) and name.endswith(".running_var"):
            scale = ((variance.double() + _FROZEN_NORM_EPS) / variance.double()).sqrt()
            weight = name.removesuffix("running_var") + "weight"
            absorbed[weight] = (tensors[weight].double() * scale).to(tensors[weight].dtype)
    return absorbed


def _fit(network: MaskRCNN, source: _Source, categories: Sequence[Category] | None) -> WeightsReport:
    expected = network.state_dict()
    found = {_present_name(name): tensor for name, tensor in source.tensors.items()}
    left_out = []
    if not any(name.startswith(PARTS) for name in found):
        left_out = [name for name in found if name.startswith("fc.")]  # the classifier of a bare ResNet
        found = {_BODY + name: tensor for name, tensor in found.items() if name not in left_out}

    replaced = [name for name in expected if name.startswith(_PER_LABEL) and name in found]
    if not _has_other_categories(source, categories) and all(found[n].shape == expected[n].shape for n in replaced):
        replaced = []

    chosen: dict[str, Tensor] = {}
    for part in PARTS:
        theirs = {name: tensor for name, tensor in found.items() if name.startswith(part) and name not in replaced}
        if theirs:
            ours = {name: tensor for name, tensor in expected.items() if name.startswith(part) and name not in replaced}
            check_fit(_without_counters(ours), _without_counters(theirs), source.name)
            chosen |= {name: tensor for name, tensor in theirs.items() if name in ours}
    if not chosen:
        rule = f"holds no tensor of this network; its first is {next(iter(found), 'none')}"
        raise BundleError(f"--weights {source.name}", rule, remedy="start at random with --weights none")
    check_finite(chosen, source.name)
    network.load_state_dict(chosen, strict=False)
    left_out += [name for name in _without_counters(found) if name not in chosen and name not in replaced]
    untouched = [name for name in _without_counters(expected) if name not in chosen and name not in replaced]
    return WeightsReport(source.name, tuple(chosen), tuple(replaced), tuple(left_out), tuple(untouched))


def _has_other_categories(source: _Source, categories: Sequence[Category] | None) -> bool:
    if source.category_names is None or categories is None:
        return False
    return source.category_names != {category.label: category.name for category in categories}


def _present_name(name: str) -> str:
    for pattern, replacement in _RENAMED:
        if pattern.match(name):
            name = _COUNTED_FROM_ONE.sub(lambda m: f"roi_heads.mask_head.mask_fcn{int(m[1]) - 1}.", name)
            return pattern.sub(replacement, name)
    return name


def _without_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the step counters that trained norms have and frozen ones have not."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}


def _summary(names: Iterable[str]) -> str:
    """Name tensors one by one where they are few, else by part."""
    names = list(names)
    if len(names) <= 6:
        return ", ".join(names) or "nothing"
    by_part: dict[str, int] = {}
    for name in names:
        part = next((part.rstrip(".") for part in PARTS if name.startswith(part)), name.split(".", 1)[0])
        by_part[part] = by_part.get(part, 0) + 1
    return f"{len(names)} tensors ({', '.join(f'{part} {count}' for part, count in by_part.items())})"
