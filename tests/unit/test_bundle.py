"""A bundle comes back as it was written, and says in one line what is wrong with one that cannot be used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torchvision.models.detection.mask_rcnn import MaskRCNN

from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.errors import BundleError
from maskrcnn.model.bundle import Bundle, Category, load_bundle, load_network, save_bundle
from maskrcnn.model.network import build_network

MODEL = ModelConfig(
    backbone="resnet18",
    num_labels=4,
    norm="batch",
    anchor_sizes_px=((16,), (32,), (64,), (128,), (256,)),
)
PREPROCESS = PreprocessConfig(min_size_px=64, max_size_px=128, mean=(0.4, 0.5, 0.6), apply_exif=False)
THRESHOLDS = ThresholdConfig(score_threshold=0.3, max_detections=7)
CATEGORIES = (Category(id=7, name="tin", label=1), Category(id=90, name="gap", label=3))
PROVENANCE = {"annotations_uri": "train.json", "step": 12, "metrics": {"segm": {"AP": 0.5}}}


@pytest.fixture(scope="module")
def network() -> MaskRCNN:
    torch.manual_seed(3)
    return build_network(MODEL, PREPROCESS, THRESHOLDS)


def save(uri: Path, network: MaskRCNN, **changed: Any) -> Bundle:
    settings: dict[str, Any] = {
        "model": MODEL,
        "preprocess": PREPROCESS,
        "thresholds": THRESHOLDS,
        "categories": CATEGORIES,
        "provenance": PROVENANCE,
    }
    return save_bundle(str(uri), network, **(settings | changed))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, network: MaskRCNN) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save(folder, network)
    return folder


@pytest.fixture
def folder(tmp_path: Path, saved: Path) -> Path:
    """A bundle of this test's own; the weights are linked, so `replace` them, never write into them."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.json").write_bytes((saved / "model.json").read_bytes())
    (folder / "model.safetensors").hardlink_to(saved / "model.safetensors")
    return folder


def replace(path: Path, body: bytes) -> None:
    path.unlink()
    path.write_bytes(body)


def replace_weights(folder: Path, body: bytes) -> None:
    """Put other weights into a bundle, and their sha256 into its JSON."""
    replace(folder / "model.safetensors", body)
    document = json.loads((folder / "model.json").read_text())
    document["weights_sha256"] = hashlib.sha256(body).hexdigest()
    (folder / "model.json").write_text(json.dumps(document))


def test_a_bundle_comes_back_as_it_was_written(folder: Path, network: MaskRCNN) -> None:
    bundle = load_bundle(str(folder))
    assert (bundle.model, bundle.preprocess, bundle.thresholds) == (MODEL, PREPROCESS, THRESHOLDS)
    assert bundle.categories == CATEGORIES
    assert bundle.provenance["step"] == 12
    assert bundle.provenance["metrics"] == {"segm": {"AP": 0.5}}
    assert bundle.provenance["versions"] == {name: version(name) for name in ("maskrcnn", "torch", "torchvision")}
    assert bundle.sha256 == hashlib.sha256((folder / "model.json").read_bytes()).hexdigest()
    assert bundle.weights_sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()

    loaded = load_network(bundle)
    assert not loaded.training
    assert loaded.transform.min_size == (64,)
    assert loaded.roi_heads.score_thresh == 0.3
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_the_same_network_gives_the_same_identity(tmp_path: Path, network: MaskRCNN) -> None:
    one, two = save(tmp_path / "one", network), save(tmp_path / "two", network)
    other = save(tmp_path / "three", network, thresholds=ThresholdConfig(score_threshold=0.31))
    assert one.sha256 == two.sha256 == load_bundle(str(tmp_path / "two")).sha256
    assert other.sha256 != one.sha256
    assert other.weights_sha256 == one.weights_sha256


def test_no_bundle_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"is not a model bundle: it holds no model\.json"):
        load_bundle(str(tmp_path / "nothing"))


def test_a_missing_weights_file(folder: Path) -> None:
    bundle = load_bundle(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"model\.safetensors is missing"):
        load_bundle(str(folder))
    with pytest.raises(BundleError, match=r"model\.safetensors is missing"):
        load_network(bundle)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe\x00", b"<Error/>"])
def test_a_json_that_is_none(folder: Path, body: bytes) -> None:
    (folder / "model.json").write_bytes(body)
    with pytest.raises(BundleError, match=r"model\.json must be JSON"):
        load_bundle(str(folder))


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for name in path[:-1]:
            document = document[name]
        del document[path[-1]]

    return change


