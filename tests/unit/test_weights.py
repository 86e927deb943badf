"""First weights: what is loaded, replaced and left out, and what is refused. Nothing is downloaded here."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torchvision.models import ResNet18_Weights, resnet18
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights, maskrcnn_resnet50_fpn
from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.ops import FrozenBatchNorm2d

from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.errors import BundleError
from maskrcnn.model.bundle import Category, save_bundle
from maskrcnn.model.network import build_network
from maskrcnn.model.weights import coco_categories, load_weights

SMALL = ModelConfig(backbone="resnet18", num_labels=4)
CATEGORIES = tuple(Category(id=10 * label, name=f"kind {label}", label=label) for label in (1, 2, 3))
OTHERS = tuple(Category(id=10 * label, name=f"other kind {label}", label=label) for label in (1, 2, 3))
PER_LABEL = {
    f"roi_heads.{layer}.{name}"
    for layer in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
    for name in ("weight", "bias")
}


def build(config: ModelConfig = SMALL, seed: int = 0) -> MaskRCNN:
    torch.manual_seed(seed)
    return build_network(config, PreprocessConfig(min_size_px=64, max_size_px=96), ThresholdConfig())


def copied(network: MaskRCNN) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def assert_holds(network: MaskRCNN, expected: Mapping[str, Tensor]) -> None:
    found = network.state_dict()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_none_changes_nothing() -> None:
    network = build()
    before = copied(network)
    report = load_weights(network, "none", SMALL)
    assert_holds(network, before)
    assert report.loaded == ()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_whole_detector_loads_from_a_file(tmp_path: Path, suffix: str) -> None:
    source = copied(build(seed=1))
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"model": source, "epoch": 3, "optimizer": {"lr": 0.1}}, path)
    else:
        safetensors.torch.save_file(source, path)
    network = build()
    report = load_weights(network, str(path), SMALL, CATEGORIES)
    assert_holds(network, source)
    assert set(report.loaded) == set(source)
    assert report.replaced == report.left_out == report.not_in_source == ()


def test_predictors_of_another_size_start_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(build(ModelConfig(backbone="resnet18", num_labels=7), seed=1).state_dict(), tmp_path / "seven.pth")
    source = torch.load(tmp_path / "seven.pth", weights_only=True)
    network = build()
    before = copied(network)
    with caplog.at_level(logging.INFO, logger="maskrcnn"):
        report = load_weights(network, str(tmp_path / "seven.pth"), SMALL, CATEGORIES)
    assert set(report.replaced) == PER_LABEL
    assert set(report.loaded) == set(source) - PER_LABEL
    assert_holds(network, {name: source[name] for name in report.loaded})
    assert_holds(network, {name: before[name] for name in PER_LABEL})
    (line,) = caplog.messages
    assert "replaced for other categories: roi_heads.box_predictor.cls_score.weight" in line
    assert "backbone.body" in line


def test_a_bundle_of_other_categories_but_as_many_gives_all_but_the_predictors(tmp_path: Path) -> None:
    uri = str(tmp_path / "bundle")
    preprocess, thresholds = PreprocessConfig(), ThresholdConfig()
    save_bundle(
        uri,
        build(seed=1),
        model=SMALL,
        preprocess=preprocess,
        thresholds=thresholds,
        categories=CATEGORIES,
        provenance={},
    )
    assert load_weights(build(), uri, SMALL, CATEGORIES).replaced == ()
    assert set(load_weights(build(), uri, SMALL, OTHERS).replaced) == PER_LABEL


def test_a_bare_resnet_fills_the_backbone(tmp_path: Path) -> None:
    torch.manual_seed(2)
    body = resnet18(weights=None).state_dict()
    torch.save(body, tmp_path / "resnet18.pth")
    network = build()
    report = load_weights(network, str(tmp_path / "resnet18.pth"), SMALL)
    assert set(report.left_out) == {"fc.weight", "fc.bias"}
    assert all(name.startswith("backbone.body.") for name in report.loaded)
    assert "rpn.head.cls_logits.weight" in report.not_in_source
    assert torch.equal(network.backbone.body.layer4[1].conv2.weight, body["layer4.1.conv2.weight"])
    assert torch.equal(network.backbone.body.layer4[1].bn2.running_var, body["layer4.1.bn2.running_var"])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ModelConfig(backbone="resnet34", num_labels=4), r"backbone\.body\.layer1\.2\.conv1\.weight has no place"),
        (ModelConfig(backbone="resnet50", num_labels=4), r"tensor backbone\.body\."),
        (ModelConfig(backbone="resnet18", num_labels=4, heads="v2"), r"tensor backbone\.fpn\."),
    ],
)
def test_another_network_is_refused(tmp_path: Path, other: ModelConfig, message: str) -> None:
    torch.save(build(other).state_dict(), tmp_path / "other.pth")
    network = build()
    before = copied(network)
    with pytest.raises(BundleError, match=message) as caught:
        load_weights(network, str(tmp_path / "other.pth"), SMALL)
    assert str(tmp_path / "other.pth") in str(caught.value)
    assert_holds(network, before)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, suffix: str) -> None:
    source = copied(build(seed=1))
    source["backbone.body.layer1.0.conv1.weight"][0, 0] = float("nan")
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(source, path)
    else:
        safetensors.torch.save_file(source, path)
    network = build()
    before = copied(network)
    with pytest.raises(BundleError, match=r"tensor backbone\.body\.layer1\.0\.conv1\.weight must be finite") as caught:
        load_weights(network, str(path), SMALL)
    assert str(path) in str(caught.value)
    assert_holds(network, before)


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.witness),)


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    witness = tmp_path / "it ran"
    (tmp_path / "old.pth").write_bytes(pickle.dumps({"conv1.weight": Hostile(witness)}))
    torch.save({"conv1.weight": Hostile(witness)}, tmp_path / "new.pth")
    for name in ("old.pth", "new.pth"):
        with pytest.raises(BundleError, match="weights must hold tensors and nothing else") as caught:
            load_weights(build(), str(tmp_path / name), SMALL)
        assert "\n" not in str(caught.value)
    assert not witness.exists()
    torch.load(tmp_path / "new.pth", weights_only=False)
    assert witness.exists()  # the trap works


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "must be a whole safetensors file"),
        (b"<!DOCTYPE html>", "must be a whole safetensors file"),
        (b"PK\x03\x04 cut off", "must hold tensors and nothing else, and be whole"),
        (pickle.dumps([1, 2]), "must"),
        (safetensors.torch.save({"model.encoder": torch.zeros(2)}), r"tensor backbone\.body\.conv1\.weight is missing"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, body: bytes, message: str) -> None:
    (tmp_path / "weights").write_bytes(body)
    with pytest.raises(BundleError, match=message):
        load_weights(build(), str(tmp_path / "weights"), SMALL)


def test_a_state_dict_of_something_else(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    for name in ("list.pth", "epoch.pth"):
        with pytest.raises(BundleError, match="weights must be a state dict: names and tensors"):
            load_weights(build(), str(tmp_path / name), SMALL)


def test_a_name_that_is_nothing() -> None:
    with pytest.raises(BundleError, match="--weights cocoo must be coco, imagenet, none, or the path or URI"):
        load_weights(build(), "cocoo", SMALL)


@pytest.mark.parametrize("weights", ["imagenet", "coco"])
def test_without_a_network_the_message_names_the_way_out(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    config = ModelConfig(num_labels=4)
    with pytest.raises(BundleError, match=f"--weights {weights} could not be downloaded") as caught:
        load_weights(build(config), weights, config)
    assert "--weights none" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_coco_is_for_resnet50_only() -> None:
    with pytest.raises(BundleError, match=r"--weights coco exists for --backbone resnet50 only.*imagenet"):
        load_weights(build(), "coco", SMALL)


def test_imagenet_comes_from_torchvisions_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    body = resnet18(weights=None).state_dict()
    torch.save(body, checkpoints / ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1])
    network = build()
    report = load_weights(network, "imagenet", SMALL)
    assert torch.equal(network.backbone.body.conv1.weight, body["conv1.weight"])
    assert set(report.left_out) == {"fc.weight", "fc.bias"}


def old_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name tensors as torchvision's first COCO file does."""
    renamed = {}
    for name, tensor in tensors.items():
        name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        if name.startswith("backbone.fpn."):
            name = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        for index in range(4):
            name = name.replace(f"mask_head.{index}.0.", f"mask_head.mask_fcn{index + 1}.")
        renamed[name] = tensor
    return renamed


