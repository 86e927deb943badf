"""Our steps beside a plain torchvision loop: the same weights, images and choices give the same losses."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from maskrcnn.coco import rle
from maskrcnn.coco.annotations import CocoDataset, load_coco
from maskrcnn.config import PreprocessConfig
from maskrcnn.synthetic import write_shelves
from maskrcnn.training import step as step_module
from maskrcnn.training.losses import LOSS_NAMES
from maskrcnn.training.network import prepare_network
from maskrcnn.training.samples import CocoSamples, Sample
from maskrcnn.training.schedule import ScheduleConfig
from maskrcnn.training.step import Learner
from maskrcnn.training.targets import Targets
from maskrcnn.training.transforms import SampleKey
from tests.learning import CONFIG, FullMasks, inject_proposals, padded_shape, start_network, use_our_choices

NUM_STEPS = 10
LEARNING_RATE = 0.0003
"""At higher rates a difference in the last bit, of another order of summation, grows tenfold with every step."""
PARITY = replace(
    CONFIG,
    schedule=ScheduleConfig(LEARNING_RATE, max_steps=NUM_STEPS, decay="constant", warmup_steps=0),
    max_grad_norm=1e9,
    crowds="drop",
    rois_per_image=32,
)
WARM_UP = replace(
    CONFIG,
    schedule=ScheduleConfig(0.0005, max_steps=30, decay="cosine", warmup_steps=5),
    optimizer="adamw",
    crowds="drop",
)


@dataclass(frozen=True)
class Images:
    """Images with annotations, and a network that has learnt from them for some steps."""

    coco: CocoDataset
    samples: CocoSamples
    preprocess: PreprocessConfig
    start: Any

    def batch(self, step: int) -> list[Sample]:
        """Give two images, never the same in one pass over the set."""
        return [self.samples[SampleKey(0, (2 * step + place) % len(self.samples))] for place in (0, 1)]


def _images(annotations: Path, preprocess: PreprocessConfig, num_warm_up: int) -> Images:
    coco = load_coco(str(annotations))
    folder = str(annotations.parent / "images")
    samples = CocoSamples(coco, folder, preprocess, PARITY.augment, crowds_are_ignored=False)
    network = start_network(num_labels=len(coco.categories) + 1)
    network.transform.min_size = (preprocess.min_size_px,)
    network.transform.max_size = preprocess.max_size_px
    images = Images(coco, samples, preprocess, network)
    learner = Learner(prepare_network(network, WARM_UP), preprocess, WARM_UP)
    for step in range(num_warm_up):
        batch = images.batch(NUM_STEPS + step)
        learner.step(batch, step, padded_shape(batch))
    for parameter in network.parameters():
        parameter.grad = None
    return images


@pytest.fixture(scope="module", params=["drawn shelves", "real photos"])
def images(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Images:
    if request.param == "drawn shelves":
        # Not resized: on boxes at whole px many anchors lie equally well, and the last bit says which one counts.
        annotations = write_shelves(tmp_path_factory.mktemp("shelves"), 24, seed=5, width=96, height=64, num_boards=1)
        return _images(annotations, PreprocessConfig(64, 96), num_warm_up=0)
    shared_path = request.getfixturevalue("shared_path")
    annotations = shared_path / "data" / "coco_cc_by" / "annotations_train.json"
    return _images(annotations, PreprocessConfig(128, 160), num_warm_up=12)


def _torchvision_targets(coco: CocoDataset, batch: Sequence[Sample]) -> list[dict[str, Tensor]]:
    """Make targets as torchvision's reference does: px of the file, and masks over the whole image."""
    targets = []
    for sample in batch:
        height, width = sample.image.shape[1:]
        kept = set(sample.annotation_ids)
        places = [each for each in coco.annotations_of(sample.key.sample_index) if coco.annotation_ids[each] in kept]
        x, y, across, down = coco.bboxes[places].reshape(-1, 4).T
        edges = [x.clip(0, width), y.clip(0, height), (x + across).clip(0, width), (y + down).clip(0, height)]
        masks = np.array([rle.to_mask(coco.rle(each)) for each in places], np.uint8).reshape(-1, height, width)
        targets.append(
            {
                "boxes": torch.tensor(np.stack(edges, axis=1), dtype=torch.float32),
                "labels": torch.from_numpy(coco.categories.labels_of(coco.category_ids[places])),
                "masks": torch.from_numpy(masks),
            }
        )
    return targets


def _plain_loop(images: Images, steps: range = range(NUM_STEPS)) -> list[dict[str, float]]:
    """Train as torchvision's reference does, but with keyed choices and given proposals."""
    network = copy.deepcopy(images.start)
    network.train()
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": PARITY.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, LEARNING_RATE, momentum=0.9)
    losses_of_step = []
    for step in steps:
        batch = images.batch(step)
        use_our_choices(network, batch, PARITY)
        inputs = [sample.image.float() / 255 for sample in batch]
        losses = network(inputs, _torchvision_targets(images.coco, batch))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        losses_of_step.append({name: float(losses[name].detach()) for name in LOSS_NAMES})
    return losses_of_step


def _our_loop(images: Images) -> list[dict[str, float]]:
    learner = Learner(prepare_network(copy.deepcopy(images.start), PARITY), images.preprocess, PARITY)
    losses_of_step = []
    for step in range(NUM_STEPS):
        batch = images.batch(step)
        inject_proposals(learner.network, batch)
        losses_of_step.append(learner.step(batch, step, padded_shape(batch)).read().losses)
    return losses_of_step


def _use_full_masks(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_full_masks(samples: Sequence[Sample], device: torch.device, seed: int) -> Targets:
        resized = []
        for sample, target in zip(samples, _torchvision_targets(images.coco, samples), strict=True):
            masks = target["masks"].new_zeros(0, *sample.size)
            if len(sample.boxes):
                masks = F.interpolate(target["masks"][:, None].float(), size=sample.size)[:, 0].byte()
            resized.append(masks)
        return replace(Targets.of(samples, device, seed), masks=FullMasks(resized))

    monkeypatch.setattr(step_module, "Targets", SimpleNamespace(of=with_full_masks))


def _farthest(ones: list[dict[str, float]], others: list[dict[str, float]]) -> float:
    """Give the largest relative difference of two trainings' losses, step by step."""
    pairs = zip(ones, others, strict=True)
    return max(abs(sum(one.values()) / sum(other.values()) - 1) for one, other in pairs)


def test_ten_steps_have_the_losses_of_a_plain_torchvision_loop(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _plain_loop(images)
    with_grids = _our_loop(images)
    _use_full_masks(images, monkeypatch)
    with_full_masks = _our_loop(images)
    assert _farthest(with_full_masks, expected) < 1e-4
    assert _farthest(with_grids, expected) < 1e-2
    # The weights moved: the last images' losses are others than before the first step.
    [unmoved] = _plain_loop(images, range(NUM_STEPS - 1, NUM_STEPS))
    assert abs(sum(expected[-1].values()) / sum(unmoved.values()) - 1) > 0.03
