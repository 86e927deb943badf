"""What slicing gains in AP, and what it costs in time, on large drawn shelves with hundreds of products.

A bundle labels every shelf as a whole, in tiles with each way of putting them together, with and without mask NMS, and
as a whole in a larger input that shows products as large as tiles do: where memory allows that, it is slicing's rival.
AP is COCO's for masks, with up to 1000 detections an image of a score of 0.05 and more. Seconds an image, the number
found, and the products among them (right: of their category, IoU above 0.5) are those of the bundle's own score
threshold, as jobs label. Seconds go from the JPEG to the RLEs, with one torch thread. Tiles are predicted once and put
together in every way: their seconds count in each.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask
import torch
from machine import write_results

from maskrcnn.coco.annotations import CocoDataset, load_coco
from maskrcnn.coco.evaluate import evaluate
from maskrcnn.coco.results import CocoResults
from maskrcnn.config import BOX_NMS_BEFORE_MASK_NMS, SliceConfig, ThresholdConfig
from maskrcnn.errors import BundleError
from maskrcnn.model.bundle import Bundle, load_bundle, load_network
from maskrcnn.model.coco_results import predict_dataset
from maskrcnn.model.detections import Detections
from maskrcnn.model.loading import load_predictor
from maskrcnn.model.precision import resolve_device
from maskrcnn.model.predictor import AnyPredictor, Predictor
from maskrcnn.model.slicing import SlicedPredictor
from maskrcnn.synthetic import write_shelves

SCORE_THRESHOLD = 0.05
MAX_DETECTIONS = 1000
MASK_NMS = 0.5


@dataclass(frozen=True)
class Shelves:
    """What is drawn: a shelf for each seed."""

    seeds: tuple[int, ...]
    width: int
    height: int
    num_boards: int
    slice_px: int


LARGE = Shelves((16,), 6000, 4000, 9, slice_px=1024)
"""Seed 16 draws 399 products."""
SMALL = Shelves((0,), 1500, 1000, 5, slice_px=448)


@dataclass(frozen=True)
class Way:
    """A way to label a shelf."""

    name: str
    slicing: SliceConfig | None = None
    mask_nms: float | None = None
    scaled_like: int | None = None
    """As a whole, resized as tiles of this side are, px."""


class Remembering:
    """Answers the calls of a second round as it did those of the first: ways that cut alike differ in merging only."""

    def __init__(self, predictor: AnyPredictor) -> None:
        self.preprocess, self.thresholds = predictor.preprocess, predictor.thresholds
        self.categories, self.bundle_sha256 = predictor.categories, predictor.bundle_sha256
        self.whole_above_px = predictor.whole_above_px
        self.is_on_gpu = predictor.is_on_gpu
        self.seconds: list[float] = []
        self._predictor = predictor
        self._answers: list[list[Detections]] = []
        self._place = 0

    def rewind(self) -> None:
        """Begin a round."""
        self._place = 0

    def __call__(self, images: Sequence[Any], *, with_masks: bool = True) -> list[Detections]:
        """Predict in the first round, remember in others."""
        if self._place == len(self._answers):
            begin = time.perf_counter()
            self._answers.append(self._predictor(images, with_masks=with_masks))
            self.seconds.append(time.perf_counter() - begin)
        self._place += 1
        return self._answers[self._place - 1]


class TimedSlicing(SlicedPredictor):
    """Notes how long putting together takes."""

    put_together_s = 0.0

    def _put_together(self, *parts: Any) -> Detections:
        begin = time.perf_counter()
        whole = super()._put_together(*parts)
        self.put_together_s += time.perf_counter() - begin
        return whole


def list_ways(sides: Sequence[int], mask_nms: str) -> list[list[Way]]:
    """List the ways, those that cut alike together; the first is always the whole image by boxes alone."""
    choices = {"off": [None], "on": [MASK_NMS], "both": [None, MASK_NMS]}[mask_nms]
    ways = [[Way("whole")], *([Way("whole", mask_nms=each)] for each in choices if each)]
    for side in sides:
        ways.append([Way(f"whole, scaled like {side}", scaled_like=side)] if None in choices else [])
        configs = [
            SliceConfig(side, slice_merge=merge, slice_metric=metric)
            for merge in ("nms", "merge")
            for metric in ("iou", "iomin")
        ]
        for choice in choices:
            ways.append([Way(f"{side} {each.slice_merge} {each.slice_metric}", each, choice) for each in configs])
    return [alike for alike in ways if alike]


def build(way: Way, bundle: Bundle, shelves: Shelves, score_threshold: float, device: Any) -> Remembering:
    """Load the bundle as a way wants it, without slicing."""
    box_nms = bundle.thresholds.nms_threshold if way.mask_nms is None else BOX_NMS_BEFORE_MASK_NMS
    thresholds = ThresholdConfig(score_threshold, box_nms, MAX_DETECTIONS)
    if way.scaled_like is None:
        return Remembering(load_predictor(bundle.uri, thresholds=thresholds, device=device, mask_nms=way.mask_nms))
    scale = bundle.preprocess.min_size_px / way.scaled_like
    short, long = sorted((round(shelves.height * scale), round(shelves.width * scale)))
    preprocess = replace(bundle.preprocess, min_size_px=short, max_size_px=long)
    network = load_network(bundle, resolve_device(device))
    return Remembering(Predictor(network, preprocess, thresholds, categories=bundle.categories))


@dataclass(frozen=True)
class Labelled:
    """What a way made of all shelves, and the seconds a shelf that it took."""

    results: list[CocoResults]
    """Of each."""
    seconds: float
    put_together_s: float


def label(way: Way, looking: Remembering, datasets: dict[Path, CocoDataset], batch_size: int) -> Labelled:
    """Label every shelf."""
    looking.rewind()
    num_before = len(looking.seconds)
    predictor = TimedSlicing(looking, way.slicing, batch_size) if way.slicing else looking
    begin = time.perf_counter()
    results = [predict_dataset(predictor, each, str(path)) for path, each in datasets.items()]
    seconds = time.perf_counter() - begin + sum(looking.seconds[:num_before])
    put_together_s = predictor.put_together_s if isinstance(predictor, TimedSlicing) else 0.0
    return Labelled(results, seconds / len(datasets), put_together_s / len(datasets))


def score(results: Sequence[CocoResults], datasets: dict[Path, CocoDataset]) -> dict[str, float]:
    """Give the shelves' mean scores."""
    limits = (100, MAX_DETECTIONS)
    pairs = zip(datasets.values(), results, strict=True)
    scores = [evaluate(*pair, iou_types=("segm",), max_detections=limits)["segm"] for pair in pairs]
    names = {"AP": "AP", "AP50": "AP50", "AR": f"AR{MAX_DETECTIONS}"}
    return {name: statistics.fmean(each[key] for each in scores) for name, key in names.items()}


