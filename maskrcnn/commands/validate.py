"""Find what is wrong with a COCO dataset before training on it, and write a repaired copy."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from maskrcnn import storage
from maskrcnn.coco.validate.dataset import Validation, compare_splits, validate_annotations, validate_files
from maskrcnn.coco.validate.repair import repair_dataset, repairs_uri
from maskrcnn.coco.validate.report import build_report, format_findings, format_statistics, format_totals
from maskrcnn.commands.command_line import DONE, NOT_AS_IT_SHOULD_BE, run_command
from maskrcnn.config import check
from maskrcnn.errors import InputError, OutputError, StorageError
from maskrcnn.progress import Progress

MOST_FILES_HERE = 5_000
"""More image files than this are looked at by Ray."""
READERS = 2 * (os.cpu_count() or 1)
"""Threads that read and decode here: some wait for the store while others decode."""


@dataclass(frozen=True)
class ValidateArguments:
    """Find what is wrong with a COCO dataset before training on it, and write a repaired copy.

    Exit code 0: no errors, perhaps warnings. 1: errors. 2: a file that cannot be read.
    """

    annotations: str
    """The COCO JSON to look at, on any URI."""
    images: str | None = None
    """The folder that its file names are relative to; without it, the image files are not looked at."""
    val_annotations: str | None = None
    """A validation set beside it: looked at too, and searched for images and categories that do not fit."""
    val_images: str | None = None
    """The folder of its file names; default: --images."""
    output: str | None = None
    """Write findings and statistics there as JSON."""
    repair_to: str | None = None
    """Write a repaired copy of --annotations there, a .json, and beside it the list of what was done, a
    .repairs.json; what is there already is left alone, and refused."""


def validate(arguments: ValidateArguments) -> int:
    """Look at everything, tell, and repair."""
    if arguments.repair_to is not None:
        _check_repair_to(arguments.repair_to)
    if arguments.val_images is not None and arguments.val_annotations is None:
        raise InputError("--val-images", "must be given with --val-annotations")
    train = _look_at("--annotations", arguments.annotations, arguments.images, is_training=True)
    validations = {"train" if arguments.val_annotations else "dataset": train}
    if arguments.val_annotations:
        val_images = arguments.val_images or arguments.images
        val = _look_at("--val-annotations", arguments.val_annotations, val_images, is_training=False)
        compare_splits(train, val)
        validations["val"] = val
    report = build_report(validations)
    for name, validation in validations.items():
        print(format_findings(validation.findings))
        if statistics := report["datasets"][name]["statistics"]:
            print(format_statistics(name, statistics))
    if arguments.output:
        _write_report(arguments.output, report)
    if arguments.repair_to:
        _repair(train, arguments.repair_to)
    return NOT_AS_IT_SHOULD_BE if report["errors"] else DONE


def _look_at(option: str, annotations_uri: str, images_uri: str | None, *, is_training: bool) -> Validation:
    try:
        validation = validate_annotations(annotations_uri, is_training=is_training)
    except StorageError as error:
        raise InputError(option, f"cannot be read: {error.reason}", error.uri) from error
    if images_uri is None or not validation.scanned.is_whole:
        return validation
    num_files = len(validation.scanned.images)
    progress = Progress(num_files, "reading images")
    with _executor_for(num_files) as executor:
        try:
            validation = validate_files(
                validation, images_uri, executor, lambda num_done: progress.update(num_done, _num_bad(validation))
            )
        except StorageError as error:
            raise InputError("--images", f"cannot be read: {error.reason}", error.uri) from error
    progress.finish(num_files, _num_bad(validation))
    return validation


def _num_bad(validation: Validation) -> int:
    counts = validation.findings.counts
    return counts["image_not_found"] + counts["image_unreadable"]


@contextmanager
def _executor_for(num_files: int) -> Iterator[Executor]:
    if num_files > MOST_FILES_HERE:
        from maskrcnn import cluster  # only here: importing Ray takes seconds

        cluster.connect()
        yield cluster.ClusterExecutor()
    else:
        with ThreadPoolExecutor(READERS) as executor:
            yield executor


def _check_repair_to(uri: str) -> None:
    check(uri.endswith(".json"), "repair_to", uri, "a path or URI ending in .json")
    for output_uri in (uri, repairs_uri(uri)):
        if storage.exists(output_uri):
            raise OutputError("--repair-to", "must not be there yet, and is", output_uri)


def _write_report(uri: str, report: dict[str, Any]) -> None:
    try:
        storage.put(uri, json.dumps(report, indent=2).encode())
    except StorageError as error:
        raise OutputError("--output", f"cannot be written: {error.reason}", error.uri) from error


def _repair(validation: Validation, uri: str) -> None:
    if not validation.scanned.is_whole:
        print("nothing was repaired: there is no dataset in the file")
        return
    try:
        repairs = repair_dataset(validation, uri)
    except StorageError as error:
        raise OutputError("--repair-to", f"cannot be written: {error.reason}", error.uri) from error
    print(f"repaired copy: {uri}; what was done to {repairs.num_rows:,} rows: {repairs_uri(uri)}")
    for what, number in repairs.counts.most_common():
        print(f"  {number:>9,}  {what}")
    left = validate_annotations(uri).findings
    print(f"left in the copy: {format_totals(left)}")
    if left.num("error"):
        print(format_findings(left))


GROUPS = {
    "annotations": "what to look at",
    "output": "what to leave",
}


def main() -> NoReturn:
    """Run the command."""
    run_command(ValidateArguments, validate, "validate", groups=GROUPS)
