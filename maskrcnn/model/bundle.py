"""The model bundle: a folder with `model.safetensors` and `model.json`, on any URI. Nothing is unpickled.

The JSON says everything that prediction needs besides the weights, and holds their sha256, so that its own sha256 names
the bundle: a bundle whose JSON is there is whole.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNN

from maskrcnn import storage
from maskrcnn.coco.ids import MAX_CATEGORY_ID, MIN_CATEGORY_ID
from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig, config_from_dict, to_json_dict
from maskrcnn.errors import BundleError, InputError, NotFoundError
from maskrcnn.model.bundle_files import JSON_NAME, WEIGHTS_NAME, read_weights_file, write_files
from maskrcnn.model.network import build_network, num_rows_of
from maskrcnn.model.tensors import check_finite, check_fit, parse_safetensors
from maskrcnn.redaction import redact_values

FORMAT_VERSION = 1
MAX_JSON_BYTES = 16 << 20
MAX_INTEGER = 2**31 - 1

_Config = TypeVar("_Config", ModelConfig, PreprocessConfig, ThresholdConfig)


@dataclass(frozen=True)
class Category:
    """A row of the table from the network's labels to the annotation file's categories."""

    id: int
    """As in the annotation file."""
    name: str
    label: int
    """The network's class index; 0 is background."""


@dataclass(frozen=True)
class Bundle:
    """What `model.json` says. Labels that no category has are never reported."""

    uri: str
    model: ModelConfig
    preprocess: PreprocessConfig
    thresholds: ThresholdConfig
    categories: tuple[Category, ...]
    provenance: Mapping[str, Any]
    """Training set, step, metrics, versions: whatever JSON holds."""
    weights_sha256: str
    sha256: str
    """Of the bytes of `model.json`: the bundle's identity."""


