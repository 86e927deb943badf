"""Time training steps against torchvision's way of training, side by side: images/s and peak memory.

torchvision's way is that of its reference scripts: full-size masks from every annotation, a batch as a tuple, the
model's own transform and losses, one optimizer, a read of the losses in every step. Both load the same images, flip
the same way, start from the same random weights and take turns, so that a machine that slows down slows both. The peak
is that of a process of its own on a CPU, and of the device's memory on a GPU. Data loading is part of every step.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import peak_rss_bytes, write_results
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maskrcnn.coco.annotations import CocoDataset, load_coco
from maskrcnn.coco.file_names import safe_join
from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.images import BadImage, decode
from maskrcnn.model.network import build_network
from maskrcnn.synthetic import write_shelves
from maskrcnn.training.loader import load_shares
from maskrcnn.training.network import prepare_network
from maskrcnn.training.recipe import TrainConfig
from maskrcnn.training.sampler import build_order
from maskrcnn.training.samples import CocoSamples
from maskrcnn.training.schedule import ScheduleConfig
from maskrcnn.training.step import Learner
from maskrcnn.training.transforms import AugmentConfig

WAYS = ("ours fp32", "torchvision fp32", "ours bf16", "torchvision bf16")
LEARNING_RATE = 1e-4
"""Low: random weights must not run away while the clock does."""


class FullMasks(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Images with a full-size mask for every instance, as torchvision's reference scripts make them."""

    def __init__(self, coco: CocoDataset, images_uri: str, indices: list[int]) -> None:
        self._coco, self._images_uri, self._indices = coco, images_uri, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, place: int) -> tuple[Tensor, dict[str, Tensor]]:
        coco, index = self._coco, self._indices[place]
        pixels = decode(Path(safe_join(self._images_uri, coco.file_names[index])).read_bytes())
        if isinstance(pixels, BadImage):
            raise ValueError(pixels.reason)
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float() / 255
        usable = [each for each in coco.annotations_of(index) if not coco.iscrowd[each]]
        masks = np.stack([coco_mask.decode(dict(coco.rle(each))) for each in usable])
        x, y, width, height = coco.bboxes[usable].T
        target = {
            "boxes": torch.tensor(np.stack([x, y, x + width, y + height], 1), dtype=torch.float32),
            "labels": torch.from_numpy(coco.categories.labels_of(coco.category_ids[usable])),
            "masks": torch.from_numpy(masks),
        }
        if place % 2:
            image = image.flip(-1)
            target["masks"] = target["masks"].flip(-1)
            target["boxes"][:, [0, 2]] = image.shape[-1] - target["boxes"][:, [2, 0]]
        return image, target


def as_tuples(batch: list[Any]) -> tuple[Any, ...]:
    """Collate as torchvision's reference scripts do."""
    return tuple(zip(*batch, strict=True))


class Setting:
    """The same images, network and batch for every way."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.coco = load_coco(str(arguments.annotations))
        self.images_uri = str(arguments.images)
        self.preprocess = PreprocessConfig(min_size_px=arguments.min_size, max_size_px=arguments.max_size)
        self.model = ModelConfig(arguments.backbone, num_labels=len(self.coco.categories) + 1)
        self.indices = list(range(self.coco.num_images))

    def network(self) -> Any:
        """Build the network, always with the same weights."""
        torch.manual_seed(0)
        network = build_network(self.model, self.preprocess, ThresholdConfig())
        with torch.no_grad():  # frozen norms do not tame random weights: keep what they give small
            for name, parameter in network.named_parameters():
                if parameter.ndim == 4 and "backbone.body" in name:
                    parameter.mul_(0.5)
        return network.to(self.device)

    def ours(self, precision: str) -> Iterator[None]:
        """Train for ever; a step each time."""
        config = TrainConfig(
            schedule=ScheduleConfig(LEARNING_RATE, max_steps=10**6, decay="constant", warmup_steps=0),
            augment=AugmentConfig(flip_probability=0.5, color_jitter=0),
            global_batch_size=self.arguments.batch_size,
            micro_batch_size=self.arguments.batch_size,
            precision=precision,  # type: ignore[arg-type]
        )
        samples = CocoSamples(self.coco, self.images_uri, self.preprocess, config.augment)
        order = build_order(self.coco.heights, self.coco.widths, np.array(self.indices), config)
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

    def torchvisions(self, precision: str) -> Iterator[None]:
        """Train for ever as torchvision's reference scripts do; a step each time."""
        network = self.network().train()
        optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=0.9, weight_decay=1e-4)
        dataset = FullMasks(self.coco, self.images_uri, self.indices)
        while True:
            loader = DataLoader(
                dataset, self.arguments.batch_size, shuffle=True, num_workers=self.arguments.loader_workers,
                collate_fn=as_tuples, drop_last=True,
            )  # fmt: skip
            for images, targets in loader:
                images = [image.to(self.device) for image in images]
                targets = [{name: tensor.to(self.device) for name, tensor in target.items()} for target in targets]
                with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
                    losses = network(images, targets)
                    loss = sum(losses.values())
                if not math.isfinite(loss.item()):
                    raise ValueError("a loss is not finite")
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                yield

    def way(self, name: str) -> Iterator[None]:
        """Begin one of WAYS."""
        whose, precision = name.split()
        return self.ours(precision) if whose == "ours" else self.torchvisions(precision)


