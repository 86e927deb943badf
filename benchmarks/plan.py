"""Time the driver's planning on real OUTPUT folders: some with much of the input planned, one with a year of dates.

Each case is planned in a process of its own, so that its peak memory is a driver's and not the generator's. It answers
the job's own protocol from disk, request by request, up to where the parts would be labelled. Twice: by a process that
only plans, and is given its listing; and by one that has imported what a driver imports, and lists a manifest Parquet.
Ends 1 when listing and planning take longer or hold more than they should.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from machine import peak_rss_bytes, rss_bytes, write_results

from maskrcnn.errors import TRANSIENT_KINDS
from maskrcnn.labelling import protocol
from maskrcnn.labelling.backlog import MAX_ROWS_PER_PLAN, Backlog
from maskrcnn.labelling.manifest import Manifest
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan_files import PlanHeader, num_rows_by_date
from maskrcnn.labelling.row_groups import open_parquet, read_batches

ROWS_PER_PART = 2048
SETTINGS = {"bundle_sha256": "0" * 64}
LIMIT_S = 120.0
"""Of a driver, to list and to plan."""
LIMIT_BYTES = 2 << 30
"""Of a driver, all its imports included."""
FIRST_DATE = date(2025, 11, 22)
PLAN_BYTES_PER_KEY = 30  # on disk, to see whether there is room
DATE_PATTERN = r"dt=(\d{4}-\d{2}-\d{2})/"


@dataclass(frozen=True)
class Case:
    """What lies in an OUTPUT, and what is listed."""

    name: str
    dates: int
    """Planned and labelled before, a plan a date."""
    keys: int
    """Listed now; and, where there are dates, planned for each of them."""
    planned_of_listed: int
    """Of the listed keys, how many a plan holds already."""


def build_manifest(day: str, num_keys: int) -> pa.Table:
    """Make a day's listing: keys as a camera fleet writes them, MD5-like etags that do not compress."""
    places = np.arange(num_keys)
    rng = np.random.default_rng(int(day.replace("-", "")))
    digits = np.frombuffer(rng.bytes(num_keys * 16).hex().encode(), np.uint8)
    offsets = pa.py_buffer(np.arange(num_keys + 1, dtype=np.int32) * 32)
    number = pc.utf8_lpad(pa.array(places).cast(pa.string()), 7, "0")
    store = pc.utf8_lpad(pa.array(places % 1999).cast(pa.string()), 4, "0")
    pieces = (f"s3://shelf-photos-eu-central-1/raw/dt={day}/store=", store, "/cam-03/", number, "T083112Z.jpg", "")
    return pa.table(
        {
            "image_uri": pc.binary_join_element_wise(*pieces),
            "etag": pa.StringArray.from_buffers(num_keys, offsets, pa.py_buffer(digits)),
            "size": pa.array(rng.integers(200_000, 900_000, num_keys)),
        }
    )


