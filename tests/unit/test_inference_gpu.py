"""On a GPU: the same answers as on the CPU, and nothing waits between a batch's pixels and its boxes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from maskrcnn.coco.rle import area
from maskrcnn.config import ThresholdConfig
from maskrcnn.model import inference
from maskrcnn.model.box_head import FoundBoxes
from maskrcnn.model.inference import BatchBoxes, InferenceNetwork
from maskrcnn.model.nms import find_survivors
from maskrcnn.model.predictor import Predictor
from maskrcnn.model.proposals import Proposals
from maskrcnn.synthetic import draw_shelf
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

    def copy_with_waiting(found: FoundBoxes, proposals: Proposals) -> tuple[BatchBoxes, bool, bool]:
        nonlocal num_copies
        num_copies += 1
        torch.cuda.set_sync_debug_mode("default")
        return copy(found, proposals)

    monkeypatch.setattr(inference, "_to_host", copy_with_waiting)
    torch.cuda.set_sync_debug_mode("error")
    try:
        network.find_boxes(batch, sizes)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert num_copies == 1


def test_a_gpu_finds_what_the_cpu_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=192, max_size=320).eval()
    images = [torch.from_numpy(draw_shelf(seed, width=300, height=200).image).permute(2, 0, 1) for seed in range(4)]
    on_cpu = Predictor.from_torchvision(network, score_threshold=0.3, max_detections=20, precision="fp32")(images)
    on_gpu = Predictor.from_torchvision(network.cuda(), score_threshold=0.3, max_detections=20, precision="fp32")
    assert sum(map(len, on_cpu)) >= 20
    for found, expected in zip(on_gpu(images), on_cpu, strict=True):
        assert found.boxes.device.type == "cpu"
        assert torch.equal(found.labels, expected.labels)
        torch.testing.assert_close(found.boxes, expected.boxes, rtol=0, atol=0.5)
        torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-2)
        areas = [[area(rle) for rle in one.rles] for one in (found, expected)]
        torch.testing.assert_close(*(torch.tensor(one, dtype=torch.float32) for one in areas), rtol=0.05, atol=20)


def test_two_threads_at_once_find_the_same() -> None:
    predictor = Predictor.from_torchvision(build_small_network().cuda(), score_threshold=0.05, max_detections=10)
    images = [noise(100, 150, seed) for seed in range(8)]
    alone = [predictor([image])[0] for image in images]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda image: predictor([image])[0], images))
    for found, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(found.boxes, expected.boxes)
        assert found.rles == expected.rles
