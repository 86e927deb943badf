"""The predictions table as COCO results: each row joined to its image of an annotations file. Knows no scores."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from maskrcnn import storage
from maskrcnn.coco.annotations import CocoDataset
from maskrcnn.coco.categories import check_category_names
from maskrcnn.coco.packed import SizedSegmentations
from maskrcnn.coco.packing import check_rles
from maskrcnn.coco.results import CocoResults
from maskrcnn.config import UnusualValueWarning
from maskrcnn.errors import InputError
from maskrcnn.labelling.current import check_masks, pack_masks
from maskrcnn.labelling.table import read_predictions

COLUMNS = ("image_uri", "image_id", "height", "width", "instances", "score_threshold")


@dataclass(frozen=True)
class TableResults:
    """A predictions table, seen from a dataset."""

    results: CocoResults
    """The predictions, those of foreign images under an id that the dataset does not have."""
    labelled_ids: NDArray[np.int64]
    """Of the dataset's images that the table has detections of, perhaps none, in any order."""
    score_threshold: float
    """The lowest that the rows were labelled with: what is below is not in the table. 0 without rows."""


def load_table_results(
    uri: str, dataset: CocoDataset, *, images_uri: str | None = None, with_masks: bool = True
) -> TableResults:
    """Read the current rows of a labelling job's output as predictions for a dataset.

    Args:
        uri: the OUTPUT of the job.
        dataset: the annotations.
        images_uri: the folder that the dataset's file names are relative to; None: the longest end of an image's URI
            that is a file name of the dataset decides.
        with_masks: without, masks are not read, and there are only boxes.

    Raises:
        InputError: no table, no row of the dataset's images, an image that two rows or two file names claim, category
            ids none of which has the dataset's name, or masks that the table does not have.
        AnnotationError: a mask that is broken.
    """
    rows = read_predictions(uri, columns=[*COLUMNS, *(["masks"] if with_masks else [])])
    image_ids, is_known = match_images(rows, dataset, uri, images_uri)
    if len(rows) and not is_known.any():
        example = rows["image_uri"][0].as_py()
        rule = f"must be of images in {dataset.place}, by image_id or file_name, and none is, as {example}"
        raise InputError("--predictions", rule, uri)
    check_category_names(_category_names(rows), uri, dataset.categories, dataset.place)
    is_labelled = pc.is_valid(rows["instances"]).to_numpy()
    results = _to_columns(rows, image_ids, uri, with_masks)
    lowest = pc.min(rows["score_threshold"]).as_py() or 0.0
    return TableResults(results, image_ids[is_known & is_labelled], lowest)


