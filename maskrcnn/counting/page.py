"""What counting leaves in a site: ``counts.html``, ``counts.parquet`` with every count, ``counts.json`` for alerts."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from maskrcnn import storage
from maskrcnn.counting.counts import COUNT_FIELDS, count_instances
from maskrcnn.counting.drift import Drift, find_drift
from maskrcnn.counting.shelves import EmptyShelf, find_empty_shelves
from maskrcnn.counting.trends import DriftRule, Trend
from maskrcnn.errors import InputError
from maskrcnn.labelling.current import CurrentRows
from maskrcnn.labelling.groups import Group, parse_grouping
from maskrcnn.report.photos import load_photo, locate
from maskrcnn.report.pictures import to_jpeg
from maskrcnn.report.site import Site

PAGE, PARQUET, JSON = "counts.html", "counts.parquet", "counts.json"
MOST_GROUPS_SHOWN = 200
MOST_SHELVES_LISTED = 1000
MOST_PICTURES = 24
PICTURE_PX = 480
SPARK_WIDTH, SPARK_HEIGHT = 100.0, 24.0

_PHOTOS_AT_ONCE = 4


@dataclass(frozen=True)
class CountsReport:
    """What was counted and found."""

    predictions_uri: str
    group_names: tuple[str, ...]
    table: pa.Table
    """Every count, as `Counts.to_table` gives it."""
    num_images: int
    num_failed: int
    num_instances: int
    num_undated: int
    """Images without a date where others have one, labelled and failed: they are in no night."""
    drift: Drift
    num_empty_shelves: int
    empty_shelves: list[tuple[EmptyShelf, str]]
    """The emptiest, with their images' URIs; at most `MOST_SHELVES_LISTED`."""

    @property
    def has_drift(self) -> bool:
        """Say whether somebody should look: a group's counts have changed, or it is gone, dark or sparse."""
        drift = self.drift
        return bool(drift.drifting or drift.vanished_groups or drift.dark_groups or drift.sparse_groups)

    @property
    def failed_groups(self) -> list[Group]:
        """Give the dark groups that have not vanished: all their images failed."""
        return [group for group in self.drift.dark_groups if group not in self.drift.vanished_groups]

    def label(self, group: Group) -> str:
        """Name a group for people."""
        words = ("none" if value is None else value for value in group)
        return " · ".join(words) if group else "all images"


def count_nights(
    predictions_uri: str,
    by: Sequence[str],
    *,
    night: str | None = None,
    rule: DriftRule | None = None,
    on_progress: Callable[[int, int], None] = lambda num_done, num_images: None,
) -> CountsReport:
    """Count a labelled folder by groups and nights, and judge a night.

    Args:
        predictions_uri: the OUTPUT of a labelling job.
        by: columns of its table, and regular expressions over the URI with named groups; one named date tells nights
            apart, in place of the table's folders.
        night: which date is judged by those before it; None: the newest that is not in the future.
        rule: what counts as drift.
        on_progress: told the images read so far, and all there are.

    Raises:
        InputError: no table, no images, groups that cannot be, or a night that is not there.
        StorageError: what cannot be read.
    """
    rows = CurrentRows(predictions_uri, by_date=True)
    if not len(rows):
        raise InputError("--predictions", "must hold an image, and holds none yet", predictions_uri)
    grouping = parse_grouping(by, rows, reserved=[field.name for field in COUNT_FIELDS])
    counts = count_instances(rows, grouping, on_progress)
    if night is not None and night not in counts.dates:
        rule_of_night = f"must be one of {', '.join(counts.dates) or 'no date'}, got {night}"
        raise InputError("--night", rule_of_night, predictions_uri)
    drift = find_drift(counts, rule or DriftRule(), night, datetime.now(UTC).date())
    shelves = find_empty_shelves(counts, drift.night, drift.nights_before)
    return CountsReport(
        predictions_uri,
        counts.group_names,
        counts.to_table(),
        int(counts.num_images.sum()),
        int(counts.num_failed.sum()),
        int(counts.sums[..., 0].sum()),
        counts.num_undated,
        drift,
        len(shelves),
        _read_uris(rows, shelves[:MOST_SHELVES_LISTED]),
    )


def write_counts(site: Site, report: CountsReport, images_uri: str | None = None) -> None:
    """Write what was counted into a site.

    Args:
        site: where to; its navigation names `PAGE`.
        report: what was counted.
        images_uri: the folder below which the images are found by the end of their names; None: they lie where they
            lay.

    Raises:
        StorageError: what cannot be read or written.
    """
    site.write_assets("tables.css")
    site.write(PARQUET, _to_parquet(report.table))
    site.write(JSON, json.dumps(to_json(report), indent=2, allow_nan=False).encode())
    drift, shown = report.drift, report.empty_shelves[:MOST_PICTURES]
    photo_uris = locate([uri for _, uri in shown], images_uri)
    table_uri = storage.normalise(report.predictions_uri if images_uri is None else images_uri)
    pictures = list(_write_pictures(site, shown, photo_uris, table_uri))
    site.write_page(
        PAGE,
        "counts.html",
        report=report,
        drift=drift,
        label=report.label,
        trends=[(trend, to_spark(trend)) for trend in drift.totals[:MOST_GROUPS_SHOWN]],
        drifting=[(trend, to_spark(trend)) for trend in drift.drifting[:MOST_GROUPS_SHOWN]],
        pictures=pictures,
    )


