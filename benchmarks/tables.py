"""Write the tables of README.md from the figures under `results/`, between the marks that name each file.

A table stands between `<!-- results/NAME.json -->` and `<!-- end -->`; the text round it is written by hand. `--check`
ends 1 where the README is not what the figures say.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
MARK = re.compile(r"(<!-- results/([\w.]+)\.json -->\n).*?(<!-- end -->)", re.DOTALL)

Row = dict[str, Any]
Columns = dict[str, Callable[[Row], object]]


def mib(num_bytes: float) -> str:
    """Give bytes as MiB."""
    return f"{num_bytes / 2**20:,.0f} MiB"


def span(values: Sequence[float], digits: int = 3) -> str:
    """Give the least and the most of some values."""
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def of_batches(document: Row) -> list[Row]:
    """Give the rows of training, each with its batch and how it compares with torchvision's in the same precision."""
    rows = []
    for batch in document["batches"]:
        for row in batch["rows"]:
            precision = row["way"].split()[1]
            ratio = batch["ratios"].get(f"{row['way']} / torchvision {precision}")
            rows.append({**row, "batch_size": batch["batch_size"], "times": ratio})
    return rows


def of_ways(document: Row) -> list[Row]:
    """Give a row a way, of figures that are kept by way."""
    return [{"way": way, **figures} for way, figures in document["ways"].items()]


def of_summary(document: Row) -> list[Row]:
    """Give a row an entry of the summary."""
    return [{"way": name, **figures} for name, figures in document["summary"].items()]


def of_precisions(document: Row) -> list[Row]:
    """Give a row a way, and then what the same weights score in each precision."""
    predicted = [
        {"way": f"ours fp32, predicted in {name} on {document['num_many']} others", "AP": values, "seconds": None}
        for name, values in document["AP_by_precision"].items()
    ]
    return [*of_ways(document), *predicted]


def of_best_storage(document: Row) -> list[Row]:
    """Give a row a size, each way at the number in flight that suits it best."""
    return [{"size": int(size), **figures} for size, figures in document["best_objects_per_s"].items()]