def time_steps(setting: Setting, ways: list[str], num_rounds: int, num_steps: int) -> dict[str, list[float]]:
    """Give images/s of each round of each way; the first steps of each only warm up."""
    running = {name: setting.way(name) for name in ways}
    for steps in running.values():
        next(steps)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(num_rounds):
        for name, steps in running.items():
            wait_for(setting.device)
            begin = time.perf_counter()
            for _ in range(num_steps):
                next(steps)
            wait_for(setting.device)
            rates[name].append(num_steps * setting.arguments.batch_size / (time.perf_counter() - begin))
    return rates


def wait_for(device: torch.device) -> None:
    """Wait until a device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak_bytes(setting: Setting, name: str, num_steps: int) -> int:
    """Give the most memory that a way holds, in this process, over some steps."""
    steps = setting.way(name)
    next(steps)
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(num_steps):
        next(steps)
    return torch.cuda.max_memory_allocated() if setting.device.type == "cuda" else peak_rss_bytes()


def peak_in_own_process(name: str) -> int:
    """Run this script again for the memory of one way."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def parse() -> argparse.Namespace:
    """Read the command line; without images, shelves are drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="resnet18 on 160 px, fp32 only: a few minutes")
    parser.add_argument("--images", type=Path, help="a folder of images; default: drawn shelves of 1080x1440")
    parser.add_argument("--annotations", type=Path, help="their COCO JSON")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--min-size", type=int, default=800)
    parser.add_argument("--max-size", type=int, default=1333)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="of each way in a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="torch's, on a CPU")
    parser.add_argument("--loader-workers", type=int, default=0)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.backbone, arguments.min_size, arguments.max_size = "resnet18", 160, 213
        arguments.rounds, arguments.steps, arguments.ways = min(arguments.rounds, 2), 1, list(WAYS[:2])
    return arguments


def measure(arguments: argparse.Namespace, measure_peak: Callable[[Setting, str], int]) -> int:
    """Print and write the table."""
    load_before = os.getloadavg()[0]
    setting = Setting(arguments)
    rates = time_steps(setting, arguments.ways, arguments.rounds, arguments.steps)
    rows = []
    print(f"{'way':<18} {'images/s':>9} {'min..max':>16} {'peak MiB':>9}")
    for name in arguments.ways:
        values = rates[name]
        row = {
            "way": name,
            "images_per_s": statistics.median(values),
            "images_per_s_of_rounds": values,
            "peak_bytes": measure_peak(setting, name),
        }
        rows.append(row)
        span = f"{min(values):.3f}..{max(values):.3f}"
        print(f"{name:<18} {row['images_per_s']:>9.3f} {span:>16} {row['peak_bytes'] / 2**20:>9.0f}", flush=True)
    ratios = {}
    for precision in ("fp32", "bf16"):
        pair = [rates.get(f"{whose} {precision}") for whose in ("ours", "torchvision")]
        if pair[0] and pair[1]:
            ratios[precision] = statistics.median(a / b for a, b in zip(pair[0], pair[1], strict=True))
            print(f"ours / torchvision in {precision}: {ratios[precision]:.2f}, median over the rounds")
    if arguments.output:
        shape = {
            name: str(getattr(arguments, name)) for name in ("backbone", "min_size", "max_size", "batch_size", "steps")
        }
        device = torch.cuda.get_device_name() if setting.device.type == "cuda" else f"CPU, {arguments.threads} threads"
        instances = setting.coco.num_annotations / setting.coco.num_images
        figures = {"device": device, **shape, "instances_per_image": instances, "rows": rows, "ratios": ratios}
        write_results(arguments.output, "train", figures, load_before)
    return 0


def main() -> int:
    """Run the table."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.images is None:
            boards, size = (2, (160, 213)) if arguments.small else (8, (1440, 1080))
            arguments.annotations = write_shelves(
                Path(folder), 4 if arguments.small else 8, seed=0, width=size[0], height=size[1], num_boards=boards
            )
            arguments.images = arguments.annotations.parent / "images"
        if arguments.memory_of:
            print(peak_bytes(Setting(arguments), arguments.memory_of, 2))
            return 0
        if torch.cuda.is_available():
            return measure(arguments, lambda setting, name: peak_bytes(setting, name, 2))
        return measure(arguments, lambda _, name: peak_in_own_process(name))


if __name__ == "__main__":
    sys.exit(main())
