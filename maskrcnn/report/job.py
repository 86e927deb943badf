"""One report: a look at every row, a gallery of some, and the pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskrcnn import storage
from maskrcnn.coco.annotations import CocoDataset, load_coco
from maskrcnn.coco.categories import check_category_names
from maskrcnn.errors import InputError, StorageError
from maskrcnn.labelling.coco_results import match_images
from maskrcnn.labelling.current import CurrentRows
from maskrcnn.log_lines import new_run_id
from maskrcnn.printable import printable
from maskrcnn.report.charts import Chart
from maskrcnn.report.curves import build_curves, load_training
from maskrcnn.report.gallery import COLUMNS, Source, Truth, file_names, gallery_files
from maskrcnn.report.index import GalleryIndex
from maskrcnn.report.overview import build_cards, build_charts, by_frequency
from maskrcnn.report.pictures import find_below
from maskrcnn.report.runs import load_runs
from maskrcnn.report.sample import choose_images
from maskrcnn.report.scores import build_scores, load_metrics
from maskrcnn.report.settings import ReportConfig
from maskrcnn.report.site import Site, check_folder, script
from maskrcnn.report.tally import COLUMNS as TALLIED
from maskrcnn.report.tally import Tally

MARKER, MADE_BY = "report.json", "maskrcnn report"
"""A file that says whose folder this is, since a report replaces what an earlier one left there."""
ROWS_AT_ONCE = 1024
MOST_CATEGORIES = 500
MOST_RUNS = 100
SCRIPTS = ("gallery.css", "columns.js", "address.js", "marks.js", "viewer.js", "gallery.js")


@dataclass(frozen=True)
class Report:
    """What a report says, in short."""

    uri: str
    """Of its first page."""
    num_images: int
    num_shown: int
    num_without_picture: int
    """Labelled images whose photo could not be read."""


def write_report(
    config: ReportConfig,
    on_progress: Callable[[int, int], None] = lambda num_done, num_images: None,
    write_more: Callable[[Site], None] = lambda site: None,
) -> Report:
    """Write a report of a predictions table.

    Args:
        config: of what, and where to.
        on_progress: told the images of the gallery that are done, and all that will be.
        write_more: writes the `more_pages` of the configuration, before the gallery, which takes longest.

    Raises:
        InputError: there is no table, what was given beside it does not fit, or the output is something else's.
        StorageError: what cannot be read or written.
    """
    rows = CurrentRows(config.predictions_uri)
    metrics = None if config.metrics_uri is None else load_metrics(config.metrics_uri)
    training = None if config.training_uri is None else load_training(config.training_uri)
    truth = None if config.annotations_uri is None else _load_truth(rows, config)
    names = (
        {} if truth is None else dict(zip(truth.dataset.categories.ids, truth.dataset.categories.names, strict=True))
    )

    tally, is_chosen = _survey(rows, truth, config)
    found_names = {category_id: one.name for category_id, one in tally.categories.items()}
    if truth is not None:
        check_category_names(found_names, rows.uri, truth.dataset.categories, truth.dataset.place)
    names |= found_names
    names = {category_id: printable(name) for category_id, name in names.items()}

    site = _open_site(config, has_scores=metrics is not None, has_training=training is not None)
    write_more(site)
    site.record()
    index = GalleryIndex(new_run_id(datetime.now(UTC)))
    num_shown = int(is_chosen.sum())
    site.record(*file_names(index.folder, num_shown))
    files = None if config.images_uri is None else _find_images(rows, is_chosen, config.images_uri)
    table_uri = storage.normalise(config.predictions_uri)
    batches = rows.batches(COLUMNS, is_wanted=is_chosen)
    made = gallery_files(batches, index, Source(table_uri, files, config.max_pixels), truth)
    site.write_many(_telling(made, lambda: on_progress(len(index), num_shown)))

    if metrics is not None:
        by_text = {str(category_id): name for category_id, name in names.items()}
        scores = build_scores(metrics, by_text, str(config.metrics_uri))
        _write_plots(site, [chart for one in scores for chart in one.charts])
        site.write_page("scores.html", "scores.html", all_scores=scores)
    if training is not None:
        charts = build_curves(training)
        _write_plots(site, charts)
        site.write_page("training.html", "training.html", charts=charts, num_steps=training[-1]["step"])
    _write_overview(site, tally, config, num_shown)
    site.write_page(
        "gallery.html", "gallery.html", num_shown=num_shown, num_images=len(rows), has_truth=truth is not None
    )
    # Until here a reader sees the whole earlier gallery, from here on the whole new one.
    site.write("gallery/index.js", script("index", index.to_value(names)))
    site.remove_earlier()
    site.write(MARKER, json.dumps(_summary(config, tally, num_shown), indent=2).encode())
    return Report(storage.join(site.uri, "index.html"), tally.num_images, num_shown, index.num_without_picture)


def _telling(made: Iterable[tuple[str, bytes]], tell: Callable[[], None]) -> Iterator[tuple[str, bytes]]:
    for file in made:
        yield file
        tell()


def _open_site(config: ReportConfig, *, has_scores: bool, has_training: bool) -> Site:
    """Claim the folder, before anything is written into it."""
    uri = storage.normalise(config.output_uri)
    check_folder(uri, MARKER, MADE_BY)
    pages = [("index.html", "Overview"), ("gallery.html", "Gallery")]
    if has_scores:
        pages.append(("scores.html", "Scores"))
    if has_training:
        pages.append(("training.html", "Training"))
    pages += config.more_pages
    site = Site(uri, f"Report of {config.predictions_uri.rstrip('/')}", pages)
    site.remember_earlier()
    site.write(MARKER, json.dumps({"made_by": MADE_BY}).encode())
    site.write_assets(*SCRIPTS)
    return site


def _load_truth(rows: CurrentRows, config: ReportConfig) -> Truth:
    try:
        dataset = load_coco(str(config.annotations_uri))
    except StorageError as error:
        raise InputError("--annotations", f"cannot be read: {error.reason}", error.uri) from error
    keys = rows.read(["image_uri", "image_id"])
    folder = config.images_uri if _is_folder_of_file_names(config.images_uri, keys, dataset) else None
    image_ids, is_known = match_images(keys, dataset, rows.uri, folder)
    if not dataset.num_images:
        raise InputError("--annotations", "must have images, and has none", dataset.place)
    if len(keys) and not is_known.any():
        rule = f"must be of images in the table, by image_id or file_name, and none is, as {dataset.file_names[0]}"
        raise InputError("--annotations", rule, dataset.place)
    index_of = {image_id: index for index, image_id in enumerate(dataset.image_ids.tolist())}
    places = np.flatnonzero(is_known).tolist()
    return Truth(dataset, {place: index_of[int(image_ids[place])] for place in places})


def _is_folder_of_file_names(images_uri: str | None, keys: pa.Table, dataset: CocoDataset) -> bool:
    """Say whether the truth's file names are relative to where the photos are: these may have moved since."""
    if images_uri is None:
        return False
    root = storage.normalise(images_uri) + "/"
    return not {f"{root}{name}" for name in dataset.file_names}.isdisjoint(keys["image_uri"].to_pylist())


