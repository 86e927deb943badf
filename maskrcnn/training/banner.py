"""What a training says before it starts: batch arithmetic, schedule, what was loaded, what is learnt from."""

from __future__ import annotations

from maskrcnn.training.arguments import TrainArguments
from maskrcnn.training.counts import DatasetCounts
from maskrcnn.training.group import WorkerGroup
from maskrcnn.training.network import describe_frozen
from maskrcnn.training.recipe import TrainConfig
from maskrcnn.training.schedule import ScheduleConfig

MAX_NAMED_CATEGORIES = 12


def describe_training(
    arguments: TrainArguments,
    config: TrainConfig,
    group: WorkerGroup,
    counts: DatasetCounts,
    *,
    num_learnt: int,
    loaded: str,
) -> str:
    """Say what will happen, in a few lines."""
    sizes = arguments.preprocess
    lines = [
        f"network    {arguments.backbone}, heads {arguments.heads}, {sizes.min_size_px} to {sizes.max_size_px} px, "
        f"precision {_describe_precision(config, group)}{', compiled' if config.compiles else ''}",
        f"loaded     {loaded}",
        f"frozen     {describe_frozen(config.frozen_stages)}; norms {describe_norms(arguments, config)}",
        f"images     {_describe_images(counts, num_learnt, config)}",
        f"instances  {_describe_instances(counts)}",
        *(
            f"left out   {number:,} with {reason}, the first {counts.first_left_out[reason]}"
            for reason, number in counts.left_out.items()
        ),
        f"batch      {describe_batch(config, group)}",
        f"rate       {describe_rate(arguments, config)}",
        f"schedule   {_describe_schedule(config.schedule, config.optimizer, num_learnt, config.global_batch_size)}",
        f"output     {arguments.output}",
    ]
    return "\n".join(lines)


def describe_batch(config: TrainConfig, group: WorkerGroup) -> str:
    """Write the batch arithmetic: workers x micro-batch x accumulation = global batch."""
    workers, micro, whole = group.max_workers, config.micro_batch_size, config.global_batch_size
    device = "GPU" if group.num_gpus else f"{group.num_cpus}-thread CPU"
    accumulation = -(-whole // (workers * micro))
    is_even = workers * micro * accumulation == whole
    sum_text = f"{workers} {device} worker(s) x {micro} x {accumulation} accumulated {'=' if is_even else '>='} {whole}"
    text = f"{sum_text} images an update"
    if group.min_workers < workers:
        text += f", also while there are only {group.min_workers} workers"
    return text


def describe_rate(arguments: TrainArguments, config: TrainConfig) -> str:
    """Write the learning rate's arithmetic."""
    rate, given = config.schedule.learning_rate, arguments.learning_rate
    if not arguments.scale_learning_rate:
        return f"{rate:g}, not scaled by the workers"
    return f"{given:g} x {rate / given:g} worker(s) = {rate:g}"


def describe_norms(arguments: TrainArguments, config: TrainConfig) -> str:
    """Say which norms are trained."""
    return "synced over the workers" if config.norms_are_synced else arguments.model(1).norm


def _describe_precision(config: TrainConfig, group: WorkerGroup) -> str:
    if config.precision != "auto":
        return config.precision
    return "bf16 if the GPU has it" if group.num_gpus else "fp32"


def _describe_images(counts: DatasetCounts, num_learnt: int, config: TrainConfig) -> str:
    negatives = "as background" if config.negatives == "keep" else "left out"
    text = f"{num_learnt:,} to learn from; {counts.num_negatives:,} without instances ({negatives})"
    if counts.num_crowds:
        crowds = "ignored areas" if config.crowds == "ignore" else "left out"
        text += f", {counts.num_crowds:,} crowds ({crowds})"
    return text


def _describe_instances(counts: DatasetCounts) -> str:
    ranked = sorted(counts.instances_by_category.items(), key=lambda item: -item[1])
    named = ", ".join(f"{name} {number:,}" for name, number in ranked[:MAX_NAMED_CATEGORIES])
    rest = ranked[MAX_NAMED_CATEGORIES:]
    if rest:
        named += f", {len(rest)} more categories with {sum(number for _, number in rest):,}"
    return f"{sum(counts.instances_by_category.values()):,}: {named}"


def _describe_schedule(schedule: ScheduleConfig, optimizer: str, num_images: int, global_batch_size: int) -> str:
    steps_per_epoch = -(-num_images // global_batch_size)
    epochs = schedule.max_steps / steps_per_epoch
    drops = ""
    if schedule.decay == "multistep":
        steps = ", ".join(f"{round(share * schedule.max_steps):,}" for share in schedule.decay_at)
        drops = f", x {schedule.decay_factor:g} at {steps}"
    return (
        f"{schedule.max_steps:,} steps ({epochs:.1f} epochs of {steps_per_epoch:,}), {optimizer}, "
        f"warm-up {schedule.num_warmup_steps:,}, {schedule.decay}{drops}"
    )