def test_the_first_coco_set_gives_torchvisions_own_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    generator = torch.Generator().manual_seed(4)
    file_tensors = {
        name: tensor
        for name, tensor in maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    for name, tensor in file_tensors.items():
        if name.endswith("running_var"):  # small variances, where the missing epsilon shows
            tensor.copy_(10 ** (-6 * torch.rand(tensor.shape, generator=generator)))
            weight = file_tensors[name.replace("running_var", "weight")]
            weight.copy_(tensor.sqrt() * (0.2 + torch.rand(tensor.shape, generator=generator)))
    set_of_weights = MaskRCNN_ResNet50_FPN_Weights.COCO_V1
    torch.save(old_names(file_tensors), checkpoints / set_of_weights.url.rsplit("/", 1)[1])

    theirs = maskrcnn_resnet50_fpn(weights=set_of_weights).eval()
    assert any(isinstance(m, FrozenBatchNorm2d) and m.eps == 0 for m in theirs.modules())
    config = ModelConfig()
    network = build(config).eval()
    report = load_weights(network, "coco", config, coco_categories())
    assert report.replaced == report.left_out == report.not_in_source == ()
    image = torch.rand(1, 3, 64, 96, generator=generator)
    with torch.inference_mode():
        ours, expected = network.backbone(image), theirs.backbone(image)
    for level in expected:
        torch.testing.assert_close(ours[level], expected[level], rtol=1e-3, atol=1e-4)
    assert_holds(network, {name: theirs.state_dict()[name] for name in PER_LABEL})

    other = tuple(Category(id=label, name=f"kind {label}", label=label) for label in range(1, 91))
    assert set(load_weights(build(config), "coco", config, other).replaced) == PER_LABEL


def test_the_coco_table_has_eighty_categories_and_gaps() -> None:
    table = coco_categories()
    assert len(table) == 80
    assert table[0] == Category(id=1, name="person", label=1)
    assert table[-1] == Category(id=90, name="toothbrush", label=90)
    assert 12 not in {category.label for category in table}
