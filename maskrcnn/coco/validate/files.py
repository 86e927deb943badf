"""The image files behind a dataset: there, readable, of the size that is written, turned as annotated, not twice.

Files are looked at in chunks by an executor that the caller gives, so that a thread pool and a cluster do the same.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field

from maskrcnn import storage
from maskrcnn.coco.file_names import safe_join
from maskrcnn.coco.validate.scan import Scanned
from maskrcnn.config import DECODE_SCALES
from maskrcnn.errors import AccessError, AnnotationError, NotFoundError, StorageError, StorageTimeout, UnavailableError
from maskrcnn.images import BadImage, decode, read_header

CHUNK_FILES = 32
CHUNKS_IN_FLIGHT = 64
_DIGEST_BYTES = 16
_TURNED = 5
"""EXIF orientations from here on swap width and height."""


@dataclass(frozen=True)
class FileReport:
    """What was found in one image file."""

    problem: str = ""
    """not_found, unreadable or, where the store does not let us look, denied; else nothing."""
    reason: str = ""
    width: int = 0
    """px, after the EXIF orientation is applied; 0 with a problem."""
    height: int = 0
    orientation: int = 1
    """EXIF's."""
    digest: bytes = b""
    """Of the file's bytes."""


@dataclass
class FileReports:
    """What was found in the files of a dataset."""

    digests: dict[bytes, int] = field(default_factory=dict)
    """The first image, by its place in the list, of each content."""
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    """(height, width), px, of each file that can be decoded, by the image's place in the list."""
    unusable: set[int] = field(default_factory=set)
    """The places of images whose files cannot be used."""


def look_at_files(uris: Sequence[str]) -> list[FileReport]:
    """Read and decode files; runs wherever the executor has it run.

    Raises:
        StorageTimeout, UnavailableError: the store stays away, which says nothing about the files.
    """
    return [_look_at(uri) for uri in uris]


def check_files(
    scanned: Scanned,
    images_uri: str,
    executor: Executor,
    on_progress: Callable[[int], None] = lambda num_done: None,
) -> FileReports:
    """Find what is wrong with the files of a dataset's images.

    Args:
        scanned: the dataset; its findings are added to.
        images_uri: the folder that its file names are relative to.
        executor: runs `look_at_files` on chunks of URIs.
        on_progress: called now and then with the number of files done.

    Returns:
        The content and the sizes of the files.

    Raises:
        StorageTimeout, UnavailableError: the store stays away.
    """
    names, reports = scanned.images.file_names, FileReports()
    named = [index for index, name in enumerate(names) if name]
    uris = {}
    for index in named:
        try:
            uris[index] = safe_join(images_uri, names[index])
        except AnnotationError as error:  # a symbolic link
            scanned.images.report_row(index, "file_name_leaves_root", "file_name", f"{names[index]} {error.rule}")
            reports.unusable.add(index)
    twins: dict[int, list[int]] = defaultdict(list)
    num_done = 0
    for indices, found in _run(executor, list(uris), uris):
        for index, report in zip(indices, found, strict=True):
            _judge(scanned, index, report)
            if report.problem:
                if report.problem != "denied":
                    reports.unusable.add(index)
                continue
            reports.sizes[index] = report.height, report.width
            first = reports.digests.setdefault(report.digest, index)
            if first != index:
                reports.digests[report.digest] = min(first, index)
                twins[min(first, index)].append(max(first, index))
        num_done += len(indices)
        on_progress(num_done)
    for first, others in sorted(twins.items()):
        for index in others:
            scanned.images.report_row(index, "same_image_twice", "file_name", f"{names[index]} and {names[first]}")
    return reports


def check_leakage(train: Scanned, val: Scanned, contents: tuple[FileReports, FileReports] | None) -> None:
    """Find images of the validation set that are in the training set: by content, by name where files were not read."""
    if contents is None:
        known = set(train.images.file_names) - {""}
        for index, name in enumerate(val.images.file_names):
            if name in known:
                val.images.report_row(index, "leakage", "file_name", f"{name} is in both")
        return
    for digest, index in contents[1].digests.items():
        if (other := contents[0].digests.get(digest)) is not None:
            value = f"{val.images.file_names[index]} is {train.images.file_names[other]} of the training set"
            val.images.report_row(index, "leakage", "file_name", value)


def check_same_categories(train: Scanned, val: Scanned) -> None:
    """Find categories that are not the same in both sets."""
    one, other = (
        dict(zip(each.categories.column("id").tolist(), each.categories.names, strict=True)) for each in (train, val)
    )
    for category_id in sorted(one.keys() | other.keys()):
        names = [repr(each[category_id]) if category_id in each else "not there" for each in (one, other)]
        if names[0] != names[1]:
            value = f"{names[0]} in training, {names[1]} in validation"
            val.findings.add("categories_differ", "category", "name", value, id=category_id)


def _look_at(uri: str) -> FileReport:
    try:
        body = storage.read_bytes(uri)
    except NotFoundError as error:
        return FileReport("not_found", error.reason)
    except AccessError as error:
        return FileReport("denied", error.reason)
    except (StorageTimeout, UnavailableError):
        raise
    except StorageError as error:
        return FileReport("unreadable", error.reason)
    header = read_header(body)
    if isinstance(header, BadImage):
        return FileReport("unreadable", header.reason)
    # Every byte is decoded all the same; only the last steps are spared.
    pixels = decode(body, scale=max(DECODE_SCALES))
    if isinstance(pixels, BadImage):
        return FileReport("unreadable", pixels.reason)
    digest = hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()
    return FileReport("", "", header.width, header.height, header.orientation, digest)


def _run(executor: Executor, indices: list[int], uris: dict[int, str]) -> Iterator[tuple[list[int], list[FileReport]]]:
    """Give the reports of all files, a chunk at a time, in whatever order they are done."""
    chunks = (indices[begin : begin + CHUNK_FILES] for begin in range(0, len(indices), CHUNK_FILES))
    pending: dict[Future[list[FileReport]], list[int]] = {}
    for chunk in chunks:
        pending[executor.submit(look_at_files, [uris[index] for index in chunk])] = chunk
        while len(pending) >= CHUNKS_IN_FLIGHT:
            yield from _take_done(pending)
    while pending:
        yield from _take_done(pending)


def _take_done(pending: dict[Future[list[FileReport]], list[int]]) -> Iterator[tuple[list[int], list[FileReport]]]:
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        yield pending.pop(future), future.result()


def _judge(scanned: Scanned, index: int, report: FileReport) -> None:
    """Compare what was found in a file with what is written of it."""
    images = scanned.images
    if report.problem:
        value = f"{images.file_names[index]}: {report.reason}"
        code = "image_not_found" if report.problem == "not_found" else "image_unreadable"
        images.report_row(index, code, "file_name", value)
        return
    written = int(images.column("height")[index]), int(images.column("width")[index])
    upright = report.height, report.width
    is_square = report.height == report.width
    size = f"{written[1]} x {written[0]}, and the file is {upright[1]} x {upright[0]}"
    if report.orientation >= _TURNED and written == upright[::-1] and not is_square:
        images.report_row(index, "exif_unrotated", "width, height", f"{size} upright (EXIF {report.orientation})")
    elif 0 not in written and written != upright:
        images.report_row(index, "image_size_differs", "width, height", size)
    elif report.orientation > 1 and (report.orientation < _TURNED or upright[0] == upright[1]):
        images.report_row(index, "exif_turned", "file_name", f"{images.file_names[index]} (EXIF {report.orientation})")