def _survey(rows: CurrentRows, truth: Truth | None, config: ReportConfig) -> tuple[Tally, NDArray[np.bool_]]:
    """Look at every row, and choose those of the gallery."""
    tally = Tally()
    is_failed = np.zeros(len(rows), np.bool_)
    for places, batch in rows.batches(TALLIED, batch_size=ROWS_AT_ONCE):
        tally.add(batch)
        is_failed[places] = pc.not_equal(batch["status"], "ok").to_numpy()
    is_judged = np.zeros(len(rows), np.bool_)
    if truth is not None:
        is_judged[list(truth.image_indices)] = True
    return tally, choose_images(is_failed, is_judged, config.max_images, config.seed)


def _find_images(rows: CurrentRows, is_chosen: NDArray[np.bool_], images_uri: str) -> dict[str, str]:
    uris: list[str] = []
    for _, batch in rows.batches(["image_uri"], is_wanted=is_chosen, batch_size=ROWS_AT_ONCE):
        uris += batch["image_uri"].to_pylist()
    found = find_below(images_uri, uris)
    if uris and not found:
        rule = f"must hold images of the table, by the end of their names, and holds none, as {uris[0]}"
        raise InputError("--images", rule, images_uri)
    return found


def _write_overview(site: Site, tally: Tally, config: ReportConfig, num_shown: int) -> None:
    runs, num_records = load_runs(config.predictions_uri, config.price_per_hour)
    charts = build_charts(tally, runs)
    _write_plots(site, charts)
    categories = by_frequency(tally)
    site.write_page(
        "index.html",
        "overview.html",
        cards=build_cards(tally, runs),
        charts=charts,
        tally=tally,
        failures=sorted(tally.failures.items(), key=lambda item: -item[1].num_images),
        categories=categories[:MOST_CATEGORIES],
        num_more_categories=max(0, len(categories) - MOST_CATEGORIES),
        runs=runs[:MOST_RUNS],
        num_runs=len(runs),
        num_records=num_records,
        num_shown=num_shown,
    )


def _write_plots(site: Site, charts: list[Chart]) -> None:
    for chart in charts:
        site.write(f"plots/{chart.name}.png", chart.png)


def _summary(config: ReportConfig, tally: Tally, num_shown: int) -> dict[str, Any]:
    return {
        "made_by": MADE_BY,
        "predictions": config.predictions_uri,
        "images": tally.num_images,
        "labelled": tally.num_labelled,
        "failed": tally.num_failed,
        "detections": tally.num_detections,
        "shown": num_shown,
    }
