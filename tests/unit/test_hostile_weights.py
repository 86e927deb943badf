"""Weights and bundles from an enemy: nothing runs, nothing crashes, no memory is set aside on their word."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.errors import BundleError
from maskrcnn.model.bundle import MAX_JSON_BYTES, Category, load_bundle, load_network, save_bundle
from maskrcnn.model.network import build_network
from maskrcnn.model.tensors import check_finite, parse_safetensors
from maskrcnn.model.weights import load_weights

MODEL = ModelConfig(backbone="resnet18", num_labels=2)


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.witness),)


def legacy_tar(payload: object) -> bytes:
    """Build the kind of file that PyTorch wrote before 2017."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            body = pickle.dumps(payload)
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return stream.getvalue()


def pickles(witness: Path) -> dict[str, bytes]:
    trap = Trap(witness)
    new, old = io.BytesIO(), io.BytesIO()
    torch.save({"conv1.weight": trap}, new)
    torch.save({"conv1.weight": trap}, old, _use_new_zipfile_serialization=False)
    return {
        "zip": new.getvalue(),
        "legacy": old.getvalue(),
        "legacy tar": legacy_tar({"conv1.weight": trap}),
        "bare pickle": pickle.dumps({"conv1.weight": trap}),
        "oldest protocol": pickle.dumps({"conv1.weight": trap}, protocol=0),
        "zip in front": b"PK\x03\x04" + pickle.dumps(trap),
        "nested": pickle.dumps({"state_dict": {"model": trap}}),
        "deep": b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
        "large": b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (2**46).to_bytes(6, "little") + b"\x85R.",
    }


@pytest.mark.parametrize("name", pickles(Path("x")))
def test_no_pickle_runs(name: str, tmp_path: Path) -> None:
    witness = tmp_path / "it ran"
    (tmp_path / "weights.pth").write_bytes(pickles(witness)[name])
    with pytest.raises(BundleError, match="weights must") as caught:
        load_weights(small_network(), str(tmp_path / "weights.pth"), MODEL)
    assert "\n" not in str(caught.value)
    assert not witness.exists()


def small_network() -> Any:
    return build_network(MODEL, PreprocessConfig(min_size_px=64, max_size_px=96), ThresholdConfig())


def test_an_archive_that_unpacks_to_all_memory_is_refused(tmp_path: Path) -> None:
    honest = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(4)}, honest)
    bomb = io.BytesIO()
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member) + bytes(10**6))
    (tmp_path / "bomb.pth").write_bytes(bomb.getvalue())
    with pytest.raises(BundleError, match="weights must not be compressed inside"):
        load_weights(small_network(), str(tmp_path / "bomb.pth"), MODEL)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(64, 3, 7, 7).to_sparse(),
        torch.empty(64, 3, 7, 7, device="meta"),
    ],
    ids=["sparse", "meta"],
)
def test_tensors_without_plain_values_are_refused(tensor: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"conv1.weight": tensor}, tmp_path / "weights.pth")
    with pytest.raises(BundleError, match="weights must"):
        load_weights(small_network(), str(tmp_path / "weights.pth"), MODEL)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_one_value_that_is_not_finite_is_found(dtype: torch.dtype, value: float) -> None:
    tensor = torch.linspace(-2, 2, 60).reshape(3, 20).to(dtype)
    sound = {"whole": torch.tensor(7), "empty": torch.zeros(0), "one": torch.tensor(1.5), "a": tensor}
    check_finite(sound, "place")
    for index in range(0, 60, 7):
        spoilt = tensor.to(torch.float32, copy=True)
        spoilt.view(-1)[index] = value
        with pytest.raises(BundleError, match="^tensor b must be finite, and holds NaN or infinity, in place; "):
            check_finite({**sound, "b": spoilt.to(dtype)}, "place")


def test_a_value_that_is_too_large_for_the_network_is_not_finite() -> None:
    with pytest.raises(BundleError, match="^tensor b must be finite"):
        check_finite({"b": torch.tensor([1e300], dtype=torch.float64)}, "place")


