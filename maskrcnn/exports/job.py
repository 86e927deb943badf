"""One export: checks, a first look, the file, and what there is to say of it."""

from __future__ import annotations

import posixpath
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from maskrcnn import storage
from maskrcnn.coco.annotations import load_coco
from maskrcnn.config import UnusualValueWarning
from maskrcnn.errors import ExistsError, InputError, OutputError, StorageError
from maskrcnn.exports.coco import CocoWriter
from maskrcnn.exports.flat import write_flat
from maskrcnn.exports.rows import Exported
from maskrcnn.exports.selection import Selection
from maskrcnn.exports.settings import ExportConfig
from maskrcnn.exports.survey import Survey, survey_rows
from maskrcnn.labelling.coco_results import match_images
from maskrcnn.labelling.current import CurrentRows


@dataclass
class ExportReport:
    """What an export wrote."""

    output_uri: str
    num_images: int = 0
    num_detections: int = 0
    image_root: str | None = None
    """What file names are relative to."""
    mean_iou: float | None = None
    """Of polygons with their masks; so for the next."""
    worst_iou: float | None = None
    notes: list[str] = field(default_factory=list)
    """What a user should know, a line each."""


def export_predictions(
    config: ExportConfig, on_progress: Callable[[int, int], None] = lambda num_done, num_images: None
) -> ExportReport:
    """Export a predictions table, streaming.

    Args:
        config: what, in which format, where to.
        on_progress: told the images written so far, and all that will be.

    Raises:
        InputError: options that do not fit the table, or an output that exists.
        StorageError: what cannot be read or written.
    """
    report = ExportReport(config.output_uri)
    try:
        with storage.open_output(config.output_uri) as file:
            exported, categories = _look(config, on_progress, report)
            _WRITERS[config.format](file, exported, config, report, categories)
    except ExistsError as error:
        raise OutputError("--output", "exists already", error.uri, "name another, or move it away") from error
    return report


def _look(
    config: ExportConfig, on_progress: Callable[[int, int], None], report: ExportReport
) -> tuple[Exported, dict[int, str]]:
    """Find out what is exported, and which categories there are."""
    rows = CurrentRows(config.predictions_uri)
    selection = Selection(config.score_threshold, config.categories)
    survey = survey_rows(rows, config, selection)
    if not survey.num_images:
        raise InputError("--predictions", "must hold an image that was labelled, and holds none", rows.uri)
    categories = dict(survey.categories)
    if config.bundle_uri is not None:
        from maskrcnn.model.bundle import load_bundle  # torch takes seconds; without a bundle it is not needed

        categories |= {one.id: one.name for one in load_bundle(config.bundle_uri).categories}
    selection.check_categories(categories)
    _warn_of_threshold(config.score_threshold, survey.lowest_score_threshold)
    if survey.num_failed:
        report.notes.append(f"{survey.num_failed:,} images that could not be labelled are left out")
    report.num_images = survey.num_images
    return Exported(rows, survey, selection, on_progress), categories


def _warn_of_threshold(wanted: float | None, labelled_at: float) -> None:
    if wanted is not None and np.float32(wanted) < np.float32(labelled_at):
        text = f"--score-threshold {wanted:g} changes nothing: the table holds scores of {labelled_at:g} or more"
        warnings.warn(text, UnusualValueWarning, stacklevel=2)


def _write_flat(
    file: BinaryIO, exported: Exported, config: ExportConfig, report: ExportReport, categories: dict[int, str]
) -> None:
    report.num_detections = write_flat(file, exported, is_sample=config.sample is not None)


def _write_dataset(
    file: BinaryIO, exported: Exported, config: ExportConfig, report: ExportReport, categories: dict[int, str]
) -> None:
    survey = exported.survey
    root = _image_root(survey, config.image_root_uri)
    image_ids = survey.numbers + 1 if survey.table_ids is None else survey.table_ids
    writer = CocoWriter(exported, config, image_ids)
    report.num_detections = writer.write_dataset(file, categories, root)
    report.image_root = root
    if writer.overlaps.count:
        report.mean_iou, report.worst_iou = writer.overlaps.mean, writer.overlaps.worst
    if writer.num_empty_masks:
        report.notes.append(f"{writer.num_empty_masks:,} detections whose mask has no pixel are left out")
    _note_without_masks(writer, report)


def _write_results(
    file: BinaryIO, exported: Exported, config: ExportConfig, report: ExportReport, categories: dict[int, str]
) -> None:
    if config.annotations_uri is not None:
        image_ids, is_known = _match(exported.rows, config.annotations_uri, config.image_root_uri)
        numbers = np.where(is_known, exported.survey.numbers, -1)
        exported = replace(exported, survey=replace(exported.survey, numbers=numbers))
        if num_foreign := report.num_images - exported.survey.num_images:
            report.notes.append(f"{num_foreign:,} images that are not in {config.annotations_uri} are left out")
        report.num_images = exported.survey.num_images
    elif exported.survey.table_ids is not None:
        image_ids = exported.survey.table_ids
    else:
        rule = "needs an image_id of its own for every image, and the table does not have that"
        remedy = "name the COCO JSON whose ids are meant with --annotations"
        raise InputError("--format coco-results", rule, exported.rows.uri, remedy)
    writer = CocoWriter(exported, config, image_ids)
    report.num_detections = writer.write_results(file)
    _note_without_masks(writer, report)


_WRITERS = {"coco": _write_dataset, "coco-results": _write_results, "flat": _write_flat}


def _match(
    rows: CurrentRows, annotations_uri: str, images_uri: str | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Give each row's image id in the annotations, and whether it has one."""
    try:
        dataset = load_coco(annotations_uri)
    except StorageError as error:
        raise InputError("--annotations", f"cannot be read: {error.reason}", error.uri) from error
    keys = rows.read(["image_uri", "image_id"])
    return match_images(keys, dataset, rows.uri, images_uri, images_option="--image-root")


def _image_root(survey: Survey, image_root_uri: str | None) -> str:
    """Give what is cut off the front of every image's URI."""
    if image_root_uri is None:
        common = posixpath.commonprefix([survey.first_uri, survey.last_uri])
        return common[: common.rfind("/") + 1]
    root = storage.normalise(image_root_uri).rstrip("/") + "/"
    # Between two texts that begin with it, all do.
    for uri in (survey.first_uri, survey.last_uri):
        if not uri.startswith(root):
            raise InputError("--image-root", f"must be a folder that every image is in, and {uri} is not", root)
    return root


def _note_without_masks(writer: CocoWriter, report: ExportReport) -> None:
    if writer.num_without_masks:
        report.notes.append(f"{writer.num_without_masks:,} detections have no mask in the table, and are boxes only")
