"""Compare images/s from JPEG bytes to run-length masks: ours in fp32 and bf16, and torchvision as people run it.

Every way gets the same photos, weights and thresholds, and gives the same kind of answer. Ours is what a worker of the
labelling job runs, files to rows; torchvision has the bytes in memory, pastes each mask into a whole frame, and
pycocotools encodes it. A random network fills the maximum of detections, so that their number
is known; 0 is a threshold that nothing passes. The ways take turns within a round; ratios are taken within a round, and
medians over the rounds. Arithmetic is what torch counts in the convolutions and matrix products of torchvision's
network; its share is of the best rate that a large product or convolution reaches here in that precision.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import torch
from machine import describe_device, reachable_flops, write_results
from PIL import Image
from random_network import write_bundle
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from torchvision.io import decode_image
from torchvision.models.detection.mask_rcnn import MaskRCNN

from maskrcnn import storage
from maskrcnn.config import BACKBONES, PreprocessConfig, ThresholdConfig
from maskrcnn.labelling.labeller import Labeller
from maskrcnn.labelling.results import ListedImage
from maskrcnn.model.bundle import load_network
from maskrcnn.model.precision import resolve_device
from maskrcnn.model.predictor import Predictor
from maskrcnn.synthetic.shelf import draw_shelf

WAYS = ("ours fp32", "ours bf16", "ours bf16 compiled", "torchvision fp32", "torchvision bf16 compiled")
REFERENCE = "torchvision fp32"
SIZES = {"1.5": (1080, 1440), "12": (3000, 4000)}
"""(height, width) by megapixels, px."""


WIDTHS = (10, 4, 5, 9, 7, 8, 10)


def draw_photos(num: int, size: tuple[int, int]) -> list[bytes]:
    """Draw shelves as JPEG files; large ones are enlarged, since it is their decoding that is measured."""
    bodies = []
    for seed in range(num):
        drawn = draw_shelf(seed, width=min(size[1], 1440), height=min(size[0], 1080), num_boards=5)
        shelf = Image.fromarray(drawn.image)
        file = io.BytesIO()
        shelf.resize((size[1], size[0])).save(file, "JPEG", quality=90)
        bodies.append(file.getvalue())
    return bodies


def write_files(folder: Path, bodies: list[bytes]) -> list[ListedImage]:
    """Write photos to disk, and list them."""
    folder.mkdir(exist_ok=True)
    files = []
    for number, body in enumerate(bodies):
        path = folder / f"{number:03d}.jpg"
        path.write_bytes(body)
        meta = storage.stat(str(path))
        files.append(ListedImage(meta.uri, meta.etag, meta.size))
    return files


def in_batches(bodies: list[bytes], batch_size: int) -> Iterator[list[bytes]]:
    """Cut a list."""
    for begin in range(0, len(bodies), batch_size):
        yield bodies[begin : begin + batch_size]


def as_torchvision(network: MaskRCNN, precision: str, batch_size: int) -> Callable[[list[bytes]], int]:
    """Give torchvision's way: its own network, paste_masks_in_image, pycocotools."""
    device = next(network.parameters()).device
    if precision == "bf16":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.backbone = torch.compile(network.backbone)

    def to_image(body: bytes) -> Tensor:
        return decode_image(torch.frombuffer(bytearray(body), dtype=torch.uint8)).to(device) / 255

    @torch.inference_mode()
    def predict(bodies: list[bytes]) -> int:
        num_instances = 0
        for chosen in in_batches(bodies, batch_size):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                results = network([to_image(body) for body in chosen])
            for found in results:
                frames = (found["masks"][:, 0] > 0.5).cpu().numpy().view(np.uint8)
                num_instances += len([pycocotools.mask.encode(np.asfortranarray(frame)) for frame in frames])
        return num_instances

    return predict


def as_ours(
    bundle_uri: str, thresholds: ThresholdConfig, way: str, batch_size: int, files: list[ListedImage]
) -> Callable[[list[bytes]], int]:
    """Give our way: what a worker of the labelling job does between reading files and writing rows."""
    _, precision, *compiled = way.split()
    predictor = Predictor.from_bundle(
        bundle_uri,
        precision=precision,  # type: ignore[arg-type]
        compiles=bool(compiled),
        thresholds=thresholds,
    )
    labeller = Labeller(
        predictor,
        batch_size=batch_size,
        num_decoders=len(os.sched_getaffinity(0)),
        with_masks=True,
        max_pixels=10**8,
    )

    def label(bodies: list[bytes]) -> int:
        results = labeller.label(files[: len(bodies)])
        if any(one.error_kind for one in results):
            raise SystemExit(f"an image was not labelled: {[one.error_message for one in results]}")
        return sum(one.num_instances for one in results)

    return label


