"""Time the validation of a COCO file of train2017's size, and watch the memory that it takes.

The file is generated: 118,000 images, 860,000 annotations, half polygons and half compressed RLE, sound but for one in
a thousand. It is validated, without images, in a process of its own. Ends 1 when the full size takes longer or holds
more than it should, or when a flaw is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from annotations import BYTES_PER_ANNOTATION, NUM_ANNOTATIONS, NUM_IMAGES, write_file
from machine import peak_rss_bytes, write_results

from maskrcnn.coco import rle
from maskrcnn.coco.validate.dataset import validate_annotations

MOST_POINTS = 60
FLAW_EVERY = 1000
LIMIT_S = 120.0
LIMIT_BYTES = 4 << 30


class Drawer:
    """Draws star-shaped objects with their right boxes and areas, every thousandth with too few points."""

    def __init__(self) -> None:
        self.num_drawn = 0
        self.num_flaws = 0

    def __call__(self, rng: np.random.Generator, height: int, width: int) -> dict[str, Any]:
        """Draw one for an image of this height and width, px."""
        self.num_drawn += 1
        radius = rng.uniform(6, min(height, width) / 2 - 2)
        centre = rng.uniform([radius, radius], [width - radius, height - radius])
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(8, MOST_POINTS))))
        radii = radius * rng.uniform(0.7, 1, len(angles))
        points = (centre + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]).round(2)
        x, y = points.T
        area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
        corner, far = points.min(axis=0), points.max(axis=0)
        bbox = [*corner.tolist(), *(far - corner).round(2).tolist()]
        polygons = [points.ravel().tolist()]
        segmentation: Any = polygons
        if self.num_drawn % FLAW_EVERY == 0:
            self.num_flaws += 1
            segmentation = [[1, 1, 2, 2]]
        elif self.num_drawn % 2:
            mask = rle.from_polygons(polygons, height, width)
            segmentation, bbox, area = rle.to_json(mask), rle.to_bbox(mask), rle.area(mask)
        return {"segmentation": segmentation, "area": round(float(area), 2), "iscrowd": 0, "bbox": bbox}


def validate_in_this_process(path: Path) -> dict[str, Any]:
    """Validate a file, and give the figures."""
    begin_wall, begin_cpu = time.perf_counter(), time.process_time()
    validation = validate_annotations(str(path))
    return {
        "seconds": time.perf_counter() - begin_wall,
        "cpu_seconds": time.process_time() - begin_cpu,
        "peak_rss_bytes": peak_rss_bytes(),
        "images": len(validation.scanned.images),
        "annotations": len(validation.scanned.annotations),
        "findings": dict(validation.findings.counts),
    }


def measure(num_images: int, num_annotations: int, runs: int, folder: Path | None) -> dict[str, Any]:
    """Write a file, validate it some times, each in a fresh process, and give the median run."""
    with tempfile.TemporaryDirectory(prefix="validate-", dir=folder) as name:
        path = Path(name) / "annotations.json"
        drawer = Drawer()
        write_file(path, num_images, num_annotations, draw=drawer)
        command = [sys.executable, __file__, "--validate", str(path)]
        done = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(runs)]
        median = sorted(done, key=lambda one: one["seconds"])[len(done) // 2]
        return {
            **median,
            "file_bytes": path.stat().st_size,
            "flaws": drawer.num_flaws,
            "all_seconds": [round(one["seconds"], 1) for one in done],
            "max_peak_rss_bytes": max(one["peak_rss_bytes"] for one in done),
        }


def main() -> int:
    """Validate one file some times; 0 when that is within the limits, and every flaw is found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a hundredth of the size, one run: seconds")
    parser.add_argument("--runs", type=int, help="validations, of which the median is given (default: 3)")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--validate", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.validate:
        print(json.dumps(validate_in_this_process(arguments.validate)))
        return 0
    runs = arguments.runs if arguments.runs is not None else 1 if arguments.small else 3
    if runs < 1:
        parser.error(f"--runs must be 1 or more, got {runs}")
    part = 100 if arguments.small else 1
    needed = NUM_ANNOTATIONS // part * BYTES_PER_ANNOTATION
    free = shutil.disk_usage(arguments.folder or tempfile.gettempdir()).free
    if needed > free:
        parser.error(f"needs about {needed >> 20} MiB of disk, {free >> 20} MiB are free; see --folder")

    load_before = os.getloadavg()[0]
    row = measure(NUM_IMAGES // part, NUM_ANNOTATIONS // part, runs, arguments.folder)
    print(
        f"{'images':>8} {'annotations':>11} {'file MiB':>8} {'s':>6} {'CPU s':>6} {'peak MiB':>8} {'flaws found':>12}"
    )
    found = row["findings"].get("polygon_too_few_points", 0)
    print(
        f"{row['images']:>8} {row['annotations']:>11} {row['file_bytes'] / 2**20:>8.0f} {row['seconds']:>6.1f} "
        f"{row['cpu_seconds']:>6.1f} {row['max_peak_rss_bytes'] / 2**20:>8.0f} {found:>5} of {row['flaws']}"
    )
    if arguments.output:
        write_results(arguments.output, "validate", {"rows": [row]}, load_before)
    is_exact = row["findings"] == {"polygon_too_few_points": row["flaws"]}
    is_good = row["seconds"] < LIMIT_S and row["max_peak_rss_bytes"] < LIMIT_BYTES and is_exact
    print("within" if is_good else "NOT within", f"{LIMIT_S:.0f} s and {LIMIT_BYTES >> 30} GiB, every flaw found")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
