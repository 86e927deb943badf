"""A validation laid out: a table for people, worst first, and JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maskrcnn.coco.validate.dataset import Validation
from maskrcnn.coco.validate.findings import Findings, rule_of, severity_of, to_json
from maskrcnn.coco.validate.statistics import count_statistics
from maskrcnn.printable import printable
from maskrcnn.redaction import redact_values

NUM_EXAMPLES = 2
MOST_CATEGORIES = 20


def build_report(validations: dict[str, Validation]) -> dict[str, Any]:
    """Give validations as JSON: the findings of all, and statistics by the name of each."""
    report = to_json([each.findings for each in validations.values()])
    datasets = {}
    for name, validation in validations.items():
        scanned = validation.scanned
        datasets[name] = {
            "annotations": scanned.uri,
            "files_checked": validation.files is not None,
            "statistics": count_statistics(scanned, is_training=validation.is_training) if scanned.is_whole else None,
        }
    return dict(redact_values({**report, "datasets": datasets}))


def format_findings(findings: Findings) -> str:
    """Lay findings out as a table: a line a code with its number and its rule, and the first that are meant."""
    if not findings.counts:
        return f"{printable(findings.file)}: nothing is wrong"
    lines = [f"{printable(findings.file)}: {format_totals(findings)}"]
    for code in findings.codes():
        lines.append(f"  {severity_of(code):8}{findings.counts[code]:>9,}  {code}: {rule_of(code)}")
        lines += [f"{'':21}{printable(str(finding))}" for finding in findings.of_code(code)[:NUM_EXAMPLES]]
    return "\n".join(lines)


def format_totals(findings: Findings) -> str:
    """Say how many errors and warnings there are."""
    return f"{_counted(findings.num('error'), 'error')}, {_counted(findings.num('warning'), 'warning')}"


def format_statistics(name: str, statistics: dict[str, Any]) -> str:
    """Lay a dataset's statistics out for people."""
    sizes, per_image, aspect = (statistics[key] for key in ("sizes", "instances_per_image", "aspect_ratios"))
    lines = [
        f"{name}: {_counted(statistics['images'], 'image')} "
        f"({statistics['images_without_instances']:,} without instances), "
        f"{_counted(statistics['instances'], 'instance')}, {_counted(statistics['crowds'], 'crowd')}, "
        f"{statistics['categories']:,} {'category' if statistics['categories'] == 1 else 'categories'}",
        f"  sizes: {sizes['small']:,} small, {sizes['medium']:,} medium, {sizes['large']:,} large",
    ]
    if per_image:
        lines.append(f"  instances an image: {_format_spread(per_image)}")
    if aspect:
        lines.append(f"  width / height: {_format_spread(aspect)}")
    lines += _format_categories(statistics["instances_by_category"])
    lines += [f"  advice: {line}" for line in statistics["advice"]]
    return "\n".join(lines)


def _format_categories(rows: Sequence[dict[str, Any]]) -> list[str]:
    shown = rows[:MOST_CATEGORIES]
    lines = [f"  {row['instances']:>9,}  {printable(row['name'])} ({row['id']})" for row in shown]
    if len(rows) > len(shown):
        rest = sum(row["instances"] for row in rows[len(shown) :])
        lines.append(f"  {rest:>9,}  in {len(rows) - len(shown):,} more categories")
    return lines


def _format_spread(spread: dict[str, float]) -> str:
    names = ("min", "p10", "median", "p90", "max")
    return ", ".join(f"{name} {spread[name]:g}" for name in names) + f", mean {spread['mean']:g}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
