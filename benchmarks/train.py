"""Time training steps against torchvision's way of training, side by side: images/s, utilisation and peak memory.

torchvision's way is that of its reference scripts: full-size masks from every annotation, a batch as a tuple, the
model's own transform and losses, one optimizer, a read of the losses in every step. Both load the same images, flip
the same way, start from the same random weights and take turns, so that a machine that slows down slows both. The peak
is that of a process of its own on a CPU, and of the device's memory on a GPU. Data loading is part of every step, and
is also timed alone. Utilisation is the arithmetic of a step's convolutions and matrix products, as torch counts it,
forward and backward, over the step's time, against what a large matrix product or convolution reaches there.

On a GPU: resnet50, 800x1333, batches of 2 and 8, compiled and not. On a CPU a step of that takes most of a minute, so
the default there is resnet50 on 400x666.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import peak_rss_bytes, reachable_flops, write_results
from reference_training import FullMasks, reference_steps
from torch.utils.flop_counter import FlopCounterMode

from maskrcnn.coco.annotations import load_coco
from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.model.network import build_network
from maskrcnn.synthetic import write_shelves
from maskrcnn.training.augment import AugmentConfig
from maskrcnn.training.loader import load_shares
from maskrcnn.training.network import prepare_network
from maskrcnn.training.recipe import TrainConfig
from maskrcnn.training.sampler import build_order
from maskrcnn.training.samples import CocoSamples
from maskrcnn.training.schedule import ScheduleConfig
from maskrcnn.training.step import Learner
from maskrcnn.training.transforms import SampleKey

WAYS = ("ours fp32", "torchvision fp32", "ours bf16", "torchvision bf16", "compiled bf16")
LEARNING_RATE = 1e-4
"""Low: random weights must not run away while the clock does."""


class Setting:
    """The same images, network and batch for every way."""

    def __init__(self, arguments: argparse.Namespace, batch_size: int) -> None:
        self.arguments, self.batch_size = arguments, batch_size
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.coco = load_coco(str(arguments.annotations))
        self.images_uri = str(arguments.images)
        self.preprocess = PreprocessConfig(min_size_px=arguments.min_size, max_size_px=arguments.max_size)
        self.model = ModelConfig(arguments.backbone, num_labels=len(self.coco.categories) + 1)
        self.augment = AugmentConfig(flip_probability=0.5, color_jitter=0)

    def network(self) -> Any:
        """Build the network, always with the same weights."""
        torch.manual_seed(0)
        network = build_network(self.model, self.preprocess, ThresholdConfig())
        with torch.no_grad():  # frozen norms do not tame random weights: keep what they give small
            for name, parameter in network.named_parameters():
                if parameter.ndim == 4 and "backbone.body" in name:
                    parameter.mul_(0.5)
        return network.to(self.device)

    def samples(self) -> CocoSamples:
        """Give our samples."""
        return CocoSamples(self.coco, self.images_uri, self.preprocess, self.augment)

    def ours(self, precision: str, *, compiles: bool = False) -> Iterator[None]:
        """Train for ever; a step each time."""
        config = TrainConfig(
            schedule=ScheduleConfig(LEARNING_RATE, max_steps=10**6, decay="constant", warmup_steps=0),
            augment=self.augment,
            global_batch_size=self.batch_size,
            micro_batch_size=self.batch_size,
            precision=precision,  # type: ignore[arg-type]
            compiles=compiles,
        )
        samples = self.samples()
        order = build_order(self.coco.heights, self.coco.widths, np.arange(self.coco.num_images), config)
        learner = Learner(prepare_network(self.network(), config), self.preprocess, config)
        steps = range(config.schedule.max_steps)
        loader = load_shares(
            samples, order, steps, rank=0, world_size=1, num_workers=self.arguments.loader_workers,
            pins_memory=self.device.type == "cuda",
        )  # fmt: skip
        pending = None
        for step, batch in zip(steps, loader, strict=False):
            launched = learner.step(batch, step, samples.padded_shape(order.keys_of(step)))
            if pending is not None and not pending.read().is_finite:
                raise ValueError(f"step {step} is not finite")
            pending = launched
            yield

    def way(self, name: str) -> Iterator[None]:
        """Begin one of WAYS."""
        whose, precision = name.split()
        if whose != "torchvision":
            return self.ours(precision, compiles=whose == "compiled")
        network = self.network().train()
        optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=1e-4)
        return reference_steps(
            network, optimizer, FullMasks(self.coco, self.images_uri), batch_size=self.batch_size,
            num_workers=self.arguments.loader_workers, precision=precision,
        )  # fmt: skip


def time_steps(
    setting: Setting, ways: list[str], num_rounds: int, num_steps: int
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Give images/s of each round of each way, and the floating-point operations of a step; first steps warm up."""
    running = {name: setting.way(name) for name in ways}
    flops: dict[str, int] = {}
    for name, steps in running.items():
        next(steps)
        if not name.startswith("compiled"):  # what is compiled hides from the counter
            with FlopCounterMode(display=False) as counter:
                next(steps)
            flops[name] = counter.get_total_flops()
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(num_rounds):
        for name, steps in running.items():
            wait_for(setting.device)
            begin = time.perf_counter()
            for _ in range(num_steps):
                next(steps)
            wait_for(setting.device)
            rates[name].append(num_steps * setting.batch_size / (time.perf_counter() - begin))
    return rates, flops


