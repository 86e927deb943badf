"""Small networks that learn, and drawn samples for them: what the tests of training share.

A network with random weights and frozen norms answers with huge numbers, which no comparison survives: norms are set
here to what drawn shelves show, as trained weights' are, and the weights have learnt for some steps.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.model.network import BOX_ROI_SIZE, PYRAMID_CHANNELS, build_network
from maskrcnn.model.proposals import Proposals
from maskrcnn.synthetic import CATEGORIES, draw_shelf
from maskrcnn.training.augment import AugmentConfig
from maskrcnn.training.choices import choose, draw_priorities, open_stream
from maskrcnn.training.losses import FIRST_TRUTH_ID, LossSums, compute_losses
from maskrcnn.training.mask_grids import draw_grid, nearest_indices
from maskrcnn.training.network import prepare_network
from maskrcnn.training.recipe import TrainConfig
from maskrcnn.training.samples import Sample
from maskrcnn.training.schedule import ScheduleConfig
from maskrcnn.training.step import Learner, StepResult
from maskrcnn.training.targets import Targets
from maskrcnn.training.transforms import Patch, Purpose, SampleKey

PREPROCESS = PreprocessConfig(min_size_px=64, max_size_px=128)
NUM_LABELS = len(CATEGORIES) + 1
CONFIG = TrainConfig(
    schedule=ScheduleConfig(learning_rate=0.002, max_steps=20, decay="constant", warmup_steps=0),
    augment=AugmentConfig(flip_probability=0, color_jitter=0),
    global_batch_size=4,
    micro_batch_size=4,
    rois_per_image=16,
    anchors_per_image=32,
    proposals_per_image=60,
    precision="fp32",
)


def draw_sample(seed: int, width: int = 64, height: int = 64) -> Sample:
    """Draw a shelf as it comes out of a data set; 1 to 6 instances."""
    shelf = draw_shelf(seed, width=width, height=height, num_boards=1)
    masks = np.stack([instance.mask for instance in shelf.instances]).astype(np.uint8)
    boxes, grids, frames = [], [], []
    for mask in masks:
        rows, columns = np.nonzero(mask)
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        patch = Patch(mask[top:bottom, left:right], int(left), int(top))
        grid, frame = draw_grid(patch, nearest_indices(height, height), nearest_indices(width, width))
        boxes.append([left, top, right, bottom])
        grids.append(grid)
        frames.append(frame)
    return Sample(
        image=torch.from_numpy(shelf.image).permute(2, 0, 1),
        size=(height, width),
        boxes=torch.tensor(np.array(boxes), dtype=torch.float32),
        labels=torch.tensor([list(CATEGORIES).index(each.category_id) + 1 for each in shelf.instances]),
        grids=torch.from_numpy(np.array(grids)),
        frames=torch.tensor(frames, dtype=torch.float32),
        key=SampleKey(0, seed),
        image_id=seed,
        annotation_ids=tuple(range(len(boxes))),
    )


def draw_samples(*seeds: int) -> list[Sample]:
    return [draw_sample(seed) for seed in seeds]


def empty_sample(width: int = 64, height: int = 64) -> Sample:
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(0, 4)
    grids = torch.zeros(0, 112, 112, dtype=torch.uint8)
    no_labels = torch.zeros(0, dtype=torch.int64)
    return Sample(image, (height, width), nothing, no_labels, grids, nothing, key=SampleKey(1, 0))


@dataclass(frozen=True)
class FullMasks:
    """Masks over whole images, cut as torchvision cuts them."""

    masks: Sequence[Tensor]

    def cut(self, boxes: Tensor, image_of_each: Tensor, matched: Tensor, side: int) -> Tensor:
        targets = boxes.new_zeros(len(boxes), side, side)
        for image, its_masks in enumerate(self.masks):
            places = torch.where(image_of_each == image)[0]
            if len(places):
                targets[places] = project_masks_on_boxes(its_masks, boxes[places], matched[places], side)
        return targets


def torchvision_target(sample: Sample) -> dict[str, Tensor]:
    """Give what torchvision learns from for a drawn sample."""
    height, width = sample.size
    masks = np.zeros((0, height, width), np.uint8)
    if len(sample.boxes):
        shelf = draw_shelf(sample.key.sample_index, width=width, height=height, num_boards=1)
        masks = np.stack([instance.mask for instance in shelf.instances]).astype(np.uint8)
    return {"boxes": sample.boxes, "labels": sample.labels, "masks": torch.from_numpy(masks)}


def normal_images(samples: Sequence[Sample], shape: tuple[int, int]) -> Tensor:
    """Normalise and pad images that need no resizing."""
    images = torch.zeros(len(samples), 3, *shape)
    mean, std = (torch.tensor(values)[:, None, None] for values in (PREPROCESS.mean, PREPROCESS.std))
    for slot, sample in zip(images, samples, strict=True):
        slot[:, : sample.size[0], : sample.size[1]] = (sample.image.float() / 255 - mean) / std
    return images


@functools.cache
def _start(norm: str, heads: str, num_labels: int) -> Any:
    torch.manual_seed(0)
    network = _build("batch", heads, num_labels)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        network.backbone(normal_images(draw_samples(*range(100, 108)), (64, 64)))
    if norm == "frozen":
        seen, network = network.state_dict(), _build("frozen", heads, num_labels)
        network.load_state_dict({name: seen[name] for name in network.state_dict()})
        schedule = ScheduleConfig(learning_rate=0.001, max_steps=24, decay="constant", warmup_steps=8)
        learner = new_learner(replace(CONFIG, optimizer="adamw", schedule=schedule), network)
        for step in range(24):
            learner.step(draw_samples(100 + 2 * step, 101 + 2 * step), step, (64, 64))
        for parameter in network.parameters():
            parameter.grad = None
    return network


def start_network(norm: str = "frozen", heads: str = "v1", num_labels: int = NUM_LABELS) -> Any:
    """Build a torchvision network, always with the same weights; it has learnt a little where its norms are frozen."""
    return copy.deepcopy(_start(norm, heads, num_labels))


def _build(norm: Any, heads: Any, num_labels: int) -> Any:
    """Build a network with narrow heads: wide ones take most of a step on so small images."""
    anchors = ((8,), (16,), (32,), (64,), (96,))
    model = ModelConfig("resnet18", num_labels=num_labels, norm=norm, heads=heads, anchor_sizes_px=anchors)
    network = build_network(model, PREPROCESS, ThresholdConfig())
    if heads == "v1":
        network.roi_heads.box_head = TwoMLPHead(PYRAMID_CHANNELS * BOX_ROI_SIZE**2, 64)
        network.roi_heads.box_predictor = FastRCNNPredictor(64, num_labels)
        network.roi_heads.mask_head = MaskRCNNHeads(PYRAMID_CHANNELS, (32, 32), 1)
        network.roi_heads.mask_predictor = MaskRCNNPredictor(32, 32, num_labels)
    return network


def new_learner(config: TrainConfig = CONFIG, network: Any = None, **options: Any) -> Learner:
    network = start_network() if network is None else network
    return Learner(prepare_network(network, config), PREPROCESS, config, **options)


def padded_shape(samples: Sequence[Sample]) -> tuple[int, int]:
    height, width = (-(-max(sample.size[axis] for sample in samples) // 32) * 32 for axis in (0, 1))
    return height, width


def learn(learner: Learner, samples: Sequence[Sample], steps: range, **options: Any) -> list[StepResult]:
    return [learner.step(samples, step, padded_shape(samples), **options).read() for step in steps]


def weights_of(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def state_of(learner: Learner) -> list[Tensor]:
    """All that a step may change: weights, the optimizer's state and the moving average."""
    states = [value for state in learner.optimizer.state.values() for value in state.values()]
    average = [] if learner.average is None else [*learner.average.weights, learner.average.num_updates]
    return [tensor.detach().clone() for tensor in (*learner.network.parameters(), *states, *average)]


