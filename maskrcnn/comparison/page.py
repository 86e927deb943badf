"""What a comparison leaves: ``index.html`` with its pictures, and ``comparison.json`` with every number."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from typing import Any

from maskrcnn import storage
from maskrcnn.comparison.figures import group_label
from maskrcnn.comparison.job import Comparison
from maskrcnn.comparison.pictures import draw_differences
from maskrcnn.printable import printable
from maskrcnn.report.photos import locate
from maskrcnn.report.site import Site, check_folder

PAGE, JSON = "index.html", "comparison.json"
MADE_BY = "maskrcnn compare"
"""Says in the JSON whose folder this is, since a comparison replaces what an earlier one left there."""
MOST_GROUPS_SHOWN = 200


def check_output(output_uri: str) -> None:
    """Refuse a folder that holds something else than an earlier comparison.

    Raises:
        OutputError: naming it.
        StorageError: what cannot be read.
    """
    check_folder(storage.normalise(output_uri), JSON, MADE_BY)


def write_comparison(comparison: Comparison, output_uri: str, images_uri: str | None = None) -> None:
    """Write the page, its pictures and the JSON; what an earlier comparison left is replaced.

    Args:
        comparison: what was found.
        output_uri: the folder.
        images_uri: where the images lie now; None: where they lay.

    Raises:
        OutputError: a folder that holds something else.
        StorageError: what cannot be written.
    """
    check_output(output_uri)
    site = Site(output_uri, "Comparison", [])
    site.remember_earlier()
    site.write(JSON, json.dumps(to_json(comparison), indent=2, allow_nan=False).encode())
    site.write_assets("tables.css")
    pictures = _write_pictures(site, comparison, images_uri)
    site.write_page(
        PAGE,
        "comparison.html",
        comparison=comparison,
        config=comparison.config,
        groups=[
            (group_label(comparison.group_names, group), figures)
            for group, figures in list(comparison.by_group.items())[:MOST_GROUPS_SHOWN]
        ],
        num_groups=len(comparison.by_group),
        pictures=pictures,
    )
    site.remove_earlier()


def _write_pictures(site: Site, comparison: Comparison, images_uri: str | None) -> list[dict[str, Any]]:
    uris = [one.image_uri for one in comparison.worst]
    photo_uris = locate(uris, images_uri)
    table_uri = comparison.config.a_uri if images_uri is None else images_uri
    drawn = draw_differences(comparison.worst, photo_uris, storage.normalise(table_uri))
    names = [(f"pictures/{place:03d}-a.jpg", f"pictures/{place:03d}-b.jpg") for place in range(len(uris))]
    site.record(*itertools.chain.from_iterable(names))
    pictures = []
    for one, picture, (name_a, name_b) in zip(comparison.worst, drawn, names, strict=True):
        site.write_many([(name_a, picture.a), (name_b, picture.b)])
        group = group_label(comparison.group_names, one.group)
        shown = {"difference": one, "is_on_photo": picture.is_on_photo, "group": group}
        pictures.append(shown | {"a": name_a, "b": name_b})
    return pictures


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Give every number of a comparison as JSON types."""
    config, images = comparison.config, comparison.images
    return {
        "made_by": MADE_BY,
        "a": config.a_uri,
        "b": config.b_uri,
        "score_threshold": comparison.score_threshold,
        "images": asdict(images)
        | {"new_errors_share": images.new_errors_share, "left_out_share": images.left_out_share},
        "overall": comparison.overall.to_json(),
        "by_category": {name: figures.to_json() for name, figures in comparison.by_category.items()},
        "by_group": [
            {"group": dict(zip(comparison.group_names, group, strict=True))} | figures.to_json()
            for group, figures in comparison.by_group.items()
        ],
        "worst": [
            {
                "image_uri": one.image_uri,
                "num_lost": one.num_lost,
                "num_gained": one.num_gained,
                "cost": round(one.cost, 6),
            }
            for one in comparison.worst
        ],
        "new_errors": [asdict(one) for one in comparison.new_errors],
        "gate": None
        if comparison.exceeded is None
        else {"is_open": not comparison.exceeded, "exceeded": [asdict(one) for one in comparison.exceeded]},
    }


def describe_comparison(comparison: Comparison, most_groups: int = 20) -> str:
    """Say in a terminal what was found."""
    images = comparison.images
    left_out = {
        "only in A": images.only_a,
        "only in B": images.only_b,
        "of another version": images.other_etag,
        "of another size": images.other_size,
        "failed in B only": images.new_errors,
        "failed in A only": images.mended,
        "failed in both": images.failed_in_both,
    }
    by = "masks" if images.by_masks == images.compared else "boxes" if not images.by_masks else "masks or boxes"
    lines = [
        f"{images.compared:,} images compared by {by}, at a score threshold of {comparison.score_threshold:g}; "
        f"left out: {', '.join(f'{count:,} {reason}' for reason, count in left_out.items() if count) or 'none'}",
        "",
    ]
    rows = [("all", comparison.overall), *comparison.by_category.items()]
    lines += _table("category", rows)
    if comparison.by_group:
        labelled = [(group_label(comparison.group_names, one), two) for one, two in comparison.by_group.items()]
        lines += ["", *_table("group", labelled[:most_groups])]
        if len(labelled) > most_groups:
            lines.append(f"… and {len(labelled) - most_groups:,} groups more that agree better")
    return "\n".join(lines)


_COLUMNS = ("images", "A", "B", "change", "agree", "IoU", "lost", "gained", "score A", "score B")


def _table(title: str, rows: list[Any]) -> list[str]:
    cells = [(title, *_COLUMNS)]
    for name, one in rows:
        cells.append(
            (
                printable(name, 60),
                f"{one.num_images:,}",
                f"{one.num_a:,}",
                f"{one.num_b:,}",
                _share(one.count_change, signed=True),
                _share(one.agreement),
                _number(one.mean_iou),
                f"{one.num_lost:,}",
                f"{one.num_gained:,}",
                _number(one.mean_score_a),
                _number(one.mean_score_b),
            )
        )
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    return [
        "  ".join(
            text.ljust(width) if place == 0 else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]


def _share(value: float | None, *, signed: bool = False) -> str:
    return "–" if value is None else f"{value:+.1%}" if signed else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