def wait_for(device: torch.device) -> None:
    """Wait until a device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def loading_ms(setting: Setting) -> float:
    """Give the median time that one core takes to load and prepare an image of ours."""
    samples, milliseconds = setting.samples(), []
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loader's process
    for epoch, index in itertools.product(range(3), range(len(samples))):
        begin = time.process_time()
        samples[SampleKey(epoch, index)]
        milliseconds.append(1e3 * (time.process_time() - begin))
    torch.set_num_threads(num_threads)
    return statistics.median(milliseconds)


def peak_bytes(setting: Setting, name: str, num_steps: int = 2) -> int:
    """Give the most memory that a way holds, in this process, over some steps."""
    steps = setting.way(name)
    next(steps)
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(num_steps):
        next(steps)
    return torch.cuda.max_memory_allocated() if setting.device.type == "cuda" else peak_rss_bytes()


def measured_peak(setting: Setting, name: str) -> int:
    """Give a way's peak; on a CPU by running this script again, so that a process has nothing else in it."""
    if setting.device.type == "cuda":
        return peak_bytes(setting, name)
    images = ["--images", str(setting.images_uri), "--annotations", str(setting.arguments.annotations)]
    command = [sys.executable, __file__, *sys.argv[1:], *images, "--memory-of", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def parse() -> argparse.Namespace:
    """Read the command line; without images, shelves are drawn."""
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="resnet18 on 160 px, fp32 only: a few minutes")
    parser.add_argument("--images", type=Path, help="a folder of images; default: drawn shelves of 1080x1440")
    parser.add_argument("--annotations", type=Path, help="their COCO JSON")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--min-size", type=int, default=800 if on_gpu else 400)
    parser.add_argument("--max-size", type=int, default=1333 if on_gpu else 666)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[2, 8] if on_gpu else [2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10 if on_gpu else 1, help="of each way in a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch's, on a CPU")
    parser.add_argument("--loader-workers", type=int, default=12 if on_gpu else 0)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS if on_gpu else WAYS[:4]))
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.backbone, arguments.min_size, arguments.max_size = "resnet18", 160, 213
        arguments.rounds, arguments.steps, arguments.ways = min(arguments.rounds, 2), 1, list(WAYS[:2])
    return arguments


def measure_batch(setting: Setting, reachable: dict[str, float]) -> dict[str, Any]:
    """Print and give the rows of one batch size, and the ratios between ours and torchvision's."""
    arguments = setting.arguments
    rates, flops = time_steps(setting, arguments.ways, arguments.rounds, arguments.steps)
    rows = []
    print(f"batch {setting.batch_size:<12} {'images/s':>9} {'min..max':>16} {'utilisation':>12} {'peak MiB':>9}")
    for name in arguments.ways:
        values = rates[name]
        median = statistics.median(values)
        flops_per_s = flops[name] / setting.batch_size * median if name in flops else None
        utilisation = flops_per_s / reachable[name.split()[1]] if flops_per_s else None
        row = {
            "way": name,
            "images_per_s": median,
            "images_per_s_of_rounds": values,
            "flops_of_step": flops.get(name),
            "utilisation": utilisation,
            "peak_bytes": measured_peak(setting, name),
        }
        rows.append(row)
        span, share = f"{min(values):.3f}..{max(values):.3f}", f"{utilisation:.0%}" if utilisation else "-"
        print(f"{name:<18} {median:>9.3f} {span:>16} {share:>12} {row['peak_bytes'] / 2**20:>9.0f}", flush=True)
    ratios = {}
    for ours, theirs in itertools.permutations(arguments.ways, 2):
        if theirs.startswith("torchvision") and not ours.startswith("torchvision"):
            ratio = statistics.median(a / b for a, b in zip(rates[ours], rates[theirs], strict=True))
            ratios[f"{ours} / {theirs}"] = ratio
            print(f"{ours} / {theirs}: {ratio:.2f}, median over the rounds")
    return {"batch_size": setting.batch_size, "rows": rows, "ratios": ratios}


def measure(arguments: argparse.Namespace) -> int:
    """Print and write the tables."""
    load_before = os.getloadavg()[0]
    settings = [Setting(arguments, batch_size) for batch_size in arguments.batch_sizes]
    device, coco = settings[0].device, settings[0].coco
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    reachable = {name: reachable_flops(device, dtype) for name, dtype in dtypes.items()}
    figures = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {arguments.threads} threads",
        **{name: getattr(arguments, name) for name in ("backbone", "min_size", "max_size", "steps", "loader_workers")},
        "instances_per_image": coco.num_annotations / coco.num_images,
        "loading_ms_per_image": loading_ms(settings[0]),
        "reachable_flops_per_s": reachable,
    }
    print("{instances_per_image:.0f} instances an image; loading one: {loading_ms_per_image:.0f} ms".format(**figures))
    batches = [measure_batch(setting, reachable) for setting in settings]
    if arguments.output:
        write_results(arguments.output, "train", {**figures, "batches": batches}, load_before)
    return 0


def main() -> int:
    """Run the tables."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.images is None:
            # Some 150 instances an image: with more than 256, torchvision's way in bf16 ends with an error, since it
            # numbers them in bf16.
            boards, size = (2, (160, 213)) if arguments.small else (6, (1440, 1080))
            arguments.annotations = write_shelves(
                Path(folder), 4 if arguments.small else 16, seed=0, width=size[0], height=size[1], num_boards=boards
            )
            arguments.images = arguments.annotations.parent / "images"
        if arguments.memory_of:
            print(peak_bytes(Setting(arguments, arguments.batch_sizes[0]), arguments.memory_of))
            return 0
        return measure(arguments)


if __name__ == "__main__":
    sys.exit(main())
