"""bf16 inside modules, float32 between them; a device and a precision that are to be had."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from maskrcnn.errors import InputError
from maskrcnn.model.precision import resolve_device, uses_bf16, variant_of
from maskrcnn.model.predictor import Predictor
from tests.live_network import build_small_network, noise, quick_networks, save_small_bundle


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with quick_networks():
        yield


@pytest.fixture(scope="module")
def bundle_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_small_bundle(tmp_path_factory.mktemp("bundle"), build_small_network())


def test_bf16_is_near_fp32(bundle_uri: str) -> None:
    image = noise(100, 150)
    in_bf16 = Predictor.from_bundle(bundle_uri, device="cpu", precision="bf16")
    dtypes = []
    in_bf16._network._heads.box_head.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    found, exact = in_bf16([image])[0], Predictor.from_bundle(bundle_uri, device="cpu", precision="fp32")([image])[0]
    assert dtypes == [torch.bfloat16]
    assert found.scores.dtype == found.boxes.dtype == torch.float32
    # Of a random network, most of the best boxes are found again, to within a px or two of 150.
    distances = (found.boxes[None] - exact.boxes[:8, None]).abs().amax(dim=2).amin(dim=1)
    assert distances.median() < 2


def test_boxes_keep_their_digits_in_bf16(bundle_uri: str) -> None:
    """bf16 has 8 bits: of boxes beyond 256 px only even numbers would be left."""
    in_bf16 = Predictor.from_bundle(bundle_uri, device="cpu", precision="bf16")
    found = in_bf16([noise(64, 96)], with_masks=False)[0]  # as large as it is in the network: nothing is scaled
    assert not torch.equal(found.boxes, found.boxes.bfloat16().float())


def test_a_variant_leaves_the_original_alone() -> None:
    original = torch.nn.Sequential()
    original.add_module("first", torch.nn.Linear(4, 3))
    original.add_module("second", torch.nn.Linear(3, 2))
    variant = variant_of(original, ("second",))
    inputs = torch.randn(5, 4)
    before = original(inputs)
    assert variant(inputs).dtype == torch.float32
    assert not torch.equal(variant(inputs), before)
    torch.testing.assert_close(variant(inputs), before, rtol=0.05, atol=0.05)
    assert torch.equal(original(inputs), before)
    assert {id(p) for p in variant.parameters()} == {id(p) for p in original.parameters()}


def test_bad_settings_are_refused(bundle_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="--device must be auto or cpu: there is no CUDA device here, got cuda"):
        Predictor.from_bundle(bundle_uri, device="cuda")
    with pytest.raises(InputError, match="--precision must be one of auto, fp32, bf16, got fp8"):
        Predictor.from_bundle(bundle_uri, precision="fp8")  # type: ignore[arg-type]


def test_auto_is_what_the_device_can(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == cuda
    assert resolve_device("cpu") == cpu
    for can in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda can=can: can)
        assert uses_bf16("auto", cuda) is can
        assert not uses_bf16("auto", cpu)
        assert uses_bf16("bf16", cpu)
        assert not uses_bf16("fp32", cuda)
