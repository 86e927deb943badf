"""Measure loading training samples: mask grids against full-size masks, and what worker processes hold at COCO's size.

By default, drawn shelves with many products (and a real COCO set, where --annotations or MASKRCNN_SHARED say where) go
through a torch DataLoader both ways: ours, and torchvision's reference, pycocotools decoding every mask at its image's
size. Both decode and mirror alike, neither resizes. Each way has a process of its own.

With --scale coco, a generated file of train2017's size is loaded, and what each loader worker holds alone (its USS) is
read at the start and at the end of a part of an epoch. Ends 1 when that is too much, or grows.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from annotations import NUM_ANNOTATIONS, NUM_IMAGES, write_file
from machine import peak_rss_bytes, rss_bytes, uss_bytes, write_results
from PIL import Image
from pycocotools.coco import COCO
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maskrcnn.coco.annotations import load_coco
from maskrcnn.config import PreprocessConfig
from maskrcnn.images import BadImage
from maskrcnn.model.decode import decode_image
from maskrcnn.synthetic import write_shelves
from maskrcnn.training.augment import AugmentConfig
from maskrcnn.training.sampler import ShareSampler, StepOrder
from maskrcnn.training.samples import CocoSamples, Sample, keep_samples
from maskrcnn.training.transforms import Purpose, SampleKey, random_generator

WAYS = ("grids", "full-size masks")
SHELF_PX = (1080, 1440)
NUM_BOARDS = 5
BATCH_SIZE = 2
NUM_WORKERS = 2
SIDE_PX = 480
MIB = 2**20
LIMIT_BYTES = 150 * MIB
LIMIT_GROWTH_BYTES = 10 * MIB
FLIP_ONLY = AugmentConfig(color_jitter=0)


class ReferenceSamples(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Images with N x H x W masks.

    Source: torchvision, ``references/detection/coco_utils.py``, ``ConvertCocoPolysToMask``.
    """

    def __init__(self, annotations_path: Path, images_path: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells what it does
            self._coco = COCO(str(annotations_path))
        self._ids, self._images_path = sorted(self._coco.imgs), images_path

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, dict[str, Tensor]]:
        info = self._coco.loadImgs(self._ids[key.sample_index])[0]
        height, width = info["height"], info["width"]
        decoded = decode_image((self._images_path / info["file_name"]).read_bytes(), PreprocessConfig())
        if isinstance(decoded, BadImage):
            raise SystemExit(f"{info['file_name']}: {decoded.reason}")
        annotations = self._coco.loadAnns(self._coco.getAnnIds(info["id"], iscrowd=False))
        masks = torch.zeros(len(annotations), height, width, dtype=torch.uint8)
        for mask, annotation in zip(masks, annotations, strict=True):
            mask.copy_(torch.from_numpy(self._coco.annToMask(annotation)))
        boxes = torch.tensor([each["bbox"] for each in annotations], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        image = decoded.pixels
        rng = random_generator(0, Purpose.AUGMENT, key)
        if rng.random() < FLIP_ONLY.flip_probability:
            image, masks = image.flip(-1), masks.flip(-1)
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        labels = torch.tensor([each["category_id"] for each in annotations], dtype=torch.int64)
        return image, {"boxes": boxes, "labels": labels, "masks": masks}


def target_bytes(sample: Sample | tuple[Tensor, dict[str, Tensor]]) -> tuple[int, int]:
    """Count a target's bytes without the image's, and its instances."""
    if isinstance(sample, Sample):
        parts = [getattr(sample, field.name) for field in fields(sample) if field.name != "image"]
        tensors = [part for part in parts if isinstance(part, Tensor)]
    else:
        tensors = list(sample[1].values())
    return sum(tensor.nbytes for tensor in tensors), len(sample.boxes if isinstance(sample, Sample) else tensors[0])


def load_in_this_process(
    way: str, num_workers: int, annotations_path: Path, images_path: Path, rounds: int
) -> dict[str, Any]:
    """Go through a set once to get going and then some times, one way, and give the figures."""
    torch.set_num_threads(1)
    imported_bytes = rss_bytes()
    samples: Dataset[Any] = ReferenceSamples(annotations_path, images_path)
    if way == WAYS[0]:
        samples = CocoSamples(load_coco(str(annotations_path)), str(images_path), PreprocessConfig(), FLIP_ONLY)
    count = len(samples)  # type: ignore[arg-type]
    order = StepOrder(np.zeros(count, np.int64), BATCH_SIZE, seed=0)
    loader = DataLoader(
        samples,
        batch_sampler=ShareSampler(order, range((1 + rounds) * order.steps_per_epoch), 0, 1),  # type: ignore[arg-type]
        collate_fn=keep_samples,
        num_workers=num_workers,
    )
    num_bytes = num_instances = 0
    peaks: dict[int, int] = {}
    iterator = iter(loader)
    begin = time.perf_counter()
    for step, batch in enumerate(iterator):
        if step == order.steps_per_epoch - 1:  # the last of the first round has come
            begin = time.perf_counter()
        for sample in batch:
            held, instances = target_bytes(sample)
            num_bytes, num_instances = num_bytes + held, num_instances + instances
        for worker in getattr(iterator, "_workers", ()):
            peaks[worker.pid] = max(peaks.get(worker.pid, 0), peak_rss_bytes(worker.pid))
    seconds, seen = time.perf_counter() - begin, (1 + rounds) * count
    return {
        "way": way,
        "workers": num_workers,
        "images": count,
        "instances_per_image": num_instances / seen,
        "images_per_s": rounds * count / seconds,
        "target_bytes_per_image": num_bytes / seen,
        "peak_rss_bytes": peak_rss_bytes(),
        "rss_after_imports_bytes": imported_bytes,
        "max_worker_peak_rss_bytes": max(peaks.values(), default=0),
    }


def hold_in_this_process(annotations_path: Path, num_samples: int) -> dict[str, Any]:
    """Load a large file, go through a part of an epoch, and give what its workers hold alone."""
    torch.set_num_threads(1)
    coco = load_coco(str(annotations_path))
    jpeg = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (SIDE_PX // 8, SIDE_PX // 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((SIDE_PX, SIDE_PX)).save(jpeg, "JPEG")
    body = jpeg.getvalue()
    samples = CocoSamples(coco, "/nowhere", PreprocessConfig(), AugmentConfig(), read=lambda uri: body)
    order = StepOrder(np.zeros(len(samples), np.int64), BATCH_SIZE, seed=0)
    num_steps = num_samples // BATCH_SIZE
    loader = DataLoader(
        samples,
        batch_sampler=ShareSampler(order, range(num_steps), 0, 1),  # type: ignore[arg-type]
        collate_fn=keep_samples,
        num_workers=NUM_WORKERS,
    )
    gc.collect()
    held_bytes = rss_bytes()
    iterator = iter(loader)
    pids = [worker.pid for worker in iterator._workers]  # type: ignore[attr-defined]
    course: list[list[int]] = []
    points = {round(num_steps * share) for share in (0.1, 0.25, 0.5, 0.75, 0.95)}
    begin = time.perf_counter()
    for step, _ in enumerate(iterator, start=1):
        if step in points:
            course.append([uss_bytes(pid) for pid in pids])
    return {
        "images": coco.num_images,
        "annotations": coco.num_annotations,
        "samples": num_samples,
        "images_per_s": num_samples / (time.perf_counter() - begin),
        "main_process_rss_bytes": held_bytes,
        "worker_uss_bytes": course,
    }


def in_a_process(arguments: dict[str, Any]) -> dict[str, Any]:
    """Call one of the two functions above in a fresh process."""
    command = [sys.executable, __file__, "--in-this-process", json.dumps(arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def compare(name: str, annotations_path: Path, images_path: Path, rounds: int) -> list[dict[str, Any]]:
    """Load a set both ways, without and with workers."""
    rows = []
    for num_workers in (0, NUM_WORKERS):
        for way in WAYS:
            places = {"annotations_path": str(annotations_path), "images_path": str(images_path)}
            row = in_a_process({"way": way, "num_workers": num_workers, "rounds": rounds, **places})
            rows.append({"set": name, **row})
            worker_peak = row["max_worker_peak_rss_bytes"] / MIB
            print(
                f"{name:>10} {way:>16} {num_workers:>7} {row['images']:>6} {row['instances_per_image']:>10.1f} "
                f"{row['images_per_s']:>10.2f} {row['target_bytes_per_image'] / MIB:>10.2f} "
                f"{row['peak_rss_bytes'] / MIB:>10.0f} {row['rss_after_imports_bytes'] / MIB:>10.0f} "
                f"{worker_peak:>10.0f}"
            )
    return rows


def run_scale(part: int, num_samples: int, folder: Path) -> tuple[dict[str, Any], bool]:
    """Measure the workers' memory on a generated file, and judge it."""
    path = folder / "annotations.json"
    write_file(path, NUM_IMAGES // part, NUM_ANNOTATIONS // part, sides_px=(SIDE_PX, SIDE_PX))
    row = in_a_process({"hold": str(path), "num_samples": num_samples})
    first, last = row["worker_uss_bytes"][0], row["worker_uss_bytes"][-1]
    print(f"{row['images']} images, {row['annotations']} annotations, {row['samples']} samples")
    print(f"the main process holds {row['main_process_rss_bytes'] / MIB:.0f} MiB; the workers alone, MiB:")
    for points in row["worker_uss_bytes"]:
        print("".join(f"{held / MIB:>8.1f}" for held in points))
    most, growth = max(map(max, row["worker_uss_bytes"])), max(np.subtract(last, first).tolist())
    is_good = 0 < most < LIMIT_BYTES and growth < LIMIT_GROWTH_BYTES
    limits = f"{LIMIT_BYTES // MIB} MiB, growing by less than {LIMIT_GROWTH_BYTES // MIB}"
    print("within" if is_good else "NOT within", limits)
    return row, is_good


def main() -> int:
    """Run one of the modes, or both; 0 when the workers' memory is within its limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="fewer and smaller images, a hundredth of the annotations")
    parser.add_argument("--scale", choices=("ways", "coco", "both"), default="ways", help="what is measured")
    parser.add_argument("--samples", type=int, help="samples of --scale coco (default: 6000, --small: 400)")
    parser.add_argument("--annotations", type=Path, help="a COCO file to load beside the shelves")
    parser.add_argument("--images", type=Path, help="its folder of images (default: images/ beside it)")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--in-this-process", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if call := arguments.in_this_process:
        if "hold" in call:
            figures = hold_in_this_process(Path(call["hold"]), call["num_samples"])
        else:
            paths = {name: Path(call.pop(name)) for name in ("annotations_path", "images_path")}
            figures = load_in_this_process(**call, **paths)
        print(json.dumps(figures))
        return 0

    load_before, is_good = os.getloadavg()[0], True
    document: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="loader-") as name:
        folder = Path(name)
        if arguments.scale in ("ways", "both"):
            height, width = (side // 2 if arguments.small else side for side in SHELF_PX)
            shelves = write_shelves(
                folder, 4 if arguments.small else 24, seed=1, width=width, height=height, num_boards=NUM_BOARDS
            )
            names = ("instances", "images/s", "target MiB", "peak MiB", "imported", "worker MiB")
            print(f"{'set':>10} {'way':>16} {'workers':>7} {'images':>6}", *(f"{name:>10}" for name in names))
            document["rows"] = compare("shelves", shelves, folder / "images", rounds=1 if arguments.small else 3)
            shared = Path(os.environ.get("MASKRCNN_SHARED", ""))
            real = arguments.annotations or shared / "data" / "coco_cc_by" / "annotations.json"
            if real.is_file():
                images_path = arguments.images or real.parent / "images"
                document["rows"] += compare(real.parent.name, real, images_path, rounds=1 if arguments.small else 3)
        if arguments.scale in ("coco", "both"):
            num_samples = arguments.samples or (400 if arguments.small else 6000)
            document["scale"], is_good = run_scale(100 if arguments.small else 1, num_samples, folder)
    if arguments.output:
        write_results(arguments.output, "loader", document, load_before)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