def match_images(
    rows: pa.Table,
    dataset: CocoDataset,
    place: str,
    images_uri: str | None = None,
    *,
    images_option: str = "--images",
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Find each row's image: by its image_id, else by its URI; warn of an image_id whose URI is another image's.

    Args:
        rows: image_uri, and image_id with nulls where the job did not know it.
        dataset: the annotations.
        place: the table, for messages.
        images_uri: as in `load_table_results`.
        images_option: that a user gives it with, for messages.

    Returns:
        (num_rows,) int64 ids, those of foreign images all the same one that the dataset does not have; and (num_rows,)
        bool, whether the image is the dataset's.

    Raises:
        InputError: an image that two rows or two file names claim.
    """
    known = set(dataset.image_ids.tolist())
    foreign = min([0, *known]) - 1
    names = _FileNames(dataset, images_uri)
    image_ids: list[int] = []
    uri_by_image: dict[int, str] = {}
    strange: list[int] = []
    for uri, image_id in zip(rows["image_uri"].to_pylist(), rows["image_id"].to_pylist(), strict=True):
        has_id = image_id is not None
        if not has_id:
            image_id = names.find(uri)
        if image_id not in known:
            image_ids.append(foreign)
            continue
        if image_id in uri_by_image:
            rule = f"is claimed by two rows, {uri_by_image[image_id]} and {uri}"
            remedy = "" if has_id else f"say with {images_option} which folder the file names are relative to"
            raise InputError(f"image {image_id} of {dataset.place}", rule, place, remedy)
        uri_by_image[image_id] = uri
        image_ids.append(image_id)
        if has_id and not names.fits(image_id, uri):
            strange.append(image_id)
    if strange:
        first = strange[0]
        others = f", and so for {len(strange) - 1:,} more" if len(strange) > 1 else ""
        text = f"image {first} is {names.of(first)} in {dataset.place} and {uri_by_image[first]} in {place}{others}"
        warnings.warn(
            f"{text}; ids decide, so see to it that they are the same images", UnusualValueWarning, stacklevel=2
        )
    ids = np.array(image_ids, np.int64)
    return ids, ids != foreign


class _FileNames:
    """Finds the image whose file name is the end of a URI."""

    def __init__(self, dataset: CocoDataset, images_uri: str | None) -> None:
        self._place = dataset.place
        self._root = None if images_uri is None else storage.normalise(images_uri) + "/"
        self._ids: dict[str, list[int]] = {}
        self._names: dict[int, str] = {}
        for image_id, file_name in zip(dataset.image_ids.tolist(), dataset.file_names, strict=True):
            name = "/".join(segment for segment in file_name.split("/") if segment not in ("", "."))
            self._ids.setdefault(name, []).append(image_id)
            self._names[image_id] = name

    def of(self, image_id: int) -> str:
        """Give the file name of an image."""
        return self._names[image_id]

    def fits(self, image_id: int, uri: str) -> bool:
        """Say whether the image's file name is the end of a URI."""
        return f"/{uri}".endswith(f"/{self._names[image_id]}")

    def find(self, uri: str) -> int | None:
        """Give the image's id, None where there is none."""
        for end in self._ends(uri):
            ids = self._ids.get(end, [])
            if len(ids) > 1:
                rule = f"is the file_name of two images, {ids[0]} and {ids[1]}, and {uri} could be either"
                raise InputError(f"file_name {end}", rule, self._place)
            if ids:
                return ids[0]
        return None

    def _ends(self, uri: str) -> Sequence[str]:
        """Give what the file name may be, the longest first."""
        if self._root is not None:
            return [uri.removeprefix(self._root)] if uri.startswith(self._root) else []
        segments = uri.split("/")
        return ["/".join(segments[start:]) for start in range(len(segments))]


def _category_names(rows: pa.Table) -> dict[int, str]:
    """Give the names of the categories that occur, by id."""
    found = pc.list_flatten(rows["instances"])
    pairs = pa.table({name: pc.struct_field(found, name) for name in ("category_id", "category")})
    rows_of_categories = pairs.group_by(pairs.column_names).aggregate([]).to_pylist()
    return {row["category_id"]: row["category"] for row in rows_of_categories if row["category"] is not None}


def _to_columns(rows: pa.Table, image_ids: NDArray[np.int64], place: str, with_masks: bool) -> CocoResults:
    counts = pc.fill_null(pc.list_value_length(rows["instances"]), 0).to_numpy()
    instances = pc.list_flatten(rows["instances"])

    def column(name: str, dtype: type) -> NDArray[Any]:
        return np.asarray(pc.struct_field(instances, name).to_numpy(), dtype)

    repeated = np.repeat(image_ids, counts)
    return CocoResults(
        place=place,
        image_ids=repeated,
        category_ids=column("category_id", np.int64),
        scores=column("score", np.float64),
        bboxes=np.stack([column(side, np.float64) for side in ("x", "y", "w", "h")], axis=1),
        segmentations=_segmentations(rows, counts, repeated, place) if with_masks else None,
    )


def _segmentations(
    rows: pa.Table, counts: NDArray[np.int64], image_ids: NDArray[np.int64], place: str
) -> SizedSegmentations:
    if (pc.is_null(rows["masks"]).to_numpy() & (counts > 0)).any():
        rule = "was labelled with --masks none, and segm needs masks"
        raise InputError("the predictions table", rule, place, "take --iou-types bbox")
    check_masks(rows, place)
    # Row by row of sizes, since images that failed have none.
    sizes = np.stack([pc.fill_null(rows[name], 0).to_numpy() for name in ("height", "width")], axis=1)
    repeated = np.repeat(sizes, counts, axis=0).astype(np.int64)
    packed = pack_masks(pc.list_flatten(rows["masks"]))
    return check_rles(packed, repeated, lambda index: f"predictions[{index}] (image {image_ids[index]})", place)