def with_value(value: Any, *path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(document: Any) -> None:
        for name in path[:-1]:
            document = document[name]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_value(2, "format_version"), r"format_version must be at most 1, .* got 2.*update maskrcnn"),
        (without("format_version"), r"format_version is missing, in .*model\.json"),
        (without("weights_sha256"), "weights_sha256 is missing"),
        (without("network"), "network is missing"),
        (without("network", "backbone"), r"network\.backbone is missing"),
        (without("categories", 1, "name"), r"categories\[1\]\.name is missing"),  # type: ignore[arg-type]
        (with_value("resnet5", "network", "backbone"), "network: --backbone must be one of .*, got resnet5"),
        (with_value("many", "network", "num_labels"), r"network\.num_labels cannot be 'many'"),
        (with_value([[32]], "network", "anchor_sizes_px"), "must be five tuples"),
        (with_value(800.5, "preprocess", "min_size_px"), r"preprocess\.min_size_px cannot be 800\.5"),
        (with_value([0.1, 0.2], "preprocess", "mean"), r"preprocess\.mean and std must be three numbers each"),
        (with_value([1, 1, 0], "preprocess", "std"), r"preprocess\.mean and std must be three numbers each"),
        (with_value([1, None, 1], "preprocess", "std"), r"preprocess\.std cannot be \[1, None, 1\]"),
        (with_value(16, "preprocess", "decode_scale"), "preprocess: --decode-scale must be one of 1, 2, 4, 8, got 16"),
        (with_value(2.0, "preprocess", "decode_scale"), r"preprocess\.decode_scale cannot be 2\.0"),
        (with_value(float("nan"), "thresholds", "score_threshold"), r"thresholds\.score_threshold cannot be nan"),
        (with_value(1.5, "thresholds", "score_threshold"), r"--score-threshold must be in \[0, 1\], got 1\.5"),
        (with_value({}, "categories"), r"categories must be of type list"),
        (with_value([7], "categories"), r"categories\[0\] must be an object"),
        (with_value(4, "categories", 0, "label"), r"categories\[0\]\.label must be in \[1, 3\], got 4"),
        (
            with_value(2**31, "categories", 0, "id"),
            r"categories\[0\]\.id must be in \[-2147.*, got 2147483648 of 'tin'",
        ),
        (
            with_value(-(2**31) - 1, "categories", 1, "id"),
            r"categories\[1\]\.id must be in .* got -2147483649 of 'gap'",
        ),
        (with_value(3, "categories", 0, "label"), "categories: label must be unique, got 3 twice"),
        (with_value(90, "categories", 0, "id"), "categories: id must be unique, got 90 twice"),
        (with_value("gap", "categories", 0, "name"), "categories: name must be unique, got 'gap' twice"),
    ],
)
def test_a_field_that_cannot_be_used(folder: Path, change: Callable[[Any], None], message: str) -> None:
    document = json.loads((folder / "model.json").read_text())
    change(document)
    (folder / "model.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(str(folder))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    body = weights.read_bytes()
    for damaged in (body[: len(body) // 2], body[:-1] + bytes([body[-1] ^ 1]), b""):
        replace(weights, damaged)
        with pytest.raises(BundleError, match=r"model\.safetensors must have the sha256 .* copy both again"):
            load_network(str(folder))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("backbone.body.conv1.weight", None, r"tensor backbone\.body\.conv1\.weight is missing"),
        ("backbone.body.conv1.weight", torch.zeros(64, 3, 3, 3), r"must have the shape \(64, 3, 7, 7\), got \(64, 3,"),
        ("another.weight", torch.zeros(1), r"tensor another\.weight has no place in the network"),
    ],
)
def test_tensors_of_another_network_are_refused(
    folder: Path, network: MaskRCNN, name: str, tensor: torch.Tensor | None, message: str
) -> None:
    tensors = dict(network.state_dict())
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    replace_weights(folder, safetensors.torch.save(tensors))
    with pytest.raises(BundleError, match=message):
        load_network(str(folder))


def test_a_bundle_that_is_just_being_replaced_loads(folder: Path, saved: Path) -> None:
    (folder / "model.next.safetensors").hardlink_to(saved / "model.safetensors")
    replace(folder / "model.safetensors", b"of the bundle before")
    assert load_network(str(folder)).transform.min_size == (64,)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(folder: Path, network: MaskRCNN, value: float) -> None:
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    tensors["roi_heads.box_predictor.cls_score.weight"][1, 5] = value
    replace_weights(folder, safetensors.torch.save(tensors))
    with pytest.raises(
        BundleError, match=r"tensor roi_heads\.box_predictor\.cls_score\.weight must be finite"
    ) as caught:
        load_network(str(folder))
    assert str(folder) in str(caught.value)


def test_weights_cut_off_under_a_sha256_to_match_are_refused(folder: Path) -> None:
    replace_weights(folder, (folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(BundleError, match="must be a whole safetensors file"):
        load_network(str(folder))


@pytest.mark.parametrize(
    ("category", "message"),
    [
        (Category(id=1, name="tin", label=9), r"label must be in \[1, 3\], got 9"),
        (
            Category(id=2**31, name="tin", label=1),
            r"id must be in \[-2147483648, 2147483647\], got 2147483648 of 'tin'",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_not_written(
    tmp_path: Path, network: MaskRCNN, category: Category, message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        save(tmp_path / "bundle", network, categories=(category,))
    assert not (tmp_path / "bundle").exists()
