"""What counting says in a terminal."""

from __future__ import annotations

from maskrcnn.counting.page import CountsReport
from maskrcnn.printable import printable


def describe_counts(report: CountsReport, most_lines: int = 20) -> str:
    """Say in a terminal what was found."""
    drift = report.drift
    lines = [f"{report.num_instances:,} instances in {report.num_images:,} images, {report.num_failed:,} more failed"]
    if report.num_undated:
        lines.append(f"{report.num_undated:,} images have no date, and are in no night")
    if drift.future_nights:
        lines.append(f"left out, in the future: {', '.join(drift.future_nights[:most_lines])}")
    if not drift.nights_before:
        lines.append("no nights to compare: --date-from gives a table folders by date, a named group date does as well")
        return "\n".join(lines)
    lines.append(
        f"night {drift.night} against {len(drift.nights_before)} before: {len(drift.drifting)} of {drift.num_judged} "
        f"groups and categories drift; {report.num_empty_shelves} images are perhaps empty shelves"
    )
    if not drift.is_judged:
        lines.append(f"nothing could be judged: too few nights before {drift.night}, or too few labelled images")
    lines += [
        f"drift: {printable(report.label(one.group))}, {printable(one.category or 'all categories')}: "
        f"{one.rate:.1f} an image, usually {one.usual:.1f}"
        for one in drift.drifting[:most_lines]
    ]
    lines += [f"vanished: {printable(report.label(group))}" for group in drift.vanished_groups[:most_lines]]
    lines += [
        f"dark, every image failed: {printable(report.label(group))}" for group in report.failed_groups[:most_lines]
    ]
    lines += [
        f"sparse: {printable(report.label(one.group))}: {one.num_images:,} images labelled, {one.num_failed:,} failed, "
        f"usually {one.usual_images:g} labelled"
        for one in drift.sparse_groups[:most_lines]
    ]
    if drift.unjudged_groups:
        names = [printable(report.label(group)) for group in drift.unjudged_groups[:most_lines]]
        lines.append(
            f"not judged, too few images or nights before: {len(drift.unjudged_groups):,} of {len(drift.totals):,} "
            f"groups: {', '.join(names)}{', …' if len(drift.unjudged_groups) > most_lines else ''}"
        )
    lines += [f"new: {printable(report.label(group))}" for group in drift.new_groups[:most_lines]]
    lines += [
        f"empty? {printable(uri)}: {one.count}, usually {one.usual:g}" for one, uri in report.empty_shelves[:most_lines]
    ]
    return "\n".join(lines)
