"""The files of a gallery, image after image: two pictures, and a script with the outlines of what was found in it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from maskrcnn.coco import rle
from maskrcnn.coco.annotations import CocoDataset
from maskrcnn.coco.runs import Counts
from maskrcnn.labelling.current import check_masks
from maskrcnn.labelling.stages import ByteBudget
from maskrcnn.report.index import GalleryIndex, ShownImage
from maskrcnn.report.outcomes import Found, Outcomes, judge
from maskrcnn.report.outlines import trace_rings
from maskrcnn.report.pictures import DECODED_BYTES_IN_FLIGHT, LARGE_PX, Pictures, read_pictures
from maskrcnn.report.site import script

COLUMNS = (
    "image_uri",
    "width",
    "height",
    "status",
    "error_kind",
    "error_message",
    "instances",
    "masks",
)
READS_IN_FLIGHT = 16
MOST_WAITING = 64
TOLERANCE_PX = 0.75
"""Of outlines, in pixels of the large picture."""


@dataclass(frozen=True)
class Truth:
    """The truth, and which of its images each row of the table is."""

    dataset: CocoDataset
    image_indices: dict[int, int]
    """By the row's place."""


@dataclass(frozen=True)
class Row:
    """One image of the table: what the page will know of it, and its detections."""

    place: int
    shown: ShownImage
    found: Found | None
    runs: Sequence[Counts] = ()
    """Of the masks of what was found; none where the job kept none."""


@dataclass(frozen=True)
class Source:
    """Where photos are read, and which."""

    table_uri: str
    """For messages."""
    files: dict[str, str] | None
    """Where to read the images by URI; None: where the table says."""
    max_pixels: int
    """Larger ones are not shown."""


def gallery_files(
    batches: Iterable[tuple[np.ndarray[Any, np.dtype[np.int64]], pa.Table]],
    index: GalleryIndex,
    source: Source,
    truth: Truth | None,
) -> Iterator[tuple[str, bytes]]:
    """Make the files of every image, a few images ahead of whoever takes them.

    Args:
        batches: rows of the table, with their places among all.
        index: where each image is added.
        source: of the photos.
        truth: None for none.
    """
    decoded = ByteBudget(DECODED_BYTES_IN_FLIGHT)
    with ThreadPoolExecutor(READS_IN_FLIGHT, thread_name_prefix="pictures") as threads:
        waiting: deque[tuple[Row, Future[Pictures | str]]] = deque()
        for places, rows in batches:
            check_masks(rows, source.table_uri)
            for place, values in zip(places.tolist(), rows.to_pylist(), strict=True):
                row = _read_row(place, values, source.table_uri)
                waiting.append((row, threads.submit(_read, row, source, decoded)))
                if len(waiting) >= MOST_WAITING:
                    yield from _image_files(*waiting.popleft(), index, truth)
        while waiting:
            yield from _image_files(*waiting.popleft(), index, truth)


def file_stem(folder: str, number: int) -> str:
    """Name the files of an image, not too many in a folder."""
    return f"gallery/{folder}-{number // 1000:03d}/{number:06d}"


def file_names(folder: str, num_images: int) -> list[str]:
    """Name every file that a gallery may write, without its index."""
    return [f"{file_stem(folder, n)}{end}" for n in range(num_images) for end in (".js", ".jpg", "-small.jpg")]


def _read_row(place: int, values: dict[str, Any], table_uri: str) -> Row:
    uri = values["image_uri"]
    if values["status"] != "ok":
        reason = f"{values['error_kind']}: {values['error_message'] or ''}".rstrip(": ")
        return Row(place, ShownImage(uri, None, reason), None)
    size = (values["height"], values["width"])
    instances, masks = values["instances"], values["masks"]
    category_ids = np.array([each["category_id"] for each in instances], np.int64)
    checked = [
        rle.normalised({"size": size, "counts": counts}, size=size, thing=f"a mask of {uri}", place=table_uri)
        for counts in masks or []
    ]
    found = Found(
        size,
        category_ids,
        np.array([[each[side] for side in "xywh"] for each in instances], np.float64).reshape(-1, 4),
        None if masks is None else [mask for mask, _ in checked],
    )
    scores = np.array([each["score"] for each in instances], np.float32)
    return Row(place, ShownImage(uri, size, None, category_ids, scores), found, [runs for _, runs in checked])


def _read(row: Row, source: Source, decoded: ByteBudget) -> Pictures | str:
    if row.shown.size is None:
        return ""
    if source.files is None:
        uri, table_uri = row.shown.uri, source.table_uri
    elif row.shown.uri in source.files:
        uri = table_uri = source.files[row.shown.uri]
    else:
        return "not_found: no file below --images has the end of this name"
    return read_pictures(uri, row.shown.size, table_uri, max_pixels=source.max_pixels, decoded=decoded)


def _image_files(
    row: Row, read: Future[Pictures | str], index: GalleryIndex, truth: Truth | None
) -> Iterator[tuple[str, bytes]]:
    number, shown, pictures = len(index), row.shown, read.result()
    if row.found is None:
        index.add(shown)
        return
    outcomes = None
    truth_categories = shown.truth_category_ids
    if truth is not None and row.place in truth.image_indices:
        outcomes = judge(row.found, truth.dataset, truth.image_indices[row.place])
        truth_categories = truth.dataset.category_ids[outcomes.truths]
    reason = pictures if isinstance(pictures, str) else None
    index.add(ShownImage(shown.uri, shown.size, reason, shown.category_ids, shown.scores, outcomes, truth_categories))
    stem = file_stem(index.folder, number)
    yield f"{stem}.js", script(f"image-{number}", _outlines(row.found, row.runs, outcomes, truth))
    if isinstance(pictures, Pictures):
        yield f"{stem}.jpg", pictures.large
        yield f"{stem}-small.jpg", pictures.thumbnail


def _outlines(found: Found, runs: Sequence[Counts], outcomes: Outcomes | None, truth: Truth | None) -> dict[str, Any]:
    """Give boxes and rings in whole steps of `scale` px."""
    scale = max(1.0, max(found.size) / (2 * LARGE_PX))
    value: dict[str, Any] = {"scale": scale, "boxes": _in_steps(found.boxes.tolist(), scale)}
    drawn = list(runs)
    has_mask = []
    if outcomes is not None and truth is not None:
        truths, dataset = outcomes.truths.tolist(), truth.dataset
        value["truth_boxes"] = _in_steps(np.nan_to_num(dataset.bboxes[outcomes.truths]).tolist(), scale)
        has_mask = [dataset.has_segmentation(index) for index in truths]
        drawn += [rle.check_rle(dataset.rle(index)) for index, has in zip(truths, has_mask, strict=True) if has]
    traced = trace_rings(drawn, found.size, TOLERANCE_PX * max(1.0, max(found.size) / LARGE_PX))
    rings = iter(_in_steps(each, scale) for each in traced)
    if found.masks is not None:
        value["rings"] = list(itertools.islice(rings, len(runs)))
    if outcomes is not None:
        value["truth_rings"] = [next(rings) if has else [] for has in has_mask]
    return value


def _in_steps(rows: list[list[Any]], scale: float) -> list[Any]:
    return [[round(side / scale) for side in row] for row in rows]
