"""Forecast images/s, hours and dollars for any number of workers, and check the forecast against the job itself.

In each round one actor labels a sample through Ray, and its run's record says what an image costs it, stage by stage.
From that alone the job is forecast with one actor and with two, a core each, and then run. Where other work is on the
machine, actors wait for their cores, as the kernel counts (`/proc/PID/task/*/schedstat`); the forecast is compared as
it came, and with that time taken out of both sides. Ends 1 when the latter's median is off by more than 15%.

The table that follows extends what was measured here, and in the records given with --records (a sample on one H200,
one L4, ...), to many workers. It knows no prices: --price gives a worker's hour, by the kind that its record names.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import ray
import torch
from machine import process_tree, write_results
from random_network import write_bundle
from torchvision.io import decode_image

from maskrcnn import cluster
from maskrcnn.config import LabelConfig, PreprocessConfig
from maskrcnn.labelling.costs import load_costs, parse_costs
from maskrcnn.labelling.forecast import ActorCosts, forecast_run
from maskrcnn.labelling.job import label_images
from maskrcnn.progress import clock
from maskrcnn.synthetic import write_shelves

MOST_OFF = 0.15
WORKERS = (1, 2, 4, 8, 16, 32)
ROWS_PER_PART = 2048
HEIGHT, WIDTH = 160, 214
SAMPLE_EVERY_S = 0.25


class CoreWatch:
    """Notes how long actors had to wait for a core, while a job runs."""

    def __init__(self) -> None:
        self._samples: dict[int, list[tuple[float, dict[str, tuple[float, float]]]]] = {}
        """By actor: Unix time, and for each thread the seconds that it has run and has waited so far."""
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> CoreWatch:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watcher.join()

    def waited_share(self, begin: float) -> float:
        """Give the share of the time since then (Unix time) that actors waited for a core."""
        shares = []
        for samples in self._samples.values():
            (first_at, first), (last_at, last) = next(one for one in samples if one[0] >= begin), samples[-1]
            busiest = max(last, key=lambda thread: last[thread][0])
            waited_s = last[busiest][1] - first.get(busiest, (0.0, 0.0))[1]
            shares.append(waited_s / max(last_at - first_at, SAMPLE_EVERY_S))
        return statistics.mean(shares)

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY_S):
            for pid, command in process_tree(os.getpid()).items():
                if command.startswith("ray::MapWorker"):
                    with contextlib.suppress(OSError, ValueError):  # it ended meanwhile
                        self._samples.setdefault(pid, []).append((time.time(), _thread_seconds(pid)))


def _thread_seconds(pid: int) -> dict[str, tuple[float, float]]:
    """Give for each thread of a process how long it ran, and how long it was ready to and had no core."""
    seconds = {}
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        ran_ns, waited_ns, _ = map(int, path.read_text().split())
        seconds[path.parent.name] = (ran_ns / 1e9, waited_ns / 1e9)
    return seconds


def run_job(
    folder: Path, images_uri: str, num_actors: int, rows_per_part: int, sample_uri: str | None
) -> dict[str, Any]:
    """Run the job on a Ray of as many cores as actors, and give its record."""
    cluster.start_local_ray(num_cpus=num_actors)
    watch = CoreWatch()
    try:
        with watch:
            report = label_images(
                LabelConfig(
                    bundle_uri=str(folder / "bundle"),
                    images_uri=images_uri,
                    output_uri=tempfile.mkdtemp(dir=folder, prefix="output-"),
                    num_actors=(num_actors, num_actors),
                    rows_per_part=rows_per_part,
                    device="cpu",
                    forecast_from_uri=sample_uri,
                )
            )
    finally:
        ray.shutdown()
    if not report.is_reconciled or report.record["images"]["failed"]:
        raise SystemExit(f"the job did not label everything: {report.record['images']}")
    begin = datetime.fromisoformat(report.record["started_at"]).timestamp() + report.record["costs"]["startup_s"]
    return {**report.record, "uri": report.record_uri, "waited_share": watch.waited_share(begin)}


def measure_round(folder: Path, num_images: int) -> dict[str, Any]:
    """Measure a sample, forecast one actor and two, and run both."""
    sample = run_job(folder, str(folder / "sample" / "images"), 1, num_images // 2, None)
    round_ = {"costs": sample["costs"], "waited_share": sample["waited_share"], "load_average": os.getloadavg()[0]}
    for num_actors in (1, 2):
        record = run_job(folder, str(folder / "all" / "images"), num_actors, num_images // 4, sample["uri"])
        undisturbed = record["forecast"]["ratio"] * (1 - sample["waited_share"]) / (1 - record["waited_share"])
        round_[f"actors_{num_actors}"] = {
            **record["forecast"],
            "waited_share": record["waited_share"],
            "undisturbed_ratio": undisturbed,
            "own_costs": record["costs"],
        }
    return round_


def write_inputs(folder: Path, num_images: int) -> None:
    """Draw shelves, half as many for the sample, and save a random network that finds many instances in each."""
    for name, count, seed in (("sample", num_images // 2, 1), ("all", num_images, 2)):
        write_shelves(folder / name, count, seed=seed, width=WIDTH, height=HEIGHT, num_boards=3)
    body = next((folder / "sample" / "images").iterdir()).read_bytes()
    image = decode_image(torch.frombuffer(bytearray(body), dtype=torch.uint8))
    write_bundle(folder / "bundle", "resnet18", PreprocessConfig(min_size_px=HEIGHT, max_size_px=267), image)


def summarise(rounds: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Give the medians of each number of actors; the ratio is measured over predicted, within a round."""
    keys = (
        *("predicted_images_per_s", "actual_images_per_s", "ratio", "waited_share", "undisturbed_ratio"),
        *("predicted_seconds", "actual_seconds"),
    )
    return {
        name: {key: statistics.median(one[name][key] for one in rounds) for key in keys}
        for name in ("actors_1", "actors_2")
    }


