"""Show that the labelling job's memory does not grow with the number of images: its driver's and its actor's peaks.

Labels folders of small random PNGs, from the smallest to the largest, with a tiny random network; each job in a process
of its own, so that one does not inherit another's memory. Ends 1 when a peak grows by more than a tenth.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import peak_rss_bytes, process_tree, write_results
from PIL import Image

from maskrcnn.config import LabelConfig, ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.model.bundle import Category, save_bundle
from maskrcnn.model.network import build_network

ROWS_PER_PART = 256
SIDE_PX = 32
BATCH_SIZE = 16
SAMPLE_EVERY_S = 0.25
MOST_GROWTH = 1.10


def write_images(folder: Path, num_images: int) -> None:
    """Write random PNGs, all different."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(num_images)
    for place in range(num_images):
        pixels = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"image-{place:06d}.png")


def write_bundle(folder: Path) -> None:
    """Save a random network that is small and finds something in every image."""
    torch.manual_seed(0)
    # Anchors larger than the image are one box once they are cut to it: few proposals, so a quick box head.
    model = ModelConfig(backbone="resnet18", num_labels=2, anchor_sizes_px=((256,),) * 5, anchor_aspect_ratios=(1.0,))
    preprocess = PreprocessConfig(min_size_px=32, max_size_px=64)
    thresholds = ThresholdConfig(score_threshold=0.0, max_detections=4)
    save_bundle(
        str(folder),
        build_network(model, preprocess, thresholds).eval(),
        model=model,
        preprocess=preprocess,
        thresholds=thresholds,
        categories=[Category(1, "noise", 1)],
        provenance={"training_set": "none: random weights"},
    )


def label_in_this_process(folder: Path) -> dict[str, Any]:
    """Run the job as users do, and give what its record says."""
    from maskrcnn.labelling.job import label_images

    report = label_images(
        LabelConfig(
            bundle_uri=str(folder / "bundle"),
            images_uri=str(folder / "images"),
            output_uri=str(folder / "output"),
            batch_size=BATCH_SIZE,
            num_actors=(1, 1),
            rows_per_part=ROWS_PER_PART,
            device="cpu",
            masks="full",
        )
    )
    if not report.is_reconciled or report.record["images"]["failed"]:
        raise SystemExit(f"the job did not label everything: {report.record['images']}, {report.record['reconcile']}")
    return {name: report.record[name] for name in ("seconds", "images", "instances", "parts", "pool")}


def label_and_watch(folder: Path) -> dict[str, Any]:
    """Run the job in a fresh process, watching the peaks of it and of everything that it starts.

    A peak only ever rises, so that no sample can miss it but one of a process's last moments.
    """
    command = [sys.executable, __file__, "--label-in", str(folder)]
    with (folder / "job.out").open("w+") as out, subprocess.Popen(command, stdout=out) as job:
        peaks: dict[int, int] = {}
        names: dict[int, str] = {}
        while job.poll() is None:
            for pid, name in process_tree(job.pid).items():
                peaks[pid] = max(peaks.get(pid, 0), peak_rss_bytes(pid))
                names[pid] = name or names.get(pid, "")
            time.sleep(SAMPLE_EVERY_S)
        if job.returncode:
            raise SystemExit(f"the job ended with {job.returncode}")
        out.seek(0)
        figures: dict[str, Any] = json.loads(out.read().splitlines()[-1])
    actors = [peaks[pid] for pid, name in names.items() if "_PoolWorker" in name or "MapBatches" in name]
    if len(actors) != 1:
        raise SystemExit(f"one actor was to be seen, not {len(actors)}: {sorted(set(names.values()))}")
    return {"driver_peak_rss_bytes": peaks[job.pid], "actor_peak_rss_bytes": actors[0], **figures}


def measure(num_images: int) -> dict[str, Any]:
    """Label so many images, and give the peaks."""
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        folder = Path(name)
        write_images(folder / "images", num_images)
        write_bundle(folder / "bundle")
        return {"num_images": num_images, **label_and_watch(folder), "load_average": os.getloadavg()[0]}


def main() -> int:
    """Run every size; 0 when memory stays flat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="1,000 and 3,000 images")
    parser.add_argument("--images", type=int, nargs="+", metavar="N", help="sizes to compare (default: 1000 10000)")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--label-in", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.label_in:
        print(json.dumps(label_in_this_process(arguments.label_in)))
        return 0
    sizes = sorted(set(arguments.images or ([1000, 3000] if arguments.small else [1000, 10_000])))
    if len(sizes) < 2 or sizes[0] < 1:
        parser.error(f"--images must be two different sizes or more, got {sizes}")

    load_before = os.getloadavg()[0]
    rows = []
    print(f"{'images':>7} {'parts':>5} {'s':>6} {'images/s':>8} {'driver peak MiB':>15} {'actor peak MiB':>14}")
    for num_images in sizes:
        row = measure(num_images)
        rows.append(row)
        print(
            f"{num_images:>7} {row['parts']['made']:>5} {row['seconds']:>6.0f} {num_images / row['seconds']:>8.1f} "
            f"{row['driver_peak_rss_bytes'] / 2**20:>15.0f} {row['actor_peak_rss_bytes'] / 2**20:>14.0f}",
            flush=True,
        )
    first, last = rows[0], rows[-1]
    growth = {name: last[f"{name}_peak_rss_bytes"] / first[f"{name}_peak_rss_bytes"] for name in ("driver", "actor")}
    is_flat = max(growth.values()) <= MOST_GROWTH
    print(
        f"{last['num_images'] / first['num_images']:.0f} times the images: "
        f"driver x {growth['driver']:.3f}, actor x {growth['actor']:.3f}: {'flat' if is_flat else 'NOT flat'}"
    )
    if arguments.output:
        settings = {"image_px": SIDE_PX, "rows_per_part": ROWS_PER_PART, "batch_size": BATCH_SIZE}
        write_results(arguments.output, "memory", {**settings, "rows": rows, "growth": growth}, load_before)
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main())
