"""Time scoring 5,000 images of 100 detections against pycocotools, by boxes and by masks, and compare the numbers.

Images, truths and detections are drawn: discs of 8 to 160 px, of which detections stray, are missed, doubled or
invented. Each engine runs in a process of its own, by turns; what is timed goes from its own objects in memory to
the 12 numbers, and the memory is what that adds. Ends 1 when a number differs by 1e-6 or more, or ours takes longer.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import peak_rss_bytes, rss_bytes, write_results

from maskrcnn.coco.runs import encode_counts_batch

ENGINES = ("ours", "pycocotools", "faster-coco-eval")
SIZE = (480, 640)
NUM_TRUTHS = 20
NUM_DETECTIONS = 100
CROWD_SHARE = 0.01
LARGEST_DIFFERENCE = 1e-6


def draw_discs(centres: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, list[bytes], np.ndarray]:
    """Draw discs, cut to the image.

    Args:
        centres: (N, 2) x and y, px.
        radii: (N,) px.

    Returns:
        (N, 4) tight boxes, XYWH, px; N compressed RLEs; and (N,) areas, px.
    """
    height, width = SIZE
    lefts = np.floor(centres[:, 0] - radii).clip(0, width - 1).astype(int)
    rights = np.ceil(centres[:, 0] + radii).clip(1, width).astype(int)
    counts = rights - lefts
    owners = np.repeat(np.arange(len(radii)), counts)
    columns = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - lefts, counts)
    halves = np.sqrt((radii[owners] ** 2 - (columns + 0.5 - centres[owners, 0]) ** 2).clip(0))
    tops = np.round(centres[owners, 1] - halves).clip(0, height - 1).astype(int)
    bottoms = np.round(centres[owners, 1] + halves).clip(tops + 1, height).astype(int)
    begins = np.cumsum(counts) - counts
    # Each mask: 0, where foreground begins and ends in every column, and the end of the image.
    firsts = 2 * begins + 2 * np.arange(len(radii))
    bounds = np.zeros(2 * len(owners) + 2 * len(radii), np.int64)
    places = firsts[owners] + 2 * (np.arange(len(owners)) - begins[owners]) + 1
    bounds[places], bounds[places + 1] = columns * height + tops, columns * height + bottoms
    lasts = firsts + 2 * counts + 1
    bounds[lasts] = height * width
    runs = np.diff(bounds, prepend=0)
    is_run = np.ones(len(bounds), bool)
    is_run[firsts] = False
    is_run[lasts[runs[lasts] == 0]] = False
    offsets = np.concatenate([[0], np.cumsum(np.add.reduceat(is_run, firsts, dtype=np.int64))])
    masks = encode_counts_batch(runs[is_run], offsets)
    top, bottom = np.minimum.reduceat(tops, begins), np.maximum.reduceat(bottoms, begins)
    boxes = np.stack([lefts, top, counts, bottom - top], axis=1).astype(float)
    return boxes, masks, np.add.reduceat(bottoms - tops, begins).astype(float)


def draw_set(num_images: int, num_categories: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw a COCO dataset, and predictions as columns with one RLE string each."""
    rng = np.random.default_rng(1)
    num_truths = num_images * NUM_TRUTHS
    images = np.repeat(np.arange(num_images), NUM_TRUTHS)
    centres = rng.random((num_truths, 2)) * [SIZE[1], SIZE[0]]
    radii = 4 * 20 ** rng.random(num_truths)
    categories = rng.integers(num_categories, size=num_truths)
    boxes, masks, areas = draw_discs(centres, radii)
    is_crowd = rng.random(num_truths) < CROWD_SHARE
    dataset = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in range(num_images)],
        "categories": [{"id": i + 1, "name": f"thing {i + 1}"} for i in range(num_categories)],
        "annotations": [
            {
                "id": i + 1,
                "image_id": int(images[i]),
                "category_id": int(categories[i]) + 1,
                "bbox": boxes[i].tolist(),
                "area": float(areas[i]),
                "iscrowd": int(is_crowd[i]),
                "segmentation": {"size": list(SIZE), "counts": masks[i].decode()},
            }
            for i in range(num_truths)
        ],
    }
    # Of each image's truths some are found once, some twice, and the rest of its detections is invented.
    source = np.repeat(np.arange(num_images) * NUM_TRUTHS, NUM_DETECTIONS)
    source += rng.integers(2 * NUM_TRUTHS, size=len(source)) % (2 * NUM_TRUTHS) // 2
    spread = rng.choice([0.05, 0.15, 3.0], p=[0.25, 0.15, 0.6], size=len(source))
    found_radii = (radii[source] * np.exp(0.5 * spread * rng.normal(size=len(source)))).clip(2, 100)
    found_centres = centres[source] + (radii[source] * spread)[:, None] * rng.normal(size=(len(source), 2))
    found_boxes, found_masks, _ = draw_discs(found_centres.clip(1, [SIZE[1] - 1, SIZE[0] - 1]), found_radii)
    is_other = rng.random(len(source)) < 0.1
    results = {
        "image_ids": np.repeat(np.arange(num_images), NUM_DETECTIONS),
        "category_ids": np.where(is_other, rng.integers(num_categories, size=len(source)), categories[source]) + 1,
        "scores": (1 / (1 + np.exp(4 * spread - 2 + rng.normal(size=len(source))))).round(4),
        "bboxes": found_boxes,
        "masks": found_masks,
    }
    return dataset, results