class Case:
    """One number of detections, size of photo and size of batch."""

    def __init__(
        self, arguments: argparse.Namespace, bundle_uri: str, bodies: list[bytes], num: int, batch: int
    ) -> None:
        self.bodies, self.num_detections, self.batch_size = bodies, num, batch
        self._files = write_files(Path(bundle_uri).parent / f"photos-{len(bodies[0])}", bodies)
        self._arguments, self._bundle_uri = arguments, bundle_uri
        self._thresholds = ThresholdConfig(1.0 if num == 0 else 0.05, max_detections=max(num, 1))

    def _network(self) -> MaskRCNN:
        network = load_network(self._bundle_uri, resolve_device("auto"))
        network.roi_heads.score_thresh = self._thresholds.score_threshold
        network.roi_heads.detections_per_img = self._thresholds.max_detections
        return network

    def start(self, way: str) -> Callable[[list[bytes]], int]:
        """Load what a way needs."""
        if way.startswith("ours"):
            return as_ours(self._bundle_uri, self._thresholds, way, self.batch_size, self._files)
        return as_torchvision(self._network(), way.split()[1], self.batch_size)

    def flops(self) -> int:
        """Count the arithmetic of an image: two operations a multiply-add."""
        counter = FlopCounterMode(display=False)
        with counter:
            as_torchvision(self._network(), "fp32", 1)(self.bodies[:1])
        return counter.get_total_flops()

    def measure(self, *, is_compiled: bool) -> dict[str, Any]:
        """Let the ways take turns; give images/s of each round, and how many instances an image had."""
        ways = [way for way in self._arguments.ways if is_compiled or "compiled" not in way]
        running = {way: self.start(way) for way in ways}
        for predict in running.values():
            predict(self.bodies[: self.batch_size])
        rates: dict[str, list[float]] = {way: [] for way in running}
        instances = {}
        for number in range(self._arguments.rounds):
            names = list(running)[number % len(running) :] + list(running)[: number % len(running)]
            for way in names:
                begin = time.perf_counter()
                instances[way] = running[way](self.bodies) / len(self.bodies)
                rates[way].append(len(self.bodies) / (time.perf_counter() - begin))
        return {"images_per_s_of_rounds": rates, "instances_per_image": instances}


def cases(arguments: argparse.Namespace, bundle_uri: str) -> Iterator[tuple[str, Case]]:
    """Give every case that was asked for, with the megapixels of its photos; large photos with one number only."""
    for megapixels in arguments.megapixels:
        size = (320, 427) if arguments.small else SIZES[megapixels]
        bodies = draw_photos(arguments.images, size)
        numbers = arguments.detections if megapixels == arguments.megapixels[0] else [100]
        for num in numbers:
            for batch_size in arguments.batch_sizes if num == 100 else arguments.batch_sizes[:1]:
                yield megapixels, Case(arguments, bundle_uri, bodies, num, batch_size)


def print_row(way: str, cells: Sequence[object]) -> None:
    """Print a line of the table."""
    print(f"{way:<26} " + " ".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)), flush=True)


def report(megapixels: str, case: Case, peaks: dict[str, float], *, is_compiled: bool) -> list[dict[str, Any]]:
    """Measure a case, print its rows and give them."""
    measured, flops = case.measure(is_compiled=is_compiled), case.flops()
    rates = measured["images_per_s_of_rounds"]
    rows = []
    for way, values in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(values, rates.get(REFERENCE, values), strict=True)]
        images_per_s = statistics.median(values)
        row = {
            "way": way,
            "detections": case.num_detections,
            "megapixels": megapixels,
            "batch_size": case.batch_size,
            "images_per_s": images_per_s,
            "images_per_s_of_rounds": values,
            "times_torchvision_fp32": statistics.median(ratios),
            "instances_per_image": measured["instances_per_image"][way],
            "flops_per_image": flops,
            "share_of_peak": images_per_s * flops / peaks[way.split()[1]],
        }
        rows.append(row)
        cells = (
            case.num_detections,
            megapixels,
            case.batch_size,
            f"{images_per_s:.3f}",
            f"{row['times_torchvision_fp32']:.2f}",
            f"{row['share_of_peak']:.0%}",
            f"{row['instances_per_image']:.1f}",
        )
        print(
            f"{way:<26} " + " ".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)), flush=True
        )
    return rows


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="resnet18 at 320 px, two images, one round")
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet50")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--detections", nargs="+", type=int, default=[100, 0, 20, 300], help="of an image")
    parser.add_argument("--megapixels", nargs="+", choices=list(SIZES), default=list(SIZES), help="of the photos")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1])
    parser.add_argument("--images", type=int, default=2, help="photos a round")
    parser.add_argument("--rounds", type=int, default=5, help="of which medians are taken")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="torch's, on a CPU")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.backbone, arguments.rounds, arguments.megapixels = "resnet18", 1, ["1.5"]
        arguments.detections, arguments.ways = [20], [way for way in arguments.ways if "compiled" not in way]
    return arguments


def main() -> int:
    """Run the table."""
    arguments = parse()
    load_before = os.getloadavg()[0]
    torch.set_num_threads(arguments.threads)
    device = resolve_device("auto")
    peaks = {
        name: reachable_flops(device, dtype) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
    }
    print(", ".join(f"{name}: {peak / 1e9:,.0f} GFLOP/s at most" for name, peak in peaks.items()))
    columns = ("detections", "MP", "batch", "images/s", "times", "of peak", "instances")
    print_row("way", columns)
    with tempfile.TemporaryDirectory(prefix="predict-") as folder:
        [body] = draw_photos(1, SIZES["1.5"])
        sides = {"min_size_px": 320, "max_size_px": 533} if arguments.small else {}
        image = decode_image(torch.frombuffer(bytearray(body), dtype=torch.uint8))
        bundle_uri = write_bundle(
            Path(folder) / "bundle", arguments.backbone, PreprocessConfig(decode_scale=8, **sides), image
        )
        rows: list[dict[str, Any]] = []
        for megapixels, case in cases(arguments, bundle_uri):
            # Compiling takes a minute; what it gains does not depend on detections and photos.
            rows += report(megapixels, case, peaks, is_compiled=not rows)
            if arguments.output:  # after each case: a run that is cut short leaves what it measured
                settings = {name: getattr(arguments, name) for name in ("backbone", "images", "rounds", "threads")}
                figures = {"device": describe_device(device), **settings, "peak_flops_per_s": peaks, "rows": rows}
                write_results(arguments.output, "predict", figures, load_before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