def scale_up(costs: ActorCosts, num_images: int, price: float | None) -> list[dict[str, Any]]:
    """Forecast a job of so many images for more and more workers of a kind."""
    rows = []
    for num_actors in WORKERS:
        num_parts = -(-num_images // ROWS_PER_PART)
        forecast = forecast_run(costs, num_actors=num_actors, num_images=num_images, num_parts=num_parts)
        rows.append(
            {
                "device": costs.device,
                "threads": costs.num_threads,
                "source": costs.source,
                "actors": num_actors,
                "images_per_s": forecast.images_per_s,
                "mb_per_s": forecast.bytes_per_s / 1e6,
                "limiting_stage": costs.limiting_stage,
                "seconds": forecast.seconds,
                "dollars_per_million": None if price is None else forecast.dollars_per_million(price),
            }
        )
    return rows


def print_table(rows: list[dict[str, Any]], num_images: int) -> None:
    """Print what many workers would do."""
    print(
        f"{'worker':<14} {'number':>6} {'images/s':>9} {'MB/s':>8} {'limited by':>10} {num_images:>13,} in  $/million"
    )
    for row in rows:
        dollars = row["dollars_per_million"]
        price = "--price" if dollars is None else f"{dollars:,.2f}"
        device = f"{row['device']} x {row['threads']}" if row["device"] == "CPU" else row["device"]
        print(
            f"{device:<14} {row['actors']:>6} {row['images_per_s']:>9.1f} {row['mb_per_s']:>8.1f} "
            f"{row['limiting_stage']:>10} {clock(row['seconds']):>16} {price:>10}"
        )


def parse_price(text: str) -> tuple[str, float]:
    """Read KIND=DOLLARS."""
    kind, _, dollars = text.partition("=")
    return kind, float(dollars)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one round of 24 images")
    parser.add_argument("--images", type=int, help="in each forecast run, a multiple of 4 (default: 64)")
    parser.add_argument("--rounds", type=int, help="of which medians are taken (default: 3)")
    parser.add_argument("--work", type=int, default=1_000_000, help="images in the table (default: 1,000,000)")
    parser.add_argument(
        "--records", nargs="*", default=[], help="runs' records of other kinds of workers, for the table"
    )
    parser.add_argument(
        "--price", type=parse_price, nargs="*", default=[], help="of a worker's hour, such as CPU=0.05 H200=3.50"
    )
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    arguments.images = arguments.images or (24 if arguments.small else 64)
    arguments.rounds = arguments.rounds or (1 if arguments.small else 3)
    if arguments.images % 4 or min(arguments.images, arguments.rounds, arguments.work) < 1:
        parser.error("--images must be a multiple of 4, --rounds and --work 1 or more")
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two actors need two cores")
    return arguments


def main() -> int:
    """Run the comparison; 0 when both forecasts come within 15%."""
    arguments = parse_arguments()
    load_before = os.getloadavg()[0]
    # Ray lets its workers give way to other processes; on a machine that is shared, only the job would then wait.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  spelled so by Ray
    prices = dict(arguments.price)
    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        write_inputs(Path(name), arguments.images)
        for number in range(arguments.rounds):
            rounds.append(measure_round(Path(name), arguments.images))
            summary = summarise(rounds)
            newest = ", ".join(f"{rounds[-1][name]['undisturbed_ratio']:.3f}" for name in summary)
            print(f"round {number + 1} of {arguments.rounds}: measured over predicted {newest}", flush=True)
            here = [costs for one in rounds if (costs := parse_costs(one["costs"]))]
            typical = sorted(here, key=lambda costs: costs.image_s)[len(here) // 2]
            kinds = [typical, *map(load_costs, arguments.records)]
            table = [row for costs in kinds for row in scale_up(costs, arguments.work, prices.get(costs.device))]
            if arguments.output:  # after each round: a run that is cut short leaves what it measured
                settings = {"images": arguments.images, "size": [HEIGHT, WIDTH], "backbone": "resnet18"}
                figures = {
                    **settings,
                    "summary": summary,
                    "costs": [asdict(costs) for costs in kinds],
                    "table": table,
                    "rounds": rounds,
                }
                write_results(arguments.output, "scale", figures, load_before)
    print_table(table, arguments.work)
    for name, row in summary.items():
        print(
            f"{name}: predicted {row['predicted_images_per_s']:.2f} images/s, "
            f"measured {row['actual_images_per_s']:.2f}: {row['ratio']:.3f} of it, {row['undisturbed_ratio']:.3f} "
            f"without the {row['waited_share']:.0%} of the time that actors waited for a core"
        )
    is_good = all(abs(row["undisturbed_ratio"] - 1) <= MOST_OFF for row in summary.values())
    print(f"the forecast is {'' if is_good else 'not '}within {MOST_OFF:.0%}")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