def to_json(report: CountsReport) -> dict[str, Any]:
    """Give what was found as JSON types; ``alert`` holds the numbers that a monitor watches."""
    drift = report.drift

    def named(group: Group) -> dict[str, str | None]:
        return dict(zip(report.group_names, group, strict=True))

    def trend(one: Trend) -> dict[str, Any]:
        numbers = {"rate": one.rate, "usual": one.usual, "z": one.z, "change": one.change}
        rounded = {name: None if value is None else round(value, 6) for name, value in numbers.items()}
        return {"group": named(one.group), "category": one.category, "num_images": one.num_images} | rounded

    return {
        "night": drift.night,
        "nights_before": list(drift.nights_before),
        "alert": {
            "drift_share": round(drift.drift_share, 6),
            "num_drifting": len(drift.drifting),
            "num_judged": drift.num_judged,
            "num_vanished_groups": len(drift.vanished_groups),
            "num_dark_groups": len(drift.dark_groups),
            "num_sparse_groups": len(drift.sparse_groups),
            "num_unjudged_groups": len(drift.unjudged_groups),
            "num_empty_shelves": report.num_empty_shelves,
        },
        "min_z": round(drift.min_z, 6),
        "future_nights": list(drift.future_nights),
        "images": {
            "labelled": report.num_images,
            "failed": report.num_failed,
            "instances": report.num_instances,
            "undated": report.num_undated,
        },
        "drifting": [trend(one) for one in drift.drifting],
        "new_groups": [named(group) for group in drift.new_groups],
        "vanished_groups": [named(group) for group in drift.vanished_groups],
        "dark_groups": [named(group) for group in drift.dark_groups],
        "sparse_groups": [
            {
                "group": named(one.group),
                "num_images": one.num_images,
                "num_failed": one.num_failed,
                "usual_images": one.usual_images,
            }
            for one in drift.sparse_groups
        ],
        "unjudged_groups": [named(group) for group in drift.unjudged_groups],
        "empty_shelves": [
            {"image_uri": uri, "group": named(one.group), "count": one.count, "usual": one.usual}
            for one, uri in report.empty_shelves
        ],
    }


def to_spark(trend: Trend) -> dict[str, Any]:
    """Draw a group's rates as points of a small line, its usual rate as a height; None where there is none."""
    known = [rate for rate in trend.rates if rate is not None]
    top = max([*known, trend.usual or 0.0, 1e-9])
    step = SPARK_WIDTH / max(len(trend.rates) - 1, 1)

    def height(rate: float) -> float:
        return round(SPARK_HEIGHT * (1 - rate / top), 2)

    points = [(round(step * place, 2), height(rate)) for place, rate in enumerate(trend.rates) if rate is not None]
    return {
        "points": " ".join(f"{x},{y}" for x, y in points),
        "usual": None if trend.usual is None else height(trend.usual),
    }


def _read_uris(rows: CurrentRows, shelves: Sequence[EmptyShelf]) -> list[tuple[EmptyShelf, str]]:
    """Give shelves their images' URIs."""
    is_wanted = np.zeros(len(rows), np.bool_)
    is_wanted[[one.place for one in shelves]] = True
    found: dict[int, str] = {}
    for places, batch in rows.batches(("image_uri",), is_wanted=is_wanted, batch_size=8192):
        found |= dict(zip(places.tolist(), batch["image_uri"].to_pylist(), strict=True))
    return [(one, found[one.place]) for one in shelves]


def _write_pictures(
    site: Site,
    shelves: Sequence[tuple[EmptyShelf, str]],
    photo_uris: Sequence[str | None],
    table_uri: str,
) -> Iterator[dict[str, Any]]:
    def draw(photo_uri: str | None) -> bytes | None:
        photo = None if photo_uri is None else load_photo(photo_uri, table_uri)
        if photo is None:
            return None
        picture = Image.fromarray(photo)
        picture.thumbnail((PICTURE_PX, PICTURE_PX))
        return to_jpeg(picture, quality=85)

    with ThreadPoolExecutor(_PHOTOS_AT_ONCE) as threads:
        for place, ((shelf, uri), picture) in enumerate(zip(shelves, threads.map(draw, photo_uris), strict=True)):
            name = f"shelves/{place:03d}.jpg"
            if picture is not None:
                site.write(name, picture)
            yield {"shelf": shelf, "uri": uri, "picture": None if picture is None else name}


def _to_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