def prepare_ours(dataset: dict[str, Any], results: dict[str, Any]) -> Callable[[str], list[float]]:
    """Give the scoring of checked columns."""
    from maskrcnn.coco.annotations import parse_coco
    from maskrcnn.coco.evaluate import evaluate
    from maskrcnn.coco.packed import SizedSegmentations
    from maskrcnn.coco.results import CocoResults

    truth = parse_coco(dataset, "drawn")
    masks = [{"size": list(SIZE), "counts": counts} for counts in results.pop("masks")]
    columns = CocoResults("drawn", **results, segmentations=SizedSegmentations.from_rles(masks))

    def score(iou_type: str) -> list[float]:
        row = evaluate(truth, columns, iou_types=[iou_type])[iou_type]
        return [*(value for value in row.values() if isinstance(value, float)), *row["per_category_AP"].values()]

    return score


def prepare_peer(engine: str, dataset: dict[str, Any], results: dict[str, Any]) -> Callable[[str], list[float]]:
    """Give the scoring of pycocotools' or faster-coco-eval's own objects."""
    if engine == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval

    truth = COCO()
    truth.dataset = dataset
    truth.createIndex()
    rows = zip(*(results[name].tolist() for name in ("image_ids", "category_ids", "scores", "bboxes")), strict=True)
    found = truth.loadRes(
        [
            {
                "image_id": image_id,
                "category_id": category_id,
                "score": score,
                "bbox": box,
                "segmentation": {"size": list(SIZE), "counts": counts},
            }
            for (image_id, category_id, score, box), counts in zip(rows, results.pop("masks"), strict=True)
        ]
    )

    def score(iou_type: str) -> list[float]:
        run = COCOeval(truth, found, iou_type)
        run.evaluate()
        run.accumulate()
        run.summarize()
        precision = run.eval["precision"][:, :, :, 0, -1]
        means = [row[row > -1].mean() if (row > -1).any() else -1 for row in np.moveaxis(precision, 2, 0)]
        return [float(value) for value in [*run.stats[:12], *means]]

    return score


def run_in_this_process(engine: str, iou_type: str, num_images: int, num_categories: int) -> dict[str, Any]:
    """Score once, and give seconds, memory and numbers."""
    dataset, results = draw_set(num_images, num_categories)
    with contextlib.redirect_stdout(io.StringIO()):
        score = prepare_ours(dataset, results) if engine == "ours" else prepare_peer(engine, dataset, results)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        before, begin = rss_bytes(), time.perf_counter()
        numbers = score(iou_type)
        seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "objects_bytes": before,
        "added_bytes": peak_rss_bytes() - before,
        "numbers": numbers,
    }