def put_labelled(output_uri: str, number: int, rows: pa.Table, day: str) -> int:
    """Put a plan, and an empty file for each part that its run made; planning never opens those.

    Returns:
        The plan's bytes.
    """
    count = len(rows)
    rows = rows.append_column("date", pa.array([day]).take(pa.array(np.zeros(count, np.int8))))
    rows = rows.append_column("attempt", pa.array(np.ones(count, np.int16)))
    rows = rows.append_column("part", pa.array((np.arange(count) // ROWS_PER_PART).astype(np.int32)))
    header = PlanHeader(f"run-{number}", SETTINGS, ROWS_PER_PART, num_rows_by_date(rows))
    output = Output(output_uri)
    output.put_plan(number, rows, header)
    parts = header.parts(number)
    Path(output.part_uri(parts[0])).parent.mkdir(parents=True, exist_ok=True)
    for part in parts:
        Path(output.part_uri(part)).touch()
    return Path(output.plan_uri(number)).stat().st_size


def put_labelled_date(output_uri: str, number: int, num_keys: int) -> int:
    """Put the plan and the parts of a whole date."""
    day = str(FIRST_DATE + timedelta(days=number - 1))
    return put_labelled(output_uri, number, build_manifest(day, num_keys), day)


def generate(case: Case, folder: Path, num_processes: int) -> dict[str, Any]:
    """Write the OUTPUT and the listing of a case."""
    output_uri, day = str(folder / "output"), str(FIRST_DATE + timedelta(days=case.dates))
    manifest = build_manifest(day, case.keys)
    pq.write_table(manifest, folder / "manifest.parquet")
    pq.write_table(manifest.append_column("date", pa.array(np.full(case.keys, day))), folder / "listed.parquet")
    # Fresh processes: Arrow's threads do not survive a fork.
    with ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn")) as pool:
        numbers = range(1, case.dates + 1)
        sizes = list(pool.map(partial(put_labelled_date, output_uri, num_keys=case.keys), numbers))
    if case.planned_of_listed:
        chosen = np.sort(np.random.default_rng(1).permutation(case.keys)[: case.planned_of_listed])
        for start in range(0, len(chosen), MAX_ROWS_PER_PLAN):
            rows = manifest.take(pa.array(chosen[start : start + MAX_ROWS_PER_PLAN]))
            sizes.append(put_labelled(output_uri, len(sizes) + 1, rows, day))
    return {"plans_bytes": sum(sizes), "plans": len(sizes)}


def plan_in_this_process(folder: Path, as_driver: bool) -> dict[str, Any]:
    """Answer the protocol of one run from the OUTPUT on disk, timing every request.

    Args:
        folder: the case.
        as_driver: list with the job's own code, in a process that has loaded torch and Ray; else the listing is given.
    """
    seconds: dict[str, float] = {}

    def timed(name: str, begin: float) -> None:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin

    if as_driver:
        from maskrcnn.labelling import job  # noqa: F401  what a driver imports is part of its memory
        from maskrcnn.labelling.listing import list_manifest

    imported_bytes, begin = rss_bytes(), time.perf_counter()
    if as_driver:
        manifest = list_manifest(str(folder / "manifest.parquet"), date_from=DATE_PATTERN)
    else:
        with (folder / "listed.parquet").open("rb") as file:
            manifest = Manifest(read_batches(open_parquet(file)), may_repeat=False)
    listing_seconds, listed_bytes = time.perf_counter() - begin, peak_rss_bytes()
    begin_wall, begin_cpu = time.perf_counter(), time.process_time()
    output = Output(str(folder / "output"))

    def answer(request: Any) -> Any:
        match request:
            case protocol.ListPlans():
                return output.list_plans()
            case protocol.ReadPlans(numbers):
                return output.read_planned(numbers, manifest.dates)
            case protocol.ReadFailed(kinds):
                return output.read_failed(kinds, manifest.dates)
            case protocol.PutPlan(number, rows, token):
                header = PlanHeader(token, SETTINGS, ROWS_PER_PART, num_rows_by_date(rows))
                return output.put_plan(number, rows, header)
            case protocol.ReadParts(numbers):
                return output.read_parts(numbers)
            case protocol.ListParts():
                return output.list_parts()
        raise TypeError(f"no answer to {request}")

    steps = protocol.run_driver(Backlog(manifest, ROWS_PER_PART), "benchmark", TRANSIENT_KINDS)
    begin, request = time.perf_counter(), next(steps)
    while not isinstance(request, protocol.MakeParts):
        timed("read plans and decide", begin)
        name, begin = type(request).__name__, time.perf_counter()
        reply = answer(request)
        timed(name, begin)
        begin = time.perf_counter()
        request = steps.send(reply)
    timed("read plans and decide", begin)
    return {
        "seconds": time.perf_counter() - begin_wall,
        "cpu_seconds": time.process_time() - begin_cpu,
        "listing_seconds": listing_seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_rss_after_listing_bytes": listed_bytes,
        "rss_after_imports_bytes": imported_bytes,
        "images_to_label": sum(part.num_images for part in request.parts),
        "parts_to_make": len(request.parts),
        "seconds_by_step": {name: round(value, 3) for name, value in seconds.items()},
    }


def run_worker(*flags: str) -> dict[str, Any]:
    """Plan in a fresh process, and give its figures."""
    done = subprocess.run([sys.executable, __file__, *flags], check=True, stdout=subprocess.PIPE)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def forget_run(output: Output, num_plans: int) -> None:
    """Take back what a planning run wrote, so that the next finds the same."""
    for number in output.list_plans():
        if number > num_plans:
            Path(output.plan_uri(number)).unlink()


def measure(case: Case, runs: int, num_processes: int, within: Path | None) -> dict[str, Any]:
    """Generate a case, plan it in fresh processes, delete it; the median run is kept."""
    folder = Path(tempfile.mkdtemp(prefix="plan-", dir=within))
    try:
        begin = time.perf_counter()
        generated = generate(case, folder, num_processes)
        generated["generate_seconds"] = round(time.perf_counter() - begin, 1)
        output = Output(str(folder / "output"))
        results, drivers = [], []
        for _ in range(runs):
            results.append(run_worker("--plan-in", str(folder)))
            forget_run(output, generated["plans"])
            drivers.append(run_worker("--plan-in", str(folder), "--as-driver"))
            forget_run(output, generated["plans"])
    finally:
        shutil.rmtree(folder)
    for some in (results, drivers):
        some.sort(key=lambda one: one["listing_seconds"] + one["seconds"])
    median = results[len(results) // 2]
    expected = case.keys - case.planned_of_listed
    if any(one["images_to_label"] != expected for one in [*results, *drivers]):
        raise SystemExit(f"{case.name}: {median['images_to_label']} images were planned, not {expected}")
    return {
        **vars(case),
        **generated,
        **median,
        "all_seconds": [round(one["seconds"], 3) for one in results],
        "as_driver": drivers[len(drivers) // 2],
    }


def main() -> int:
    """Run the cases; 0 when all are within the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="10 dates of 10,000 keys: seconds instead of minutes")
    parser.add_argument("--dates", type=int, help="that are labelled before (default: 365; 0: not that case)")
    parser.add_argument("--keys", type=int, help="images of a date (default: 1000000)")
    parser.add_argument("--multiples", type=int, nargs="*", default=(1, 3, 10), help="of --keys, nine tenths planned")
    parser.add_argument("--runs", type=int, default=3, help="planning runs a case, of which the median is given")
    parser.add_argument("--processes", type=int, default=2, help="that write the earlier dates")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--plan-in", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--as-driver", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plan_in:
        print(json.dumps(plan_in_this_process(arguments.plan_in, arguments.as_driver)))
        return 0
    dates = arguments.dates if arguments.dates is not None else 10 if arguments.small else 365
    keys = arguments.keys or (10_000 if arguments.small else 1_000_000)
    if dates < 0 or min(keys, arguments.runs, arguments.processes) < 1:
        parser.error("--dates must be 0 or more, --keys, --runs and --processes must be 1 or more")
    needed = max(dates, 0, *(10 * many for many in arguments.multiples)) * keys * PLAN_BYTES_PER_KEY
    free = shutil.disk_usage(arguments.folder or tempfile.gettempdir()).free
    if needed > free:
        parser.error(f"about {needed >> 30} GiB of disk are needed, {free >> 30} GiB are free; see --folder")

    load_before = os.getloadavg()[0]
    cases = [
        *(
            Case("most of the input is planned", dates=0, keys=many * keys, planned_of_listed=many * keys * 9 // 10)
            for many in arguments.multiples
        ),
        Case("a new date after many", dates=dates, keys=keys, planned_of_listed=0),
    ]
    cases = cases if dates else cases[:-1]
    rows = []
    print(
        f"{'':<55} {'planning alone':>25} {'a driver, which lists too':>26}\n"
        f"{'case':<28} {'listed':>8} {'planned':>9} {'new':>7} {'list s':>7} {'plan s':>8} {'peak MiB':>8} "
        f"{'list s':>8} {'plan s':>8} {'peak MiB':>8}"
    )
    for case in cases:
        rows.append(row := measure(case, arguments.runs, arguments.processes, arguments.folder))
        planned = row["dates"] * row["keys"] + row["planned_of_listed"]
        print(
            f"{row['name']:<28} {row['keys']:>8} {planned:>9} {row['images_to_label']:>7} "
            f"{row['listing_seconds']:>7.2f} {row['seconds']:>8.2f} {row['peak_rss_bytes'] / 2**20:>8.0f} "
            f"{row['as_driver']['listing_seconds']:>8.2f} {row['as_driver']['seconds']:>8.2f} "
            f"{row['as_driver']['peak_rss_bytes'] / 2**20:>8.0f}",
            flush=True,
        )
    if arguments.output:
        write_results(arguments.output, "plan", {"rows_per_part": ROWS_PER_PART, "rows": rows}, load_before)
    drivers = [row["as_driver"] for row in rows]
    is_good = all(
        one["listing_seconds"] + one["seconds"] < LIMIT_S and one["peak_rss_bytes"] < LIMIT_BYTES for one in drivers
    )
    print("within" if is_good else "NOT within", f"{LIMIT_S:.0f} s and {LIMIT_BYTES >> 20} MiB")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
