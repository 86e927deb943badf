"""A dataset, or a pair of them, looked at from every side."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from maskrcnn.coco.validate.files import FileReports, check_files, check_leakage, check_same_categories
from maskrcnn.coco.validate.findings import Findings
from maskrcnn.coco.validate.geometry import check_geometry
from maskrcnn.coco.validate.relations import check_relations
from maskrcnn.coco.validate.scan import Scanned, scan_dataset


@dataclass(frozen=True)
class Validation:
    """A dataset that was looked at."""

    scanned: Scanned
    files: FileReports | None = None
    """None where the images were not looked at."""
    is_training: bool = True

    @property
    def findings(self) -> Findings:
        """What is wrong."""
        return self.scanned.findings


def validate_annotations(uri: str, *, is_training: bool = True) -> Validation:
    """Find what is wrong with a COCO JSON, of any size, without looking at its images.

    Args:
        uri: of the JSON.
        is_training: whether to learn from it, which takes enough instances of every category.

    Raises:
        StorageError: it cannot be read.
    """
    scanned = scan_dataset(uri)
    if scanned.is_whole:
        check_relations(scanned, is_training=is_training)
        check_geometry(scanned)
    return Validation(scanned, is_training=is_training)


def validate_files(
    validation: Validation,
    images_uri: str,
    executor: Executor,
    on_progress: Callable[[int], None] = lambda num_done: None,
) -> Validation:
    """Find what is wrong with the images of a dataset too.

    Args:
        validation: of its COCO JSON; its findings are added to.
        images_uri: the folder that the file names are relative to.
        executor: reads and decodes the files, in chunks; threads, or a cluster.
        on_progress: called now and then with the number of files done.
    """
    return replace(validation, files=check_files(validation.scanned, images_uri, executor, on_progress))


def compare_splits(train: Validation, val: Validation) -> None:
    """Find what is wrong between a training and a validation set; the findings are the validation set's."""
    if not (train.scanned.is_whole and val.scanned.is_whole):
        return
    check_same_categories(train.scanned, val.scanned)
    contents = None if train.files is None or val.files is None else (train.files, val.files)
    check_leakage(train.scanned, val.scanned, contents)
