"""Show that exporting needs no more memory for a table ten times as large, and how fast each format is.

Writes tables of random detections as a labelling job leaves them, and exports each in a fresh process. Ends 1 when a
peak, imports included, grows by more than half.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from machine import peak_rss_bytes, rss_bytes, write_results
from numpy.typing import NDArray
from PIL import Image

from maskrcnn import storage
from maskrcnn.coco import rle
from maskrcnn.labelling.columns import INSTANCE_TYPE, SCHEMA
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan import PartId, PlannedPart
from maskrcnn.labelling.table import part_to_parquet

SIZE = (1080, 1920)
DETECTIONS_PER_IMAGE = 100
ROWS_PER_PART = 256
NUM_SHAPES = 400
MOST_GROWTH = 1.5
CASES = {
    "coco, polygons": ("coco", ".json", {}),
    "coco, RLE": ("coco", ".json", {"segmentation": "rle"}),
    "coco-results": ("coco-results", ".json", {}),
    "flat": ("flat", ".parquet", {}),
    "coco, 1,000 least certain": ("coco", ".json", {"sample": 1000}),
}


def draw_shapes(rng: np.random.Generator, size: tuple[int, int]) -> list[tuple[NDArray[np.int64], tuple[int, int]]]:
    """Draw masks of 40 to 80 px a side as a mask head does: a coarse grid resized and cut at a half.

    Returns:
        Run lengths in the image's first corner, and (height, width).
    """
    shapes = []
    y, x = np.mgrid[-1:1:14j, -1:1:14j]
    for _ in range(NUM_SHAPES):
        grid = (1.2 - x**2 - y**2 + rng.normal(0, 0.15, x.shape)).astype(np.float32)
        height, width = (int(side) for side in rng.integers(40, 81, 2))
        resized = np.array(Image.fromarray(grid).resize((width, height), Image.Resampling.BILINEAR))
        mask = np.zeros(size, np.uint8)
        mask[:height, :width] = resized > 0.5
        shapes.append((rle.check_rle(rle.from_mask(mask)), (height, width)))
    return shapes


def place_masks(
    rng: np.random.Generator,
    shapes: list[tuple[NDArray[np.int64], tuple[int, int]]],
    num_masks: int,
    size: tuple[int, int],
) -> tuple[list[bytes], NDArray[np.float32], NDArray[np.int64]]:
    """Put shapes anywhere in the image: as compressed RLE, all different, with boxes (N, 4) XYWH and areas."""
    runs, boxes = [], np.empty((num_masks, 4), np.float32)
    for index, chosen in enumerate(rng.integers(0, NUM_SHAPES, num_masks).tolist()):
        shape, (height, width) = shapes[chosen]
        left, top = int(rng.integers(0, size[1] - width)), int(rng.integers(0, size[0] - height))
        moved = shape.copy()
        moved[0] += left * size[0] + top
        moved[-1] -= left * size[0] + top
        runs.append(moved)
        boxes[index] = left, top, width, height
    offsets = np.cumsum([0, *map(len, runs)])
    areas = np.array([int(one[1::2].sum()) for one in runs])
    return rle.encode_counts_batch(np.concatenate(runs), offsets), boxes, areas


def name_in_bucket(number: int) -> str:
    """Name an image of a made-up bucket."""
    return f"s3://photos/2026-11-22/store-{number % 97:03d}/image-{number:08d}.jpg"


def write_table(
    folder: Path,
    num_images: int,
    *,
    detections_per_image: int = DETECTIONS_PER_IMAGE,
    size: tuple[int, int] = SIZE,
    name_of: Callable[[int], str] = name_in_bucket,
) -> None:
    """Write a table of made-up detections in so many images of one size, (height, width) px."""
    rng = np.random.default_rng(0)
    shapes = draw_shapes(rng, size)
    output = Output(str(folder))
    for part, first in enumerate(range(0, num_images, ROWS_PER_PART)):
        num_rows = min(ROWS_PER_PART, num_images - first)
        num_found = num_rows * detections_per_image
        counts, boxes, areas = place_masks(rng, shapes, num_found, size)
        categories = rng.integers(1, 81, num_found)
        scores = -np.sort(-rng.uniform(0.5, 1, (num_rows, detections_per_image)), axis=1).ravel()
        sides = boxes + rng.uniform(-0.5, 0.5, boxes.shape).astype(np.float32)
        instances = pa.StructArray.from_arrays(
            [
                pa.array(categories, pa.int32()),
                pa.array([f"category {one}" for one in categories.tolist()], pa.string()),
                pa.array(scores, pa.float32()),
                *(pa.array(np.ascontiguousarray(side)) for side in sides.T),
                pa.array(areas, pa.int32()),
            ],
            fields=list(INSTANCE_TYPE),
        )
        offsets = pa.array(np.arange(num_rows + 1) * detections_per_image, pa.int32())
        ids = range(first, first + num_rows)
        columns = {
            "image_uri": [name_of(one) for one in ids],
            "etag": [f"{one:032x}" for one in ids],
            "attempt": [1] * num_rows,
            "image_id": list(ids),
            "width": [size[1]] * num_rows,
            "height": [size[0]] * num_rows,
            "status": ["ok"] * num_rows,
            "error_kind": [None] * num_rows,
            "error_message": [None] * num_rows,
            "num_instances": [DETECTIONS_PER_IMAGE] * num_rows,
            "instances": pa.ListArray.from_arrays(offsets, instances),
            "masks": pa.ListArray.from_arrays(offsets, pa.array(counts, pa.binary())),
            "run_id": ["run"] * num_rows,
            "bundle_sha256": ["0" * 64] * num_rows,
            "score_threshold": [0.5] * num_rows,
            "labelled_at": [0] * num_rows,
        }
        arrays = [
            values if isinstance(values, pa.Array) else pa.array(values, field.type)
            for field, values in zip(SCHEMA, columns.values(), strict=True)
        ]
        planned = PlannedPart(PartId(1, part), None, num_rows)
        storage.put_if_absent(output.part_uri(planned), part_to_parquet(pa.table(arrays, schema=SCHEMA)))


def export_in_this_process(table: Path, case: str, output: Path) -> dict[str, Any]:
    """Export as users do, and give what it cost."""
    from maskrcnn.exports.job import export_predictions
    from maskrcnn.exports.settings import ExportConfig

    form, _, options = CASES[case]
    imported_bytes = rss_bytes()
    begin = time.perf_counter()
    report = export_predictions(ExportConfig(str(table), form, str(output), **options))  # type: ignore[arg-type]
    return {
        "seconds": round(time.perf_counter() - begin, 2),
        "num_detections": report.num_detections,
        "rss_after_imports_bytes": imported_bytes,
        "peak_rss_bytes": peak_rss_bytes(),
        "output_bytes": output.stat().st_size,
        "mean_iou": report.mean_iou,
        "worst_iou": report.worst_iou,
    }


def measure(table: Path, case: str, num_detections: int) -> dict[str, Any]:
    """Export in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="export-", dir=table.parent) as folder:
        output = Path(folder) / f"x{CASES[case][1]}"
        command = [sys.executable, __file__, "--export", str(table), case, str(output)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    expected = min(num_detections, 1000 * DETECTIONS_PER_IMAGE if "sample" in CASES[case][2] else num_detections)
    if figures["num_detections"] != expected:
        raise SystemExit(f"{case}: {figures['num_detections']} detections were exported, not {expected}")
    return {"case": case, "table_detections": num_detections, **figures, "load_average": os.getloadavg()[0]}


def main() -> int:
    """Export tables of every size in every format; 0 when memory stays flat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="20,000 and 100,000 detections")
    parser.add_argument(
        "--detections", type=int, nargs=2, metavar="N", help="the two sizes to compare (default: 100000 1000000)"
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="only these exports")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--export", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.export:
        table, case, output = arguments.export
        print(json.dumps(export_in_this_process(Path(table), case, Path(output))))
        return 0
    sizes = sorted(arguments.detections or ([20_000, 100_000] if arguments.small else [100_000, 1_000_000]))
    if sizes[0] < DETECTIONS_PER_IMAGE or sizes[0] == sizes[1]:
        parser.error(f"--detections must be two different sizes of {DETECTIONS_PER_IMAGE} or more, got {sizes}")

    load_before = os.getloadavg()[0]
    rows: list[dict[str, Any]] = []
    print(f"{'':<26} {'detections':>10} {'s':>6} {'/s':>7} {'peak MiB':>8} {'above imports':>13} {'file MB':>8}")
    with tempfile.TemporaryDirectory(prefix="tables-") as folder:
        for size in sizes:
            table = Path(folder) / str(size)
            write_table(table, size // DETECTIONS_PER_IMAGE)
            for case in arguments.cases:
                row = measure(table, case, size)
                rows.append(row)
                above = (row["peak_rss_bytes"] - row["rss_after_imports_bytes"]) / 2**20
                print(
                    f"{case:<26} {size:>10} {row['seconds']:>6.1f} {size / row['seconds']:>7.0f} "
                    f"{row['peak_rss_bytes'] / 2**20:>8.0f} {above:>13.0f} {row['output_bytes'] / 1e6:>8.1f}",
                    flush=True,
                )
    growth = {}
    for small, large in zip(rows[: len(rows) // 2], rows[len(rows) // 2 :], strict=True):
        growth[small["case"]] = large["peak_rss_bytes"] / small["peak_rss_bytes"]
    is_flat = max(growth.values()) <= MOST_GROWTH
    told = ", ".join(f"{case} x {value:.2f}" for case, value in growth.items())
    print(f"{sizes[1] / sizes[0]:.0f} times the detections: {told}: {'flat' if is_flat else 'NOT flat'}")
    if arguments.output:
        settings = {"image_px": SIZE, "detections_per_image": DETECTIONS_PER_IMAGE, "rows_per_part": ROWS_PER_PART}
        write_results(arguments.output, "export", {**settings, "rows": rows, "growth": growth}, load_before)
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main())