TABLES: dict[str, tuple[Callable[[Row], list[Row]], Columns]] = {
    "predict": (
        lambda document: document["rows"],
        {
            "way": lambda row: row["way"],
            "photo": lambda row: f"{row['megapixels']} MP",
            "detections": lambda row: f"{row['instances_per_image']:.0f}",
            "batch": lambda row: row["batch_size"],
            "images/s": lambda row: f"{row['images_per_s']:.3f}",
            "of rounds": lambda row: span(row["images_per_s_of_rounds"]),
            "times torchvision fp32": lambda row: f"{row['times_torchvision_fp32']:.2f}",
            "of the arithmetic reached here": lambda row: f"{row['share_of_peak']:.0%}",
        },
    ),
    "pipeline": (
        of_summary,
        {
            "": lambda row: row["way"],
            "images/s": lambda row: f"{row['images_per_s']:.3f}",
            "of the bare loop": lambda row: f"{row['share_of_bare']:.1%}",
            "CPU s an image": lambda row: f"{row['cpu_s_per_image']:.2f}",
            "instances an image": lambda row: f"{row['instances_per_image']:.0f}",
        },
    ),
    "train": (
        of_batches,
        {
            "way": lambda row: row["way"],
            "batch": lambda row: row["batch_size"],
            "images/s": lambda row: f"{row['images_per_s']:.3f}",
            "of rounds": lambda row: span(row["images_per_s_of_rounds"]),
            "times torchvision": lambda row: f"{row['times']:.2f}" if row["times"] else "",
            "peak memory": lambda row: mib(row["peak_bytes"]),
        },
    ),
    "train_quality": (
        of_precisions,
        {
            "way": lambda row: row["way"],
            "segm AP of the seeds": lambda row: ", ".join(f"{value:.4f}" for value in row["AP"]),
            "mean": lambda row: f"{statistics.mean(row['AP']):.4f}",
            "s a training": lambda row: (
                f"{sorted(row['seconds'])[len(row['seconds']) // 2]:.0f}" if row["seconds"] else ""
            ),
        },
    ),
    "masks": (
        lambda document: document["rows"],
        {
            "masks": lambda row: row["num_instances"],
            "image": lambda row: f"{row['width_px']} x {row['height_px']}",
            "ours": lambda row: f"{row['ours_s'] * 1000:.1f} ms",
            "masks/s": lambda row: f"{row['masks_per_s']:,.0f}",
            "paste and encode": lambda row: f"{row['paste_and_encode_s'] * 1000:.0f} ms",
            "times": lambda row: f"{row['ratio']:.0f}",
        },
    ),
    "plan_one_date": (
        lambda document: document["rows"],
        {
            "listed": lambda row: f"{row['keys']:,}",
            "planned before": lambda row: f"{row['planned_of_listed']:,}",
            "planning alone": lambda row: f"{row['seconds']:.1f} s",
            "peak memory": lambda row: mib(row["peak_rss_bytes"]),
            "a driver: listing": lambda row: f"{row['as_driver']['listing_seconds']:.1f} s",
            "planning": lambda row: f"{row['as_driver']['seconds']:.1f} s",
            "peak memory, torch and Ray in it": lambda row: mib(row["as_driver"]["peak_rss_bytes"]),
        },
    ),
    "report": (
        lambda document: document["rows"],
        {
            "images": lambda row: f"{row['num_images']:,}",
            "detections": lambda row: f"{row['num_detections']:,}",
            "built": lambda row: f"{row['build_s']:.0f} s, {row['build_images_per_s']:.0f} images/s",
            "site": lambda row: f"{row['site_files']:,} files, {mib(row['site_bytes'])}",
            "first page": lambda row: f"{row['first_page_s']:.2f} s",
            "a turn of the page": lambda row: f"{statistics.median(row['turn_s']):.2f} s",
            "a move of the slider": lambda row: f"{statistics.median(row['slide_s']):.3f} s",
            "browser": lambda row: mib(row["browser_bytes"]),
            "of it for the report": lambda row: mib(row["page_bytes"]),
            "JavaScript heap": lambda row: mib(row["heap_bytes"]),
        },
    ),
    "storage": (
        of_best_storage,
        {
            "object": lambda row: f"{row['size'] // 1000:,} kB",
            "ours, checked": lambda row: f"{row['ours']:,.0f} GET/s",
            "s3fs": lambda row: f"{row['s3fs']:,.0f} GET/s",
            "times": lambda row: f"{row['times']:.1f}",
        },
    ),
    "scale": (
        of_summary,
        {
            "": lambda row: row["way"].replace("_", " "),
            "predicted images/s": lambda row: f"{row['predicted_images_per_s']:.2f}",
            "measured": lambda row: f"{row['actual_images_per_s']:.2f}",
            "measured over predicted": lambda row: f"{row['ratio']:.3f}",
            "without waits for a core": lambda row: f"{row['undisturbed_ratio']:.3f}",
        },
    ),
}
"""For each file: its rows, and what the columns say of one."""


def table_of(name: str) -> str:
    """Give one file's table in Markdown."""
    rows_of, columns = TABLES[name]
    document = json.loads((FOLDER / "results" / f"{name}.json").read_text())
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join(["---"] * len(columns)) + " |"]
    lines += ["| " + " | ".join(str(cell(row)) for cell in columns.values()) + " |" for row in rows_of(document)]
    return "\n".join(lines) + "\n"


def with_tables(text: str) -> str:
    """Put every table into a text with marks."""
    return MARK.sub(lambda match: f"{match[1]}{table_of(match[2])}{match[3]}", text)


def main() -> int:
    """Write the tables, or check that they are written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where something would be")
    arguments = parser.parse_args()
    readme = FOLDER / "README.md"
    before = readme.read_text()
    after = with_tables(before)
    if arguments.check:
        print(
            "README.md is", "what the figures say" if after == before else "NOT what the figures say: run this script"
        )
        return 0 if after == before else 1
    readme.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
