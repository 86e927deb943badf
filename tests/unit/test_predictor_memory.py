"""Where memory is short: batches are halved, and a single image waits for the others to leave."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskrcnn.errors import ClusterError
from maskrcnn.model.predictor import Predictor
from tests.live_network import build_small_network, noise, quick_networks, save_small_bundle
from tests.unit.test_predictor import assert_best_scores_are_near, assert_same


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    with quick_networks():
        yield


@pytest.fixture(scope="module")
def bundle_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_small_bundle(tmp_path_factory.mktemp("bundle"), build_small_network())


@pytest.fixture(scope="module")
def predictor(bundle_uri: str) -> Predictor:
    return Predictor.from_bundle(bundle_uri, device="cpu")


def test_a_batch_that_does_not_fit_is_halved(bundle_uri: str, predictor: Predictor) -> None:
    tight = Predictor.from_bundle(bundle_uri, device="cpu")
    tight._max_images_per_forward = 100
    sizes: list[int] = []

    def refuse_more_than_two(module: nn.Module, inputs: tuple[Tensor]) -> None:
        sizes.append(len(inputs[0]))
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    tight._network._dense.register_forward_pre_hook(refuse_more_than_two)
    images = [noise(100, 150, seed) for seed in range(5)]
    found = tight(images)
    assert sizes == [5, 2, 3, 1, 2]
    for ours, alone in zip(found, predictor(images), strict=True):
        assert_best_scores_are_near(ours, alone)


def test_one_image_that_does_not_fit_is_an_error_with_numbers(bundle_uri: str) -> None:
    tight = Predictor.from_bundle(bundle_uri, device="cpu")

    def refuse(module: nn.Module, inputs: tuple[Tensor]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    tight._network._dense.register_forward_pre_hook(refuse)
    with pytest.raises(ClusterError, match="memory of cpu must hold one image of 96 x 64 px"):
        tight([noise(100, 150)])


def test_an_image_for_which_memory_is_short_waits_until_others_have_left(bundle_uri: str, predictor: Predictor) -> None:
    shared = Predictor.from_bundle(bundle_uri, device="cpu")
    both_inside, num_inside, lock = threading.Barrier(2), [0], threading.Lock()
    calls = itertools.count()

    def run_out_of_memory_beside_others(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if next(calls) < 2:
            both_inside.wait(20)  # each finds the memory held by the other
            raise torch.OutOfMemoryError("CUDA out of memory")
        with lock:
            num_inside[0] += 1
            assert num_inside[0] == 1

    def leave(module: nn.Module, inputs: Any, outputs: Any) -> None:
        with lock:
            num_inside[0] -= 1

    shared._network._dense.register_forward_pre_hook(run_out_of_memory_beside_others)
    shared._network._dense.register_forward_hook(leave)
    images = [noise(100, 150, seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda image: shared([image])[0], images))
    for ours, image in zip(found, images, strict=True):
        assert_same(ours, predictor([image])[0])
