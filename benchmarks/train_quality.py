"""Train a small network from scratch our way, in fp32 and bf16, and torchvision's way, and compare segm AP over seeds.

Every way has the same drawn shelves, first weights, optimizer, learning rates, numbers of RoIs and number of steps, and
is scored by the same code on the same unseen shelves. A seed sets the weights and what is chosen. What is asked for:
ours within the spread of the seeds. What ours learnt in fp32 is then predicted on many more shelves, in fp32 and in
bf16: the AP should be the same within 0.002.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import write_results
from reference_training import FullMasks, reference_steps

from maskrcnn.coco.annotations import load_coco
from maskrcnn.coco.evaluate import evaluate
from maskrcnn.config import ModelConfig, Precision, PreprocessConfig, ThresholdConfig
from maskrcnn.model.bundle import Category
from maskrcnn.model.coco_results import predict_dataset
from maskrcnn.model.network import build_network
from maskrcnn.model.predictor import Predictor
from maskrcnn.synthetic import write_shelves
from maskrcnn.training.augment import AugmentConfig
from maskrcnn.training.loader import load_shares
from maskrcnn.training.network import prepare_network
from maskrcnn.training.optimizer import build_optimizer
from maskrcnn.training.recipe import TrainConfig
from maskrcnn.training.sampler import build_order
from maskrcnn.training.samples import CocoSamples
from maskrcnn.training.schedule import ScheduleConfig, learning_rate_at
from maskrcnn.training.step import Learner

WAYS = ("ours fp32", "ours bf16", "torchvision fp32")
MAX_DETECTIONS = 20
ANCHOR_SIZES = ((12,), (20,), (30,), (48,), (80,))


class Setting:
    """What every way and seed has in common."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        side, self.num_steps = arguments.size, arguments.steps
        nums = {"train": arguments.num_images, "unseen": arguments.num_unseen, "many": arguments.num_many}
        self.paths = {
            name: write_shelves(folder / name, num, seed=seed, width=side, height=side, num_boards=1)
            for seed, (name, num) in enumerate(nums.items())
        }
        self.train, self.unseen, self.many = (load_coco(str(path)) for path in self.paths.values())
        self.preprocess = PreprocessConfig(side, side)
        self.model = ModelConfig(
            "resnet18", num_labels=len(self.train.categories) + 1, norm="batch", anchor_sizes_px=ANCHOR_SIZES,
            anchor_aspect_ratios=(1.0, 1.7, 3.0), max_proposals=250,
        )  # fmt: skip

    def config(self, precision: str, seed: int) -> TrainConfig:
        """Give the training, like the preset of the demo."""
        return TrainConfig(
            schedule=ScheduleConfig(9e-4, max_steps=self.num_steps, decay="cosine", warmup_steps=self.num_steps // 20),
            augment=AugmentConfig(flip_probability=0.5, color_jitter=0),
            optimizer="adamw", rois_per_image=32, anchors_per_image=64, proposals_per_image=250,
            precision=precision, seed=seed,  # type: ignore[arg-type]
        )  # fmt: skip

    def images_uri(self, name: str) -> str:
        """Give the folder of a set."""
        return str(self.paths[name].parent / "images")

    def network(self, seed: int) -> Any:
        """Build the network, for every way with the same weights."""
        torch.manual_seed(seed)
        return build_network(self.model, self.preprocess, ThresholdConfig())


def train_ours(setting: Setting, network: Any, config: TrainConfig) -> None:
    """Train our way."""
    coco = setting.train
    samples = CocoSamples(coco, setting.images_uri("train"), setting.preprocess, config.augment, seed=config.seed)
    order = build_order(coco.heights, coco.widths, np.arange(coco.num_images), config)
    learner = Learner(prepare_network(network, config), setting.preprocess, config)
    loader = load_shares(
        samples, order, range(setting.num_steps), rank=0, world_size=1, num_workers=0, pins_memory=False
    )
    for step, batch in enumerate(loader):
        learner.step(batch, step, samples.padded_shape(order.keys_of(step))).read()


def train_torchvisions(setting: Setting, network: Any, config: TrainConfig) -> None:
    """Train torchvision's way, with the same optimizer and numbers."""
    network.train()
    network.rpn.fg_bg_sampler.batch_size_per_image = config.anchors_per_image
    network.rpn._post_nms_top_n = {**network.rpn._post_nms_top_n, "training": config.proposals_per_image}
    network.roi_heads.fg_bg_sampler.batch_size_per_image = config.rois_per_image
    optimizer = build_optimizer(network, config)
    dataset = FullMasks(setting.train, setting.images_uri("train"))
    steps = reference_steps(
        network, optimizer, dataset, batch_size=config.global_batch_size, num_workers=0, precision="fp32"
    )
    for step in range(setting.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, config.schedule)
        next(steps)


def score(setting: Setting, network: Any, name: str, precision: Precision) -> float:
    """Give segm AP on the unseen shelves, or on many."""
    categories = setting.train.categories
    labelled = zip(categories.ids, categories.names, strict=True)
    table = tuple(Category(category_id, kind, label) for label, (category_id, kind) in enumerate(labelled, start=1))
    thresholds = ThresholdConfig(0.05, max_detections=MAX_DETECTIONS)
    predictor = Predictor(network.eval(), setting.preprocess, thresholds, precision=precision, categories=table)
    dataset = getattr(setting, name)
    results = predict_dataset(predictor, dataset, setting.images_uri(name))
    return float(evaluate(dataset, results)["segm"]["AP"])


def run(setting: Setting, num_seeds: int) -> tuple[dict[str, dict[str, list[float]]], dict[str, list[float]]]:
    """Train and score every way with every seed, in turn; and give the AP on many shelves by precision."""
    found: dict[str, dict[str, list[float]]] = {name: {"AP": [], "seconds": []} for name in WAYS}
    by_precision: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for seed in range(num_seeds):
        for name in WAYS:
            whose, precision = name.split()
            network, config = setting.network(seed), setting.config(precision, seed)
            begin = time.perf_counter()
            (train_ours if whose == "ours" else train_torchvisions)(setting, network, config)
            found[name]["seconds"].append(time.perf_counter() - begin)
            found[name]["AP"].append(score(setting, network, "unseen", "fp32"))
            print(f"seed {seed}: {name:<17} AP {found[name]['AP'][-1]:.3f}", flush=True)
            if name == WAYS[0]:
                for kind, values in by_precision.items():
                    values.append(score(setting, network, "many", kind))  # type: ignore[arg-type]
                    print(f"seed {seed}: predicted in {kind}: AP {values[-1]:.4f}", flush=True)
    return found, by_precision


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a few steps of one seed: does it run?")
    parser.add_argument("--size", type=int, default=96, help="sides of the images, px")
    parser.add_argument("--num-images", type=int, default=64)
    parser.add_argument("--num-unseen", type=int, default=100, help="images that every way is scored on")
    parser.add_argument("--num-many", type=int, default=1000, help="images that are predicted in fp32 and in bf16")
    parser.add_argument("--steps", type=int, default=100, help="of two images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch's")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.steps, arguments.seeds, arguments.num_images = 4, 1, 4
        arguments.num_unseen = arguments.num_many = 8
    return arguments


def main() -> int:
    """Run the comparison."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(Path(folder), arguments)
        found, by_precision = run(setting, arguments.seeds)
    print(f"{'way':<18} {'mean AP':>8} {'min..max':>14} {'s a training':>13}")
    for name, figures in found.items():
        values, seconds = figures["AP"], statistics.median(figures["seconds"])
        span = f"{min(values):.3f}..{max(values):.3f}"
        print(f"{name:<18} {statistics.mean(values):>8.3f} {span:>14} {seconds:>13.0f}")
    worst = max(abs(fp32 - bf16) for fp32, bf16 in zip(*by_precision.values(), strict=True))
    print(f"predicted in bf16, AP differs by at most {worst:.4f}")
    if arguments.output:
        names = ("size", "num_images", "num_unseen", "num_many", "steps", "seeds", "threads")
        figures = {"ways": found, "AP_by_precision": by_precision}
        shape = {name: getattr(arguments, name) for name in names}
        write_results(arguments.output, "train_quality", {**shape, **figures}, load_before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
