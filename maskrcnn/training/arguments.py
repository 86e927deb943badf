"""What a user can say of a training. A preset's values stand in for the defaults; what is given goes before both."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from maskrcnn.config import Backbone, Device, Heads, ModelConfig, Precision, PreprocessConfig, ThresholdConfig, check
from maskrcnn.errors import InputError
from maskrcnn.training.augment import AugmentConfig
from maskrcnn.training.recipe import (
    PRESETS,
    Crowds,
    Negatives,
    OptimizerName,
    TrainConfig,
    TrainedNorm,
    warn_of_unusual,
)
from maskrcnn.training.schedule import Decay, ScheduleConfig

PresetName = Literal["none", "coco-1x", "coco-lsj", "finetune-small", "demo"]


@dataclass(frozen=True)
class TrainArguments:
    """Train Mask R-CNN on a COCO JSON, data-parallel on one machine or a cluster; leaves a model bundle.

    Run it again with --resume after a crash: it goes on where the last checkpoint stands.
    """

    images: str
    """The folder that the annotations' file names are relative to, on any URI."""
    annotations: str
    """What to learn: a COCO JSON, on any URI."""
    output: str
    """Where bundle, metrics and checkpoints go; a new one, or with --resume the one to go on with."""
    val_images: str | None = None
    """To validate with: the folder of --val-annotations' file names; default: --images."""
    val_annotations: str | None = None
    """To validate with: a COCO JSON with the same categories."""
    preset: PresetName = "none"
    """Values for a use: coco-1x, coco-lsj (long, large-scale jitter), finetune-small (hundreds of images), demo."""
    resume: bool = False
    """Go on with what --output holds, on any number of workers."""

    backbone: Backbone = "resnet50"
    """resnet50 for speed, resnet101 for accuracy, resnet18 and resnet34 for small machines."""
    heads: Heads = "v1"
    """torchvision's two recipes: v1 as in the paper, v2 with deeper heads and batch norms."""
    weights: str = "imagenet"
    """To start from: coco, imagenet, none, or the path or URI of a bundle or a weights file."""
    norm: TrainedNorm = "auto"
    """The backbone's batch norms: frozen, batch or sync (over all GPUs); auto: frozen, or batch with --weights none."""
    frozen_stages: int | None = None
    """Stages of the backbone that keep their weights, 0 to 5; default: 2, but 0 with --weights none."""
    min_size: int = 800
    """Images are resized so that their shorter side has this many px,"""
    max_size: int = 1333
    """... unless their longer side would have more than this."""
    decode_scale: int = 8
    """JPEGs far larger than that are decoded at down to 1/this of their size: 1, 2, 4 or 8."""
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Anchor sides of the five levels, px after resizing."""
    anchor_aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width of the anchors."""
    score_threshold: float = 0.5
    """Of the bundle: detections below it are dropped, in [0, 1]."""
    max_detections: int = 300
    """Of the bundle, in an image."""

    batch_size: int = 2
    """Images of a forward pass of one worker."""
    learning_rate: float = 0.005
    """For one worker; usually 0.001 to 0.01, and 0.001 to 0.002 for small sets."""
    scale_learning_rate: bool = True
    """Multiply the learning rate by the number of workers."""
    num_workers: str = "1"
    """N, or MIN,MAX to start with what there is and grow; one GPU each where there are GPUs. The global batch is that
    of MAX, whatever there is."""
    grad_accum_steps: int = 1
    """Forward passes of one worker for an update."""
    epochs: int = 12
    """Passes over the images."""
    max_steps: int | None = None
    """Updates, instead of --epochs."""
    optimizer: OptimizerName = "sgd"
    """sgd, or adamw for short trainings from scratch (with --learning-rate 0.0001 to 0.001)."""
    momentum: float = 0.9
    """Of sgd."""
    weight_decay: float = 1e-4
    """None on norms and biases."""
    decay: Decay = "multistep"
    """How the learning rate falls."""
    warmup_steps: int | None = None
    """Over which the learning rate rises; default: a twentieth of all, at most 1000."""
    max_grad_norm: float = 10.0
    """Longer gradients are shortened to this."""
    ema_decay: float | None = None
    """Validate and save a moving average of the weights; 0.999 is usual."""
    rois_per_image: int = 512
    """Proposals that the heads learn from."""
    proposals_per_image: int = 2000
    """The best ones, among which they are chosen."""
    anchors_per_image: int = 256
    """Anchors that the proposal network learns from."""
    crowds: Crowds = "ignore"
    """ignore: nothing is learnt from what lies in a crowd; drop: as if crowds were not there."""
    negatives: Negatives = "keep"
    """keep: images without instances teach background; drop: they are left out."""

    flip_probability: float = 0.5
    """Of a mirror image."""
    color_jitter: float = 0.1
    """Brightness, contrast and saturation vary by up to this share; 0 for none."""
    short_sides: tuple[int, ...] = ()
    """Multi-scale: the shorter side becomes one of these, px, instead of --min-size."""
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    """Large-scale jitter: scale by a factor between these, and cut to --crop-size."""
    crop_size: int = 0
    """Large-scale jitter: side of the square, px."""

    precision: Precision = "auto"
    """auto: bf16 on GPUs that have it, fp32 elsewhere."""
    device: Device = "auto"
    """auto: GPUs where the cluster has any."""
    compile: bool = False
    """Compile the backbone and the heads before the first step."""
    loader_workers: int | None = None
    """Processes a worker that load images; default: 4 on GPUs, 0 on CPUs."""
    cache_gib: float = 20.0
    """Of local disk, on each machine, for remote images; 0 for none."""
    seed: int = 0
    """Of order, augmentation and sampling."""
    validate_epochs: float = 1.0
    """Validate every so many epochs; 0: only at the end."""
    validate_minutes: float = 0.0
    """Validate every so many minutes too; 0: not."""
    save_minutes: float = 10.0
    """Save a checkpoint every so many minutes; 0: not."""
    save_epochs: float = 1.0
    """Save a checkpoint every so many epochs; 0: only at the end."""
    keep_checkpoints: int = 3
    """The newest ones, besides the best."""
    log_steps: int = 1
    """Write a line of metrics.jsonl every so many steps."""
    max_failures: int = 3
    """Times that lost workers are replaced, before the training gives up."""
    max_nonfinite_steps: int = 5
    """Steps that are skipped since a loss was not finite, before the training gives up."""

    def __post_init__(self) -> None:
        for name in ("images", "annotations", "output"):
            check(bool(getattr(self, name)), name, "nothing", "a path or URI")
        check(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        is_rate = math.isfinite(self.learning_rate) and self.learning_rate > 0
        check(is_rate, "learning_rate", self.learning_rate, "a finite number above 0")
        check(self.grad_accum_steps >= 1, "grad_accum_steps", self.grad_accum_steps, "1 or more")
        check(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        check(self.max_steps is None or self.max_steps >= 1, "max_steps", self.max_steps, "1 or more")
        sizes, ratios = self.anchor_sizes, self.anchor_aspect_ratios
        is_size_a_level = len(sizes) == 5 and min(sizes) >= 1
        check(is_size_a_level, "anchor_sizes", sizes, "five sizes of 1 px or more, one a level")
        are_ratios = bool(ratios) and all(math.isfinite(ratio) and ratio > 0 for ratio in ratios)
        check(are_ratios, "anchor_aspect_ratios", ratios, "finite numbers above 0")
        for name in ("validate_epochs", "validate_minutes", "save_minutes", "save_epochs", "cache_gib", "max_failures"):
            check(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "a finite number, 0 or more")
        for name in ("keep_checkpoints", "log_steps"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        workers = self.loader_workers
        check(workers is None or workers >= 0, "loader_workers", workers, "0 or more")
        if self.val_images and not self.val_annotations:
            raise InputError("--val-annotations", "must be given with --val-images")
        parse_workers(self.num_workers)
        _ = self.preprocess, self.thresholds  # refused here, rather than after a cluster was started

    @property
    def preprocess(self) -> PreprocessConfig:
        """How images become input, in training as later in labelling."""
        return PreprocessConfig(
            min_size_px=self.min_size, max_size_px=max(self.min_size, self.max_size), decode_scale=self.decode_scale
        )

    @property
    def thresholds(self) -> ThresholdConfig:
        """Of the bundle."""
        return ThresholdConfig(score_threshold=self.score_threshold, max_detections=self.max_detections)

    def model(self, num_categories: int) -> ModelConfig:
        """Give the network's shape."""
        norm = self.norm if self.norm != "auto" else ("batch" if self.weights == "none" else "frozen")
        return ModelConfig(
            backbone=self.backbone,
            heads=self.heads,
            num_labels=num_categories + 1,
            norm="frozen" if norm == "frozen" else "batch",
            anchor_sizes_px=tuple((size,) for size in self.anchor_sizes),
            anchor_aspect_ratios=self.anchor_aspect_ratios,
        )

    def train_config(self, num_images: int) -> TrainConfig:
        """Resolve what happens in the training of so many images; the workers are those of MAX."""
        warn_of_unusual(self.optimizer, self.learning_rate, self.batch_size)
        _, max_workers = parse_workers(self.num_workers)
        global_batch_size = self.batch_size * max_workers * self.grad_accum_steps
        steps_per_epoch = -(-num_images // global_batch_size)
        frozen_stages = self.frozen_stages if self.frozen_stages is not None else 0 if self.weights == "none" else 2
        return TrainConfig(
            schedule=ScheduleConfig(
                learning_rate=self.learning_rate * (max_workers if self.scale_learning_rate else 1),
                max_steps=self.max_steps or self.epochs * steps_per_epoch,
                warmup_steps=self.warmup_steps,
                decay=self.decay,
            ),
            augment=AugmentConfig(
                flip_probability=self.flip_probability,
                color_jitter=self.color_jitter,
                short_sides_px=self.short_sides,
                scale_jitter=self.scale_jitter,
                crop_size_px=self.crop_size,
            ),
            optimizer=self.optimizer,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            global_batch_size=global_batch_size,
            micro_batch_size=self.batch_size,
            max_grad_norm=self.max_grad_norm,
            rois_per_image=self.rois_per_image,
            proposals_per_image=max(self.proposals_per_image, self.rois_per_image),
            anchors_per_image=self.anchors_per_image,
            frozen_stages=frozen_stages,
            norms_are_synced=self.norm == "sync",
            ema_decay=self.ema_decay,
            crowds=self.crowds,
            negatives=self.negatives,
            precision=self.precision,
            compiles=self.compile,
            max_nonfinite_steps=self.max_nonfinite_steps,
            seed=self.seed,
        )


def with_preset(arguments: TrainArguments, name: str) -> TrainArguments:
    """Give the arguments with a preset's values, before anything else is set.

    Raises:
        InputError: when there is no such preset.
    """
    if name == "none":
        return arguments
    if name not in PRESETS:
        raise InputError("--preset", f"must be one of none, {', '.join(PRESETS)}, got {name}")
    values: dict[str, Any] = {"preset": name, **PRESETS[name]}
    return replace(arguments, **values)


def parse_workers(text: str) -> tuple[int, int]:
    """Read N or MIN,MAX.

    Raises:
        InputError: when it is something else.
    """
    match = re.fullmatch(r"(\d+)(?:,(\d+))?", text.strip())
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high:
        raise InputError("--num-workers", f"must be N or MIN,MAX with 1 <= MIN <= MAX, got {text}")
    return low, high


MAY_CHANGE_ON_RESUME = frozenset(
    {
        "resume", "num_workers", "device", "loader_workers", "cache_gib", "validate_epochs", "validate_minutes",
        "save_minutes", "save_epochs", "keep_checkpoints", "log_steps", "max_failures", "max_nonfinite_steps",
        "preset", "compile", "output",
    }
)  # fmt: skip
"""What does not change what is learnt; the number of workers, since the global batch stays that of the beginning."""


def arguments_to_json(arguments: TrainArguments) -> dict[str, Any]:
    """Give the arguments as plain JSON types."""
    values = {field.name: getattr(arguments, field.name) for field in fields(arguments)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def refuse_changes(arguments: TrainArguments, begun_with: dict[str, Any], output_uri: str) -> None:
    """Refuse to resume with other values than the training was begun with, where they change what is learnt.

    Raises:
        InputError: naming the first flag and both values.
    """
    for name, value in arguments_to_json(arguments).items():
        if name not in MAY_CHANGE_ON_RESUME and name in begun_with and begun_with[name] != value:
            rule = f"must be {begun_with[name]} as when the training was begun, got {value}"
            raise InputError("--" + name.replace("_", "-"), rule, output_uri, "give that, or a new --output")