def measure(engines: list[str], iou_type: str, num_images: int, num_categories: int, rounds: int) -> dict[str, Any]:
    """Run the engines by turns, and compare them."""
    runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    for _ in range(rounds):
        for engine in engines:
            arguments = ["--engine", engine, "--iou-type", iou_type]
            sizes = ["--images", str(num_images), "--categories", str(num_categories)]
            command = [sys.executable, __file__, *arguments, *sizes]
            runs[engine].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    row: dict[str, Any] = {"iou_type": iou_type, "images": num_images, "categories": num_categories}
    numbers = np.array(runs["ours"][0]["numbers"])
    for engine, done in runs.items():
        row[engine] = {
            "seconds": statistics.median(one["seconds"] for one in done),
            "all_seconds": [round(one["seconds"], 3) for one in done],
            "objects_bytes": max(one["objects_bytes"] for one in done),
            "added_bytes": max(one["added_bytes"] for one in done),
            "largest_difference": float(np.abs(np.array(done[0]["numbers"]) - numbers).max()),
        }
        pairs = zip(done, runs["ours"], strict=True)
        row[engine]["ratio"] = statistics.median(one["seconds"] / our["seconds"] for one, our in pairs)
    return row


def main() -> int:
    """Compare the engines; 0 when the numbers agree and ours is faster than pycocotools."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a fiftieth of the images, one round: seconds")
    parser.add_argument("--images", type=int, default=5000, help="of 100 detections each (default: 5000)")
    parser.add_argument("--categories", type=int, nargs="+", default=[1, 80], help="numbers of them (default: 1 80)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each engine, by turns (default: 3)")
    parser.add_argument("--peers", nargs="+", default=list(ENGINES[1:]), choices=ENGINES[1:], help="to compare with")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--engine", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--iou-type", choices=("bbox", "segm"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rounds < 1 or arguments.images < 1:
        parser.error("--rounds and --images must be 1 or more")
    if arguments.engine:
        [categories] = arguments.categories
        print(json.dumps(run_in_this_process(arguments.engine, arguments.iou_type, arguments.images, categories)))
        return 0
    load_before = os.getloadavg()[0]
    images, rounds = (arguments.images // 50, 1) if arguments.small else (arguments.images, arguments.rounds)
    print(
        f"{'IoU':>4} {'categories':>10} {'engine':>16} {'s':>7} {'times ours':>10} {'objects MiB':>11} "
        f"{'added MiB':>9} {'difference':>10}"
    )
    rows = []
    for categories in arguments.categories:
        for iou_type in ("bbox", "segm"):
            rows.append(measure(["ours", *arguments.peers], iou_type, images, categories, rounds))
            for engine in ("ours", *arguments.peers):
                one = rows[-1][engine]
                print(
                    f"{iou_type:>4} {categories:>10} {engine:>16} {one['seconds']:>7.2f} {one['ratio']:>10.1f} "
                    f"{one['objects_bytes'] / 2**20:>11.0f} {one['added_bytes'] / 2**20:>9.0f} "
                    f"{one['largest_difference']:>10.1e}",
                    flush=True,
                )
    if arguments.output:
        write_results(arguments.output, "evaluate", {"rounds": rounds, "rows": rows}, load_before)
    peers = [row[engine] for row in rows for engine in arguments.peers]
    is_equal = all(one["largest_difference"] < LARGEST_DIFFERENCE for one in peers)
    is_faster = all(row["pycocotools"]["ratio"] > 1 for row in rows if "pycocotools" in row)
    print("the numbers", "agree" if is_equal else "DIFFER", "and ours is", "faster" if is_faster else "SLOWER")
    return 0 if is_equal and is_faster else 1


if __name__ == "__main__":
    sys.exit(main())
