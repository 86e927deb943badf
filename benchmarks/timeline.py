"""Draw what one actor does at each moment: reads, decodes, predictions and puts of the parts that it has in hand.

The worker's own code labels drawn shelves from a local disk, without Ray; `--latency-ms` holds every read and put back,
as a bucket does. Printed is the share of the time, from the first prediction to the last, in which the network ran.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pyarrow as pa
import torch
from machine import describe_device, write_results
from random_network import write_bundle
from torchvision.io import decode_image

from maskrcnn import storage
from maskrcnn.config import PreprocessConfig, ThresholdConfig
from maskrcnn.labelling.labeller import PARTS_IN_HAND
from maskrcnn.labelling.listing import list_manifest
from maskrcnn.labelling.maker import MakerSettings, PartMaker
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan_files import PlanHeader, num_rows_by_date
from maskrcnn.labelling.stages import Span
from maskrcnn.model.bundle import load_bundle
from maskrcnn.model.precision import resolve_device
from maskrcnn.synthetic import write_shelves

COLOURS = {"read": "#9bb7d4", "decode": "#e3b04b", "predict": "#b5482f", "put": "#4d7c57"}


def hold_back(function: Callable[..., Any], latency_s: float) -> Callable[..., Any]:
    """Let a call to the store take longer."""

    def slow(*arguments: Any) -> Any:
        time.sleep(latency_s)
        return function(*arguments)

    return slow


def plan_all(output: Output, images_uri: str, rows_per_part: int) -> PlanHeader:
    """Put one plan of all images, cut into parts."""
    manifest = list_manifest(images_uri)
    rows = pa.Table.from_batches(manifest.batches())
    rows = rows.append_column("attempt", pa.array([1] * len(rows), pa.int16()))
    rows = rows.append_column("part", pa.array([place // rows_per_part for place in range(len(rows))], pa.int32()))
    header = PlanHeader("timeline", {}, rows_per_part, num_rows_by_date(rows))
    output.put_plan(1, rows, header)
    return header


def label(arguments: argparse.Namespace, folder: Path) -> list[Span]:
    """Label drawn shelves, part after part, as an actor does."""
    height, width = (320, 427) if arguments.small else (1080, 1440)
    num_images = arguments.parts * arguments.rows_per_part
    write_shelves(folder, num_images, seed=1, width=width, height=height, num_boards=4)
    body = next((folder / "images").iterdir()).read_bytes()
    image = decode_image(torch.frombuffer(bytearray(body), dtype=torch.uint8))
    sides = {"min_size_px": 320, "max_size_px": 533} if arguments.small else {}
    bundle = load_bundle(write_bundle(folder / "bundle", arguments.backbone, PreprocessConfig(**sides), image))
    output = Output(str(folder / "labels"))
    header = plan_all(output, str(folder / "images"), arguments.rows_per_part)
    settings = MakerSettings(
        bundle_uri=bundle.uri,
        bundle_sha256=bundle.sha256,
        output_uri=output.uri,
        run_id="timeline",
        thresholds=ThresholdConfig(0.05, max_detections=100),
        mask_nms=None,
        slicing=None,
        category_names={category.id: category.name for category in bundle.categories},
        device="auto",
        precision="auto",
        batch_size=arguments.batch_size,
        masks="full",
        max_pixels=10**8,
        num_threads=arguments.threads,
    )
    maker = PartMaker(settings, keeps_spans=True)
    storage.read_object = hold_back(storage.read_object, arguments.latency_ms / 1000)
    storage.put_if_absent = hold_back(storage.put_if_absent, arguments.latency_ms / 1000)
    with ThreadPoolExecutor(PARTS_IN_HAND) as pool:
        summaries = list(pool.map(maker.make, header.parts(1)))
    failures = [one.failure for one in summaries if one.failure]
    if failures:
        raise SystemExit(failures[0])
    return maker.spans


def busy_share(spans: list[Span], stage: str) -> float:
    """Give the share of the time, from a stage's first begin to its last end, in which it ran."""
    pieces = sorted((span.begin, span.end) for span in spans if span.stage == stage)
    busy, until = 0.0, pieces[0][0]
    for begin, end in pieces:
        busy += max(0.0, end - max(begin, until))
        until = max(until, end)
    return busy / (until - pieces[0][0])


def draw(spans: list[Span], path: Path) -> None:
    """Draw a row for each thing that goes on at once, by stage."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    start = min(span.begin for span in spans)
    figure, axes = plt.subplots(figsize=(12, 4))
    lanes: dict[str, list[float]] = defaultdict(list)
    bars = []
    for span in sorted(spans, key=lambda span: span.begin):
        ends = lanes[span.stage]
        lane = next((number for number, end in enumerate(ends) if end <= span.begin), len(ends))
        ends[lane : lane + 1] = [span.end]
        bars.append((span, lane))
    first = 0
    for stage in COLOURS:
        for span, lane in bars:
            if span.stage == stage:
                axes.barh(
                    first + lane, span.end - span.begin, left=span.begin - start, color=COLOURS[stage], height=0.9
                )
        axes.text(-0.01, first + len(lanes[stage]) / 2 - 0.5, stage, transform=axes.get_yaxis_transform(), ha="right")
        first += len(lanes[stage]) + 1
    axes.set(yticks=[], xlabel="seconds")
    axes.invert_yaxis()
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> int:
    """Label, draw, and print how busy the network was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="resnet18 at 320 px, 4 parts of 6 images")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--rows-per-part", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--latency-ms", type=float, default=30, help="of every read and put")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--picture", type=Path, help="draw to this PNG file")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.backbone, arguments.parts, arguments.rows_per_part = "resnet18", 4, 6
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="timeline-") as folder:
        spans = label(arguments, Path(folder))
    start = min(span.begin for span in spans)
    shares = {stage: busy_share(spans, stage) for stage in COLOURS}
    print(
        ", ".join(f"{stage} {share:.1%}" for stage, share in shares.items()), "of the time from its first to its last"
    )
    if arguments.picture:
        draw(spans, arguments.picture)
    if arguments.output:
        settings = {name: getattr(arguments, name) for name in ("backbone", "parts", "rows_per_part", "latency_ms")}
        rows = [{"stage": one.stage, "begin": one.begin - start, "end": one.end - start} for one in spans]
        device = describe_device(resolve_device("auto"))
        write_results(
            arguments.output, "timeline", {"device": device, **settings, "busy": shares, "spans": rows}, load_before
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
