"""On a GPU: the same answers as on the CPU, and nothing waits between a batch's pixels and its boxes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from maskrcnn.config import ThresholdConfig
from maskrcnn.model import inference
from maskrcnn.model.box_head import FoundBoxes
from maskrcnn.model.inference import BatchBoxes, InferenceNetwork
from maskrcnn.model.nms import find_survivors
from maskrcnn.model.predictor import Predictor
from tests.live_network import build_small_network, noise
from tests.unit.test_nms import draw_groups, loop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_the_same_boxes_survive() -> None:
    boxes, is_candidate, labels = draw_groups(8, 300, seed=0)
    found = find_survivors(boxes.cuda(), is_candidate.cuda(), 0.5, labels.cuda(), is_patient=True)
    assert torch.equal(found.is_kept.cpu(), loop(boxes, is_candidate, 0.5, labels))


def test_nothing_waits_before_the_boxes_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    network = InferenceNetwork(build_small_network().cuda(), ThresholdConfig(0.05), torch.bfloat16)
    batch = torch.rand(4, 3, 64, 96, device="cuda").bfloat16().contiguous(memory_format=torch.channels_last)
    sizes = [(64, 96)] * 4
    network.find_boxes(batch, sizes)  # the first call loads kernels, and reserves memory
    copy = inference._to_host
    num_copies = 0

    def copy_with_waiting(found: FoundBoxes) -> tuple[BatchBoxes, bool]:
        nonlocal num_copies
        num_copies += 1
        torch.cuda.set_sync_debug_mode("default")
        return copy(found)

    monkeypatch.setattr(inference, "_to_host", copy_with_waiting)
    torch.cuda.set_sync_debug_mode("error")
    try:
        network.find_boxes(batch, sizes)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert num_copies == 1


def test_a_gpu_finds_what_the_cpu_finds() -> None:
    network = build_small_network()
    images = [noise(100, 150, seed) for seed in range(6)]
    on_cpu = Predictor.from_torchvision(network, score_threshold=0.05, max_detections=10, precision="fp32")(images)
    on_gpu = Predictor.from_torchvision(network.cuda(), score_threshold=0.05, max_detections=10, precision="fp32")
    for found, expected in zip(on_gpu(images), on_cpu, strict=True):
        torch.testing.assert_close(found.scores[:1], expected.scores[:1], rtol=0, atol=2e-2)
        assert found.boxes.device.type == "cpu"


def test_two_threads_at_once_find_the_same() -> None:
    predictor = Predictor.from_torchvision(build_small_network().cuda(), score_threshold=0.05, max_detections=10)
    images = [noise(100, 150, seed) for seed in range(8)]
    alone = [predictor([image])[0] for image in images]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda image: predictor([image])[0], images))
    for found, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(found.boxes, expected.boxes)
        assert found.rles == expected.rles