def save_bundle(
    uri: str,
    network: nn.Module,
    *,
    model: ModelConfig,
    preprocess: PreprocessConfig,
    thresholds: ThresholdConfig,
    categories: Sequence[Category],
    provenance: Mapping[str, Any],
) -> Bundle:
    """Write a bundle, replacing one that is there; a kill in between leaves one of the two.

    Args:
        uri: the bundle's folder.
        network: as `build_network` made it from ``model``; on any device.
        model, preprocess, thresholds: what the network was built from.
        categories: the label table; ids, names and labels are unique.
        provenance: training set, step, metrics: JSON values. Versions of the libraries are added.

    Returns:
        The bundle, as `load_bundle` gives it.

    Raises:
        BundleError: when the categories are not a table that fits the network.
    """
    weights = safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()})
    document = {
        "format_version": FORMAT_VERSION,
        "network": to_json_dict(model),
        "preprocess": to_json_dict(preprocess),
        "thresholds": to_json_dict(thresholds),
        "categories": [asdict(category) for category in categories],
        "provenance": {"versions": _versions(), **redact_values(provenance)},
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    body = (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
    bundle = _parse_bundle(body, uri)
    write_files(uri, weights, body)
    return bundle


def load_bundle(uri: str) -> Bundle:
    """Read and check a bundle's JSON, and that its weights are there; they are not read.

    Raises:
        BundleError: no bundle there, a newer format, or a field that is missing or cannot be used.
        StorageError: when the store does not answer.
    """
    place = storage.join(uri, JSON_NAME)
    try:
        if (num_bytes := storage.stat(place).size) > MAX_JSON_BYTES:
            raise BundleError(JSON_NAME, f"must have at most {MAX_JSON_BYTES} bytes, has {num_bytes}", uri)
        body = storage.read_bytes(place)
    except NotFoundError:
        rule = f"is not a model bundle: it holds no {JSON_NAME}"
        raise BundleError(f"bundle {uri}", rule, remedy="give the folder that training or save_bundle wrote") from None
    bundle = _parse_bundle(body, uri)
    if not storage.exists(storage.join(uri, WEIGHTS_NAME)):
        raise BundleError(WEIGHTS_NAME, "is missing", uri, "copy the whole folder again")
    return bundle


def load_network(bundle: Bundle | str, device: torch.device | str = "cpu") -> MaskRCNN:
    """Build a bundle's network and load its weights.

    Args:
        bundle: a bundle, or the URI of one.
        device: where the network goes.

    Returns:
        The network, in eval mode.

    Raises:
        BundleError: as `load_bundle`; and weights that are missing, damaged, not finite, or another network's.
    """
    bundle = load_bundle(bundle) if isinstance(bundle, str) else bundle
    weights = read_weights(bundle)
    place = storage.join(bundle.uri, WEIGHTS_NAME)
    _check_rows(bundle.model, weights, place)
    network = build_network(bundle.model, bundle.preprocess, bundle.thresholds)
    check_fit(network.state_dict(), weights, place)
    network.load_state_dict(weights)
    return network.to(device).eval()


def _check_rows(model: ModelConfig, weights: Mapping[str, Tensor], place: str) -> None:
    """Refuse a table of labels or anchors that the weights are not for, before a network of that size is built."""
    for name, num_rows in num_rows_of(model).items():
        got = tuple(weights[name].shape) if name in weights else "none"
        if got[:1] != (num_rows,):
            raise BundleError(f"tensor {name}", f"must have {num_rows} rows, as {JSON_NAME} says, got {got}", place)


def read_weights(bundle: Bundle) -> dict[str, Tensor]:
    """Read a bundle's tensors, by name, on the CPU.

    Raises:
        BundleError: weights that are missing, not finite, or not the ones that `model.json` was written for.
    """
    place = storage.join(bundle.uri, WEIGHTS_NAME)
    tensors = parse_safetensors(read_weights_file(bundle.uri, bundle.weights_sha256), place)
    check_finite(tensors, place)
    return tensors


def _parse_bundle(body: bytes, uri: str) -> Bundle:
    place = storage.join(uri, JSON_NAME)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BundleError(JSON_NAME, f"must be JSON: {error}", uri) from None
    if not isinstance(document, dict):
        raise BundleError(JSON_NAME, f"must be a JSON object, got {type(document).__name__}", uri)
    format_version = _field(document, "format_version", int, place)
    if format_version > FORMAT_VERSION:
        rule = f"must be at most {FORMAT_VERSION}, which is what this version reads, got {format_version}"
        raise BundleError("format_version", rule, place, "update maskrcnn")
    model = _parse_config(ModelConfig, "network", document, place)
    preprocess = _parse_config(PreprocessConfig, "preprocess", document, place)
    if len(preprocess.mean) != 3 or len(preprocess.std) != 3 or min(preprocess.std) <= 0:
        rule = f"must be three numbers each, std above 0, got {preprocess.mean} and {preprocess.std}"
        raise BundleError("preprocess.mean and std", rule, place)
    return Bundle(
        uri=uri,
        model=model,
        preprocess=preprocess,
        thresholds=_parse_config(ThresholdConfig, "thresholds", document, place),
        categories=_parse_categories(_field(document, "categories", list, place), model.num_labels, place),
        provenance=_field(document, "provenance", dict, place),
        weights_sha256=_field(document, "weights_sha256", str, place),
        sha256=hashlib.sha256(body).hexdigest(),
    )


def _field(document: Mapping[str, Any], name: str, kind: type, place: str, within: str = "") -> Any:
    thing = f"{within}.{name}" if within else name
    if name not in document:
        raise BundleError(thing, "is missing", place)
    if not isinstance(document[name], kind) or isinstance(document[name], bool):
        raise BundleError(thing, f"must be of type {kind.__name__}, got {document[name]!r:.80}", place)
    return document[name]


def _parse_config(cls: type[_Config], section: str, document: Mapping[str, Any], place: str) -> _Config:
    values = _field(document, section, dict, place)
    for field in fields(cls):
        if field.name not in values:
            raise BundleError(f"{section}.{field.name}", "is missing", place)
        if not _is_like(values[field.name], getattr(cls(), field.name)):
            raise BundleError(f"{section}.{field.name}", f"cannot be {values[field.name]!r:.80}", place)
    try:
        return config_from_dict(cls, values)
    except InputError as error:
        raise BundleError(f"{section}: {error.thing}", error.rule, place) from None


def _is_like(value: Any, example: Any) -> bool:
    """Say whether a JSON value has the type of a field's default; lists may be of another length."""
    if isinstance(example, tuple):
        return isinstance(value, list) and len(value) > 0 and all(_is_like(item, example[0]) for item in value)
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return False
    if isinstance(example, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return type(value) is type(example)


def _parse_categories(rows: Sequence[Any], num_labels: int, place: str) -> tuple[Category, ...]:
    categories = []
    for index, row in enumerate(rows):
        thing = f"categories[{index}]"
        if not isinstance(row, dict):
            raise BundleError(thing, f"must be an object, got {type(row).__name__}", place)
        category = Category(*(_field(row, name, kind, place, thing) for name, kind in _CATEGORY_FIELDS))
        if not MIN_CATEGORY_ID <= category.id <= MAX_CATEGORY_ID:
            rule = (
                f"must be in [{MIN_CATEGORY_ID}, {MAX_CATEGORY_ID}], got {category.id!r:.40} of {category.name!r:.40}"
            )
            raise BundleError(f"{thing}.id", rule, place)
        if not 1 <= category.label < num_labels:
            raise BundleError(f"{thing}.label", f"must be in [1, {num_labels - 1}], got {category.label}", place)
        categories.append(category)
    for name, _ in _CATEGORY_FIELDS:
        values = [getattr(category, name) for category in categories]
        if len(set(values)) != len(values):
            repeated = next(value for value in values if values.count(value) > 1)
            raise BundleError(f"categories: {name}", f"must be unique, got {repeated!r} twice", place)
    return tuple(categories)


_CATEGORY_FIELDS = (("id", int), ("name", str), ("label", int))


def _versions() -> dict[str, str]:
    names = ("maskrcnn", "torch", "torchvision")
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a source tree
        return "unknown"