def count_right(results: Sequence[CocoResults], datasets: dict[Path, CocoDataset]) -> int:
    """Count the products that a detection of their category covers (IoU above 0.5)."""
    num_right = 0
    for dataset, found in zip(datasets.values(), results, strict=True):
        truths = [dataset.rle(index) for index in range(dataset.num_annotations)]
        size = int(dataset.heights[0]), int(dataset.widths[0])  # a shelf a dataset
        masks = [found.rle(index, size) for index in range(len(found))]
        overlaps = pycocotools.mask.iou(masks, truths, [0] * len(truths))
        is_same = found.category_ids[:, None] == np.asarray(dataset.category_ids)
        num_right += int(((np.reshape(overlaps, is_same.shape) > 0.5) & is_same).any(axis=0).sum())
    return num_right


def measure(ways: Sequence[Way], bundle: Bundle, shelves: Shelves, datasets: Any, arguments: Any) -> list[dict]:
    """Label and score in ways that cut alike."""
    thresholds = (SCORE_THRESHOLD, bundle.thresholds.score_threshold)
    for_ap, for_use = (build(ways[0], bundle, shelves, each, arguments.device) for each in thresholds)
    rows = []
    for way in ways:
        scores = score(label(way, for_ap, datasets, arguments.batch_size).results, datasets)
        used = label(way, for_use, datasets, arguments.batch_size)
        rows.append(
            {
                "way": way.name,
                "mask_nms": way.mask_nms,
                "slicing": asdict(way.slicing) if way.slicing else None,
                **scores,
                "products": sum(each.num_annotations for each in datasets.values()),
                "found": sum(len(each) for each in used.results),
                "right": count_right(used.results, datasets),
                "seconds": used.seconds,
                "put_together_s": used.put_together_s,
            }
        )
    return rows


HEAD = (
    f"{'way':<24} {'mask NMS':>8} {'AP':>6} {'AP50':>6} {'AR':>6} "
    f"{'found':>6} {'right':>6} {'of':>5} {'s':>7} {'ratio':>7} {'merging s':>9}"
)


def as_line(row: dict[str, Any]) -> str:
    """Give a row as people read it."""
    return (
        f"{row['way']:<24} {row['mask_nms'] or '-':>8} {row['AP']:>6.3f} {row['AP50']:>6.3f} {row['AR']:>6.3f} "
        f"{row['found']:>6} {row['right']:>6} {row['products']:>5} {row['seconds']:>7.2f} {row['ratio']:>6.1f}x "
        f"{row['put_together_s']:>9.3f}"
    )


def main() -> int:
    """Run every way and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a shelf of 1500x1000 px: a minute or two")
    parser.add_argument("--bundle", default="demo-output/bundle", help="default: what `python -m jobs.demo` leaves")
    parser.add_argument("--slice", type=int, nargs="+", help="sides of tiles, px (default: 1024, or 448 with --small)")
    parser.add_argument(
        "--mask-nms", choices=("off", "on", "both"), default="both", help="on takes three times as long"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--batch-size", type=int, default=8, help="tiles a forward, on a GPU")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    try:
        bundle = load_bundle(arguments.bundle)
    except BundleError as error:
        parser.error(f"--bundle: {error} (`python -m jobs.demo` makes one)")
    torch.set_num_threads(1)
    shelves = SMALL if arguments.small else LARGE
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        datasets = {}
        for seed in shelves.seeds:
            folder, sides = Path(temporary, str(seed)), {"width": shelves.width, "height": shelves.height}
            annotations_path = write_shelves(folder, 1, seed, num_boards=shelves.num_boards, **sides)
            datasets[folder / "images"] = load_coco(str(annotations_path))
        print(HEAD)
        for ways in list_ways(arguments.slice or [shelves.slice_px], arguments.mask_nms):
            for row in measure(ways, bundle, shelves, datasets, arguments):
                rows.append(row)
                row["ratio"] = row["seconds"] / rows[0]["seconds"]
                print(as_line(row), flush=True)
    if arguments.output:
        figures = {"bundle": {"sha256": bundle.sha256, "preprocess": asdict(bundle.preprocess)}, "rows": rows}
        write_results(arguments.output, "slicing", {"shelves": asdict(shelves), **figures}, load_before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
