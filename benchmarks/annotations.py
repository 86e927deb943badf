"""Time loading a COCO file of train2017's size, and watch the memory that it takes.

The file is generated: sparse category ids, polygons of one to three parts, a few crowds as run lengths, annotations in
no order of images. It is loaded in a process of its own that imports nothing else, so that the peak memory is its own.
Ends 1 when the full size takes longer or holds more than it should.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import peak_rss_bytes, rss_bytes, write_results

NUM_IMAGES = 118_000
NUM_ANNOTATIONS = 860_000
NUM_CATEGORIES = 80
POINTS_PER_PART = 25
PART_SHARES = (0.86, 0.1, 0.04)
"""Of the annotations with polygons: with 1, 2 and 3 of them."""
CROWD_SHARE = 0.01
EMPTY_SHARE = 0.02
BYTES_PER_ANNOTATION = 540  # on disk, to see whether there is room
LIMIT_S = 60.0
LIMIT_BYTES = 3 << 29


def write_file(
    path: Path,
    num_images: int,
    num_annotations: int,
    sides_px: tuple[int, int] = (400, 640),
    draw: Callable[[np.random.Generator, int, int], dict[str, Any]] | None = None,
) -> None:
    """Write a COCO file as the published ones are written: compact, keys in COCO's order, two decimals.

    Args:
        path: of the file.
        num_images, num_annotations: in it.
        sides_px: the least and the most of an image's height and width.
        draw: gives an annotation's mask, box and area for an image of a height and width; None: `draw_annotation`.
    """
    draw = draw or draw_annotation
    encode = json.JSONEncoder(separators=(",", ":")).encode
    rng = np.random.default_rng(1)
    sizes = rng.integers(sides_px[0], sides_px[1] + 1, (num_images, 2)).tolist()
    category_ids = np.sort(rng.choice(np.arange(1, 100), NUM_CATEGORIES, replace=False)).tolist()
    with open(path, "w") as file:
        file.write('{"info": {"description": "generated"}, "licenses": [], "images": [')
        for index, (height, width) in enumerate(sizes):
            image = {
                "license": 1,
                "file_name": f"{index + 9:012}.jpg",
                "coco_url": f"http://images.cocodataset.org/train2017/{index + 9:012}.jpg",
                "height": height,
                "width": width,
                "date_captured": "2013-11-14 16:28:13",
                "id": index + 9,
            }
            file.write(("," if index else "") + encode(image))
        file.write('], "annotations": [')
        for index in range(num_annotations):
            image = int(rng.integers(num_images))
            annotation = draw(rng, *sizes[image])
            annotation |= {"image_id": image + 9, "category_id": category_ids[index % NUM_CATEGORIES], "id": 7 * index}
            file.write(("," if index else "") + encode(annotation))
        categories = [{"supercategory": "thing", "id": number, "name": f"thing {number}"} for number in category_ids]
        file.write(f'], "categories": {encode(categories)}}}')


def draw_annotation(rng: np.random.Generator, height: int, width: int) -> dict[str, Any]:
    """Draw one annotation's mask, box and area."""
    x, y = rng.uniform(0, width / 2), rng.uniform(0, height / 2)
    w, h = rng.uniform(8, width / 2), rng.uniform(8, height / 2)
    annotation: dict[str, Any] = {"segmentation": [], "area": round(w * h / 2, 4), "iscrowd": 0}
    kind = rng.random()
    if kind < CROWD_SHARE:
        runs = rng.multinomial(height * width - 400, np.full(400, 1 / 400)) + 1
        annotation |= {"segmentation": {"counts": runs.tolist(), "size": [height, width]}, "iscrowd": 1}
    elif kind > CROWD_SHARE + EMPTY_SHARE:
        for _ in range(1 + int(rng.choice(len(PART_SHARES), p=PART_SHARES))):
            points = np.array([x, y]) + rng.random((int(rng.integers(3, 2 * POINTS_PER_PART - 2)), 2)) * [w, h]
            annotation["segmentation"].append([round(number, 2) for number in points.ravel().tolist()])
    annotation["bbox"] = [round(number, 2) for number in (x, y, w, h)]
    return annotation


def load_in_this_process(path: Path) -> dict[str, Any]:
    """Load a file, and give the figures."""
    from maskrcnn.coco.annotations import load_coco

    imported_bytes, begin_wall, begin_cpu = rss_bytes(), time.perf_counter(), time.process_time()
    dataset = load_coco(str(path))
    seconds, cpu_seconds = time.perf_counter() - begin_wall, time.process_time() - begin_cpu
    segmentations, names = dataset.segmentations, dataset.file_names.encoded
    holders = [vars(holder).values() for holder in (dataset, segmentations, segmentations.counts, names)]
    return {
        "images": dataset.num_images,
        "annotations": dataset.num_annotations,
        "coordinates": len(segmentations.xy),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        "rss_after_imports_bytes": imported_bytes,
        "rss_after_loading_bytes": rss_bytes(),
        "array_bytes": sum(value.nbytes for values in holders for value in values if isinstance(value, np.ndarray)),
    }


def measure(num_images: int, num_annotations: int, runs: int, within: Path | None) -> dict[str, Any]:
    """Generate a file, load it in fresh processes, delete it; the median run is kept."""
    folder = Path(tempfile.mkdtemp(prefix="annotations-", dir=within))
    try:
        path = folder / "annotations.json"
        write_file(path, num_images, num_annotations)
        command = [sys.executable, __file__, "--load", str(path)]
        done = [subprocess.run(command, check=True, stdout=subprocess.PIPE) for _ in range(runs)]
        file_bytes = path.stat().st_size
    finally:
        shutil.rmtree(folder)
    results: list[dict[str, Any]] = sorted((json.loads(one.stdout) for one in done), key=lambda one: one["seconds"])
    return {
        "file_bytes": file_bytes,
        **results[len(results) // 2],
        "all_seconds": [round(one["seconds"], 2) for one in results],
        "max_peak_rss_bytes": max(one["peak_rss_bytes"] for one in results),
    }


def main() -> int:
    """Load one file some times; 0 when that is within the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a hundredth of the size, one run: seconds")
    parser.add_argument("--runs", type=int, help="loadings, of which the median is given (default: 3)")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        print(json.dumps(load_in_this_process(arguments.load)))
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
    print(f"{'images':>8} {'annotations':>11} {'file MiB':>8} {'s':>6} {'CPU s':>6} {'peak MiB':>8} {'arrays MiB':>10}")
    print(
        f"{row['images']:>8} {row['annotations']:>11} {row['file_bytes'] / 2**20:>8.0f} {row['seconds']:>6.1f} "
        f"{row['cpu_seconds']:>6.1f} {row['max_peak_rss_bytes'] / 2**20:>8.0f} {row['array_bytes'] / 2**20:>10.0f}"
    )
    if arguments.output:
        write_results(arguments.output, "annotations", {"rows": [row]}, load_before)
    is_good = row["seconds"] < LIMIT_S and row["max_peak_rss_bytes"] < LIMIT_BYTES
    print("within" if is_good else "NOT within", f"{LIMIT_S:.0f} s and {LIMIT_BYTES >> 20} MiB")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