def are_equal(ones: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(ones) == len(others) and all(one.equal(other) for one, other in zip(ones, others, strict=True))


def farthest(ones: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Give the largest difference between two lists of tensors."""
    return max(float((one - other).abs().max()) for one, other in zip(ones, others, strict=True))


def targets_of(samples: Sequence[Sample]) -> Targets:
    return Targets.of(samples, torch.device("cpu"), CONFIG.seed)


def sums_of(
    network: Any, samples: Sequence[Sample], shape: tuple[int, int], targets: Targets | None = None, **options: Any
) -> LossSums:
    """Compute losses outside a learner; ``network`` is a prepared one, ``targets`` are the samples' own by default."""
    return compute_losses(network, normal_images(samples, shape), targets or targets_of(samples), **options)


def jittered_boxes(boxes: Tensor, size: tuple[int, int], seed: int, num_random: int = 40) -> Tensor:
    """Draw what a proposal network might find: boxes about as given, and boxes anywhere."""
    generator = torch.Generator().manual_seed(seed)
    extent = torch.tensor([size[1], size[0]] * 2, dtype=torch.float32)
    near = boxes.repeat(6, 1)
    near = near + torch.randn(near.shape, generator=generator) * 0.12 * (near[:, 2:] - near[:, :2]).repeat(1, 2)
    anywhere = torch.rand(num_random, 4, generator=generator) * extent
    drawn = torch.minimum(torch.cat([near, anywhere]).clamp(min=0), extent)
    low, high = torch.minimum(drawn[:, :2], drawn[:, 2:]), torch.maximum(drawn[:, :2], drawn[:, 2:])
    proposals = torch.cat([low, high], dim=1)
    return proposals[(high - low).amin(1) > 2]


def inject_proposals(network: Any, samples: Sequence[Sample], device: torch.device | None = None) -> None:
    """Let boxes drawn for each sample take the place of a prepared network's proposals, which differ by leaps."""
    drawn = {open_stream(CONFIG.seed, Purpose.ROIS, sample.key): _drawn_for(sample) for sample in samples}

    def propose(objectness: Any, deltas: Any, targets: Targets, shape: tuple[int, int]) -> Proposals:
        boxes = [drawn[stream] for stream in targets.streams[1].tolist()]
        padded = nn.utils.rnn.pad_sequence(boxes, batch_first=True)
        is_real = (padded[..., 2:] > padded[..., :2]).all(-1)
        return Proposals(padded.to(device), is_real.to(device), torch.tensor(True))

    network.propose = propose


def _drawn_for(sample: Sample) -> Tensor:
    return jittered_boxes(sample.boxes, sample.size, sample.key.sample_index)


class KeyedSampler:
    """Chooses in torchvision's own network what we choose."""

    def __init__(self, num: int, positive_fraction: float, purpose: Purpose, samples: Sequence[Sample]) -> None:
        self._num, self._max_positive = num, int(num * positive_fraction)
        self._purpose, self._samples = purpose, samples

    def __call__(self, matched_idxs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        marks: tuple[list[Tensor], list[Tensor]] = ([], [])
        for sample, matched in zip(self._samples, matched_idxs, strict=True):
            ids = torch.arange(len(matched))
            if self._purpose == Purpose.ROIS and len(sample.boxes):  # true boxes come last
                ids[-len(sample.boxes) :] = FIRST_TRUTH_ID + torch.arange(len(sample.boxes))
            stream = torch.tensor([open_stream(CONFIG.seed, self._purpose, sample.key)])
            chosen = choose(matched[None], draw_priorities(stream, ids), self._num, self._max_positive)
            is_negative = chosen.is_chosen & ~chosen.is_positive
            for its_marks, is_marked in zip(marks, (chosen.is_positive, is_negative), strict=True):
                mark = torch.zeros(len(matched), dtype=torch.uint8)
                mark[chosen.places[is_marked]] = 1
                its_marks.append(mark)
        return marks


def use_our_choices(network: Any, samples: Sequence[Sample], config: TrainConfig) -> None:
    """Let torchvision's own network choose as we do among anchors, and among boxes drawn for each sample."""
    drawn = [_drawn_for(sample) for sample in samples]
    network.rpn.filter_proposals = lambda *_: ([boxes.clone() for boxes in drawn], None)
    network.rpn.fg_bg_sampler = KeyedSampler(config.anchors_per_image, 0.5, Purpose.ANCHORS, samples)
    network.roi_heads.fg_bg_sampler = KeyedSampler(config.rois_per_image, 0.25, Purpose.ROIS, samples)