def lying_headers() -> dict[str, bytes]:
    def file(header: object, body: bytes = bytes(16)) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + body

    def one(dtype: str, shape: list[int], offsets: list[int]) -> bytes:
        return file({"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}})

    return {
        "longer than the file": struct.pack("<Q", 2**40) + b"{}",
        "longest": struct.pack("<Q", 2**64 - 1) + b"{}",
        "beyond the end": one("F32", [4], [0, 2**40]),
        "shape too large": one("F32", [2**40], [0, 16]),
        "shape that overflows": one("F32", [2**62, 4], [0, 16]),
        "shape below 0": one("F32", [-4], [0, 16]),
        "backwards": one("F32", [4], [16, 0]),
        "unknown type": one("F31", [4], [0, 16]),
        "type of elsewhere": one("F8_E8M0", [16], [0, 16]),
        "overlap": file({n: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for n in "ab"}),
        "deep": file(b"[" * 100_000),
        "number": file(b"1"),
        "nan": file(b'{"a": NaN}'),
        "no utf-8": file(b"\xff" * 10),
    }


@pytest.mark.parametrize("name", lying_headers())
def test_safetensors_whose_header_lies_are_refused(name: str) -> None:
    with pytest.raises(BundleError, match="weights must be a whole safetensors file") as caught:
        parse_safetensors(lying_headers()[name], "s3://weights/a.safetensors")
    assert "\n" not in str(caught.value)


def test_damaged_safetensors_are_read_or_refused() -> None:
    sound = safetensors.torch.save({"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(0)})
    rng = random.Random(0)
    for _ in range(2_000):
        body = bytearray(sound)
        for _ in range(rng.randint(1, 4)):
            body[rng.randrange(len(body))] = rng.choice(b'0129{}[]",:-eE\x00\xff')
        try:
            tensors = parse_safetensors(bytes(body), "a")
        except BundleError:
            continue
        assert sum(tensor.numel() for tensor in tensors.values()) < 100


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "bundle"
    parts: dict[str, Any] = {"model": MODEL, "preprocess": PreprocessConfig(), "thresholds": ThresholdConfig()}
    save_bundle(str(folder), small_network(), **parts, categories=[Category(1, "can", 1)], provenance={})
    return folder


def with_value(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for name in path[:-1]:
            document = document[name]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (with_value(10**9, "network", "num_labels"), r"cls_score\.weight must have 1000000000 rows"),
        (with_value(10**400, "network", "num_labels"), r"network\.num_labels cannot be 1000"),
        (with_value([[32] * 10**5] * 5, "network", "anchor_sizes_px"), "cls_logits.weight must have 300000 rows"),
        (with_value(10**400, "thresholds", "score_threshold"), r"thresholds\.score_threshold cannot be 1000"),
        (with_value([10**400, 1, 1], "preprocess", "std"), r"preprocess\.std cannot be \[1000"),
        (with_value(10**9, "preprocess", "max_size_px"), "--max-size must be 16384 px or less"),
        (with_value(32 * 10**7, "preprocess", "pad_multiple_px"), "--pad-multiple must be 16384 px or less"),
        (with_value(float("inf"), "preprocess", "mean"), r"preprocess\.mean cannot be inf"),
        (with_value(10**400, "format_version"), "format_version must be at most 1"),
    ],
)
def test_numbers_of_a_bundle_are_not_believed(
    change: Callable[[dict[str, Any]], None], rule: str, bundle: Path, tmp_path: Path
) -> None:
    document = json.loads((bundle / "model.json").read_text())
    change(document)
    (tmp_path / "model.json").write_text(json.dumps(document))
    (tmp_path / "model.safetensors").symlink_to(bundle / "model.safetensors")
    with pytest.raises(BundleError, match=rule):
        load_network(str(tmp_path))


@pytest.mark.parametrize("body", [b"[" * 10**6, b'{"a":' * 10**5, b"1" * 10_000, b"\x80" * 100])
def test_documents_of_a_bundle_that_break_parsers_are_refused(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes(body)
    with pytest.raises(BundleError, match=r"model\.json must be JSON"):
        load_bundle(str(tmp_path))


def test_a_document_of_a_gigabyte_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "model.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(BundleError, match=f"model.json must have at most {MAX_JSON_BYTES} bytes, has 1073741824"):
        load_bundle(str(tmp_path))


def test_weights_under_a_sha256_to_match_are_still_checked(bundle: Path, tmp_path: Path) -> None:
    body = lying_headers()["overlap"]
    document = json.loads((bundle / "model.json").read_text())
    document["weights_sha256"] = hashlib.sha256(body).hexdigest()
    (tmp_path / "model.json").write_text(json.dumps(document))
    (tmp_path / "model.safetensors").write_bytes(body)
    with pytest.raises(BundleError, match="weights must be a whole safetensors file"):
        load_network(str(tmp_path))
