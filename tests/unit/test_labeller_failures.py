"""What ends a part ends it wholly: no thread is left waiting, and no good image is called a bad one."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskrcnn.errors import BrokenDeviceError
from maskrcnn.labelling import labeller as labeller_module
from maskrcnn.labelling.results import ImageResult, ListedImage
from maskrcnn.model.decode import DecodedImage
from tests.blobs import BlobPredictor
from tests.unit.test_labeller import build, listed


@pytest.fixture
def mixed_images(tmp_path: Path) -> list[ListedImage]:
    """Forty images of ten sizes."""
    for place in range(40):
        shape = 40 + 17 * (place % 5), 60 + 23 * (place % 2), 3
        Image.fromarray(np.full(shape, 0, np.uint8)).save(tmp_path / f"{place:02d}.png")
    return listed(tmp_path)


def break_after(monkeypatch: pytest.MonkeyPatch, num_calls: int, text: str) -> None:
    """Let a device break in the middle of a part."""
    predict, calls = BlobPredictor.__call__, itertools.count()

    def fail(self: BlobPredictor, images: Any, **how: Any) -> Any:
        if next(calls) >= num_calls:
            raise RuntimeError(text)
        return predict(self, images, **how)

    monkeypatch.setattr(BlobPredictor, "__call__", fail)


def no_thread_is_left() -> bool:
    names = ("reader", "read_", "decode", "predict")
    return not [thread for thread in threading.enumerate() if thread.name.startswith(names)]


def test_a_broken_device_ends_every_part_in_hand_and_those_that_come(
    mixed_images: list[ListedImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labeller_module, "MAX_DECODED_BYTES", 30_000)
    break_after(monkeypatch, 4, "CUDA error: an illegal memory access was encountered")
    labeller = build(BlobPredictor())
    with ThreadPoolExecutor(2) as pool:
        parts = [pool.submit(labeller.label, part) for part in (mixed_images[:20], mixed_images[20:])]
    for part in parts:
        assert isinstance(part.exception(timeout=0), BrokenDeviceError)
    with pytest.raises(BrokenDeviceError, match="illegal memory access"):
        labeller.label(mixed_images)
    assert no_thread_is_left()


def test_memory_that_is_short_breaks_no_device(
    mixed_images: list[ListedImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_after(monkeypatch, 0, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")
    results = build(BlobPredictor()).label(mixed_images[:4])
    assert [result.error_kind for result in results] == ["worker_crash"] * 4


def test_an_image_that_cannot_be_brought_to_a_broken_device_is_not_called_corrupt(
    mixed_images: list[ListedImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: DecodedImage) -> DecodedImage:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(DecodedImage, "pinned", fail)
    on_gpu = BlobPredictor()
    on_gpu.is_on_gpu = True
    with pytest.raises(BrokenDeviceError, match="unspecified launch failure"):
        build(on_gpu).label(mixed_images)
    monkeypatch.setattr(DecodedImage, "pinned", lambda self: raise_short_of_memory())
    results = build(on_gpu).label(mixed_images[:6])
    assert not any(result.error_kind for result in results)


def raise_short_of_memory() -> DecodedImage:
    raise RuntimeError("CUDA error: out of memory")


def test_an_error_of_whoever_watches_leaves_no_thread_behind(
    mixed_images: list[ListedImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labeller_module, "MAX_DECODED_BYTES", 30_000)

    def fail(_: ImageResult) -> None:
        raise KeyError("the counter is gone")

    with pytest.raises(KeyError, match="the counter is gone"):
        build(BlobPredictor()).label(mixed_images, on_result=fail)
    assert no_thread_is_left()
