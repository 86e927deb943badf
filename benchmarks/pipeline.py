"""Compare images/s of the labelling job through Ray, of a bare `Predictor` loop, and of plain torchvision.

Encoded JPEGs in, detections with RLE masks out, for all three: the same files, weights, thresholds and torch threads.
torchvision pastes each mask into a whole frame, and pycocotools encodes it. The three take turns, and medians of the
rounds are given, in wall time and in processor time.

The job's rate is one actor's in steady state: Ray's start, the loading of the model and the first part are left out. It
is counted from the first part's last row to the last row of all, by the time that the table itself holds for each image
(`labelled_at`): reading, decoding, keys and puts in between, and everything that Ray does, are in it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import torch
from machine import cpu_seconds, process_tree, write_results
from random_network import write_bundle
from torchvision.io import decode_image
from torchvision.models.detection.mask_rcnn import MaskRCNN

from maskrcnn.config import BACKBONES, LabelConfig, PreprocessConfig
from maskrcnn.model.bundle import load_network
from maskrcnn.model.predictor import Predictor
from maskrcnn.synthetic import write_shelves

TARGET_SHARE = 0.95
SAMPLE_EVERY_S = 0.5


@torch.inference_mode()
def plain_torchvision(network: MaskRCNN, bodies: list[bytes]) -> int:
    """Predict as torchvision does; its postprocessing is `paste_masks_in_image`. Gives the number of instances."""
    num_instances = 0
    for body in bodies:
        [found] = network([decode_image(torch.frombuffer(bytearray(body), dtype=torch.uint8)) / 255])
        frames = (found["masks"][:, 0] > 0.5).numpy().view(np.uint8)
        num_instances += len([pycocotools.mask.encode(np.asfortranarray(frame)) for frame in frames])
    return num_instances


def bare_predictor(predictor: Predictor, bodies: list[bytes], batch_size: int) -> int:
    """Predict with the package's own class, nothing around it. Gives the number of instances."""
    batches = (bodies[start : start + batch_size] for start in range(0, len(bodies), batch_size))
    return sum(len(one) for batch in batches for one in predictor(batch))


def rate_of(loop: Callable[[], int], num_images: int) -> dict[str, float]:
    """Time a loop in this process."""
    begin_cpu, begin = time.process_time(), time.perf_counter()
    num_instances = loop()
    seconds = time.perf_counter() - begin
    return {
        "images_per_s": num_images / seconds,
        "cpu_s_per_image": (time.process_time() - begin_cpu) / num_images,
        "instances_per_image": num_instances / num_images,
    }


class CpuWatch:
    """Notes the processor time of all that this process started, while a job runs in it."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._seconds: list[float] = []
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> CpuWatch:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watcher.join()

    def between(self, begin: float, end: float) -> float:
        """Give the processor time between two moments (Unix time)."""
        at_begin, at_end = np.interp([begin, end], self._times, self._seconds)
        return float(at_end - at_begin)

    def _watch(self) -> None:
        last: dict[int, float] = {}
        while not self._stop.wait(SAMPLE_EVERY_S):
            # A process that has ended keeps what it used. This one's own time is the driver's, and the watcher's.
            last |= {pid: used for pid in process_tree(os.getpid()) if (used := cpu_seconds(pid))}
            self._times.append(time.time())
            self._seconds.append(sum(last.values()))


def rate_of_job(bundle_uri: str, images_path: Path, rows_per_part: int, batch_size: int) -> dict[str, float]:
    """Run the job with one actor, and give its rate after the first part."""
    from maskrcnn.labelling.job import label_images
    from maskrcnn.labelling.table import read_predictions

    with tempfile.TemporaryDirectory(prefix="predict-") as output, CpuWatch() as watch:
        report = label_images(
            LabelConfig(
                bundle_uri=bundle_uri,
                images_uri=str(images_path),
                output_uri=output,
                batch_size=batch_size,
                num_actors=(1, 1),
                rows_per_part=rows_per_part,
                device="cpu",
            )
        )
        if not report.is_reconciled or report.record["images"]["failed"]:
            raise SystemExit(f"the job did not label everything: {report.record['images']}")
        rows = read_predictions(output, columns=["labelled_at", "num_instances"])
    stamps = sorted(one.timestamp() for one in rows["labelled_at"].to_pylist())
    begin, end = stamps[rows_per_part - 1], stamps[-1]
    num_counted = len(stamps) - rows_per_part
    return {
        "images_per_s": num_counted / (end - begin),
        "cpu_s_per_image": watch.between(begin, end) / num_counted,
        "instances_per_image": sum(rows["num_instances"].to_pylist()) / len(rows),
    }


def measure(arguments: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Let the three take turns on the same images, and give each round."""
    height, width = arguments.size
    rows_per_part = arguments.images // 2
    write_shelves(folder, arguments.images + rows_per_part, seed=1, width=width, height=height, num_boards=5)
    bodies = [path.read_bytes() for path in sorted((folder / "images").iterdir())]
    image = decode_image(torch.frombuffer(bytearray(bodies[0]), dtype=torch.uint8))
    sides = {"min_size_px": min(320, *arguments.size), "max_size_px": 533} if arguments.small else {}
    bundle_uri = write_bundle(folder / "bundle", arguments.backbone, PreprocessConfig(**sides), image)
    predictor = Predictor.from_bundle(bundle_uri, device="cpu", precision="fp32")
    network = load_network(bundle_uri).eval()

    counted = bodies[: arguments.images]
    ways: dict[str, Callable[[], dict[str, float]]] = {
        "job": lambda: rate_of_job(bundle_uri, folder / "images", rows_per_part, arguments.batch_size),
        "bare": lambda: rate_of(lambda: bare_predictor(predictor, counted, arguments.batch_size), len(counted)),
        "torchvision": lambda: rate_of(lambda: plain_torchvision(network, counted), len(counted)),
    }
    bare_predictor(predictor, counted[:1], 1)
    plain_torchvision(network, counted[:1])
    for number in range(arguments.rounds):
        # The order turns, so that a neighbour's rhythm on the machine does not favour one.
        names = [*ways][number % 3 :] + [*ways][: number % 3]
        figures = {name: ways[name]() for name in names}
        rates = ", ".join(f"{name} {figures[name]['images_per_s']:.3f}" for name in ways)
        print(f"round {number + 1} of {arguments.rounds}: {rates} images/s", flush=True)
        yield {**figures, "load_average": os.getloadavg()[0]}


