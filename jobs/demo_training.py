"""The demo's training: a small network from scratch on drawn shelves, in one process, and its score on unseen ones."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from maskrcnn.coco.annotations import load_coco, parse_coco
from maskrcnn.coco.evaluate import Metrics, evaluate
from maskrcnn.config import ModelConfig, Precision, PreprocessConfig, ThresholdConfig
from maskrcnn.model.bundle import Category, save_bundle
from maskrcnn.model.coco_results import predict_dataset
from maskrcnn.model.network import build_network
from maskrcnn.model.precision import resolve_device
from maskrcnn.model.predictor import Predictor
from maskrcnn.progress import clock
from maskrcnn.training.samples import CocoSamples, batch_keys, collate
from maskrcnn.training.schedule import ScheduleConfig
from maskrcnn.training.step import StepResult, TrainConfig, build_optimizer, prepare_network, train_step

MODEL = ModelConfig(
    backbone="resnet18",
    norm="batch",  # frozen ones are for weights that were trained before
    anchor_sizes_px=((20,), (32,), (48,), (80,), (128,)),  # as small, and as tall, as products at 160 px
    anchor_aspect_ratios=(1.0, 1.7, 3.0),
)
PREPROCESS = PreprocessConfig(min_size_px=160, max_size_px=160)
EVALUATED = ThresholdConfig(score_threshold=0.05, max_detections=50)
"""AP weighs every score, so that few detections are cut off."""


def build_train_config(seed: int, num_steps: int, precision: Precision) -> TrainConfig:
    """Give the recipe: many updates on few images and few RoIs, which from scratch teach more in the same time."""
    return TrainConfig(
        schedule=ScheduleConfig(learning_rate=9e-4, max_steps=num_steps, warmup_steps=num_steps // 10, decay="cosine"),
        optimizer="adamw",
        batch_size=2,
        rois_per_image=32,
        anchors_per_image=64,
        precision=precision,
        seed=seed,
    )


def fastest_precision() -> Precision:
    """Try both on a small convolution: bf16 is faster on some processors, and much slower on others."""
    if torch.cuda.is_available():
        return "auto"
    layer, images = nn.Conv2d(256, 256, 3, padding=1), torch.rand(16, 256, 14, 14)
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    seconds: dict[Precision, float] = {}
    for precision in precisions * 2:  # the first round only warms up
        begin = time.perf_counter()
        for _ in range(3):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = layer(images).sum()
            loss.backward()
        seconds[precision] = time.perf_counter() - begin
    return min(precisions, key=seconds.__getitem__)


def train(annotations_path: Path, bundle_path: Path, config: TrainConfig) -> StepResult:
    """Train a network from scratch and save it as a bundle; give what the last step did."""
    coco = load_coco(str(annotations_path))
    samples = CocoSamples(coco, str(annotations_path.parent / "images"), config.augment, seed=config.seed)
    names = zip(coco.categories.ids, coco.categories.names, strict=True)
    categories = [Category(id, name, label) for label, (id, name) in enumerate(names, start=1)]
    model = replace(MODEL, num_labels=len(categories) + 1)
    torch.manual_seed(config.seed)
    network = build_network(model, PREPROCESS, ThresholdConfig()).to(resolve_device("auto"))
    prepared = prepare_network(network, config)
    optimizer = build_optimizer(prepared, config)
    progress = TrainProgress(config)
    for step in range(config.schedule.max_steps):
        keys = batch_keys(step * config.batch_size, config.batch_size, seed=config.seed, num_samples=len(samples))
        result = train_step(prepared, optimizer, [collate([samples[key] for key in keys])], step, config)
        progress.update(step + 1, result)
    save_bundle(
        str(bundle_path),
        network,
        model=model,
        preprocess=PREPROCESS,
        thresholds=ThresholdConfig(),
        categories=categories,
        provenance={"training_set": str(annotations_path), "step": config.schedule.max_steps, "losses": result.losses},
    )
    return result


class TrainProgress:
    """Shows step, loss, speed and time left: a line that moves in a terminal, ten lines elsewhere."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self._begin = time.monotonic()
        self._loss = 0.0

    def update(self, num_steps: int, result: StepResult) -> None:
        """Show the state after a step."""
        max_steps = self._config.schedule.max_steps
        # Smoothed, since two images are a small sample.
        self._loss = result.loss if num_steps == 1 else 0.9 * self._loss + 0.1 * result.loss
        seconds_per_step = (time.monotonic() - self._begin) / num_steps
        left = clock(seconds_per_step * (max_steps - num_steps))
        line = (
            f"training {'━' * round(28 * num_steps / max_steps):<28} step {num_steps}/{max_steps}  "
            f"loss {self._loss:.2f}  {result.num_images / seconds_per_step:.1f} images/s  ETA {left}"
        )
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns - 1
            end = "\n" if num_steps == max_steps else ""
            print(f"\r{line[:width]:<{width}}", end=end, flush=True)
        elif num_steps % max(1, max_steps // 10) == 0 or num_steps == max_steps:
            print(line, flush=True)


def score(annotations_path: Path, bundle_path: Path, num_images: int, precision: Precision) -> Metrics:
    """Compute AP on the first images of a COCO file."""
    document = json.loads(annotations_path.read_bytes())
    document["images"] = document["images"][:num_images]
    chosen = {image["id"] for image in document["images"]}
    document["annotations"] = [each for each in document["annotations"] if each["image_id"] in chosen]
    dataset = parse_coco(document, str(annotations_path))
    predictor = Predictor.from_bundle(str(bundle_path), precision=precision, thresholds=EVALUATED)
    return evaluate(dataset, predict_dataset(predictor, dataset, str(annotations_path.parent / "images")))