def summarise(rounds: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Give the medians of the rounds; ratios are taken within a round, whose three saw the most similar machine."""

    def median(of: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(map(of, rounds))

    return {
        way: {
            "images_per_s": median(lambda one: one[way]["images_per_s"]),  # noqa: B023  called at once
            "cpu_s_per_image": median(lambda one: one[way]["cpu_s_per_image"]),  # noqa: B023
            "instances_per_image": median(lambda one: one[way]["instances_per_image"]),  # noqa: B023
            "share_of_bare": median(lambda one: one[way]["images_per_s"] / one["bare"]["images_per_s"]),  # noqa: B023
            "cpu_share_of_bare": median(
                lambda one: one["bare"]["cpu_s_per_image"] / one[way]["cpu_s_per_image"]  # noqa: B023
            ),
        }
        for way in ("job", "bare", "torchvision")
    }


def parse_size(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH."""
    height, width = text.split("x")
    return int(height), int(width)


def main() -> int:
    """Run the comparison; 0 when the job reaches its share of the bare loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="resnet18 at 320 px, 4 images")
    parser.add_argument("--backbone", choices=BACKBONES, help="default: resnet50")
    parser.add_argument("--images", type=int, help="counted in each way and round (default: 16)")
    parser.add_argument("--size", type=parse_size, help="of the images, HEIGHTxWIDTH px (default: 1080x1440)")
    parser.add_argument("--batch-size", type=int, default=2, help="images a call")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="torch's (default: all cores)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of which medians are taken (default: 3)")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    arguments.backbone = arguments.backbone or ("resnet18" if arguments.small else "resnet50")
    arguments.images = arguments.images or (4 if arguments.small else 16)
    arguments.size = arguments.size or ((320, 427) if arguments.small else (1080, 1440))
    if arguments.images < 2 or min(arguments.batch_size, arguments.threads, arguments.rounds) < 1:
        parser.error("--images must be 2 or more, --batch-size, --threads and --rounds 1 or more")
    if arguments.threads > len(os.sched_getaffinity(0)):
        parser.error(f"--threads must be at most the cores there are, got {arguments.threads}")

    from maskrcnn import cluster

    load_before = os.getloadavg()[0]
    torch.set_num_threads(arguments.threads)
    # Ray lets its workers give way to other processes; on a machine that is shared, only the job would then wait.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  spelled so by Ray
    # An actor's threads are its CPUs, and it takes all that a small Ray has.
    cluster.start_local_ray(num_cpus=arguments.threads)
    with tempfile.TemporaryDirectory(prefix="predict-") as name:
        rounds: list[dict[str, Any]] = []
        for one in measure(arguments, Path(name)):
            rounds.append(one)
            summary = summarise(rounds)
            if arguments.output:  # after each round: a run that is cut short leaves what it measured
                names = ("backbone", "images", "size", "batch_size", "threads")
                settings = {name: getattr(arguments, name) for name in names}
                figures = {**settings, "summary": summary, "rounds": rounds}
                write_results(arguments.output, "pipeline", figures, load_before)
    print(f"{'':<12} {'images/s':>8} {'of bare':>8} {'CPU s/image':>11} {'of bare':>8} {'instances/image':>15}")
    for way, row in summary.items():
        print(
            f"{way:<12} {row['images_per_s']:>8.3f} {row['share_of_bare']:>7.1%} {row['cpu_s_per_image']:>11.3f} "
            f"{row['cpu_share_of_bare']:>7.1%} {row['instances_per_image']:>15.1f}"
        )
    is_good = summary["job"]["share_of_bare"] >= TARGET_SHARE
    print(f"the job reaches {'' if is_good else 'less than '}{TARGET_SHARE:.0%} of the bare loop")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
