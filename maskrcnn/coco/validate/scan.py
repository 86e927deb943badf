"""A COCO file of any size, read once into columns and findings; what concerns single rows is found on the way."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TypeVar

from maskrcnn import storage
from maskrcnn.coco.document import stream_members
from maskrcnn.coco.validate.findings import Findings
from maskrcnn.coco.validate.lists import AnnotationList, CategoryList, ImageList, RowList
from maskrcnn.errors import AnnotationError, CutOffError, JsonError, StorageError

_HEAD_BYTES = 1 << 16

_List = TypeVar("_List", bound=RowList)


@dataclass(frozen=True)
class Scanned:
    """The lists of a COCO file, and what is wrong with it as far as it was looked at."""

    uri: str
    findings: Findings
    images: ImageList
    annotations: AnnotationList
    categories: CategoryList
    is_whole: bool
    """Whether there is a dataset to look at any further."""
    num_members: Counter[str]
    """How often each list stands in the file."""

    @property
    def lists(self) -> tuple[ImageList, AnnotationList, CategoryList]:
        """The three lists."""
        return self.images, self.annotations, self.categories


def scan_dataset(uri: str) -> Scanned:
    """Read a COCO file, and find what is wrong with its rows.

    Raises:
        StorageError: it cannot be read.
    """
    findings = Findings(uri)
    images, annotations, categories = ImageList(uri), AnnotationList(uri), CategoryList(uri)
    found: Counter[str] = Counter()
    is_json = False
    with storage.open_input(uri) as file:
        try:
            head = file.read(_HEAD_BYTES)
            file.seek(0)
            if is_list := _root_of(head) == "[":
                _report_list(head, findings)
            else:
                for name, batches in stream_members(file, uri):
                    if name in found:
                        findings.add("list_twice", "file", name)
                    match name:
                        case "images":
                            images = _collected(ImageList(uri), batches)
                        case "annotations":
                            annotations = _collected(AnnotationList(uri), batches)
                        case "categories":
                            categories = _collected(CategoryList(uri), batches)
                        case _:
                            continue
                    found[name] += 1
            is_json = not is_list
        except CutOffError as error:
            findings.add("cut_off", "file", "", error.rule)
        except JsonError as error:
            findings.add("not_json", "file", "", error.rule)
        except AnnotationError as error:
            findings.add("top_level_type", "file", "", error.rule)
        except OSError as error:  # after it was opened
            raise StorageError(uri, error.strerror or str(error)) from error
    if is_json:
        for rows in (images, annotations, categories):
            if rows.name not in found:
                findings.add("missing_list", "file", rows.name)
            elif not rows.num_rows and rows.name != "annotations" and not rows.findings.counts["list_type"]:
                findings.add("empty_list", "file", rows.name)
            findings.extend(rows.findings)
            rows.findings = findings
    for rows in (images, annotations, categories):
        rows.collect(iter([[]]))  # so that every column is there
    return Scanned(uri, findings, images, annotations, categories, is_json, found)


def _collected(rows: _List, batches: object) -> _List:
    rows.collect(batches)  # type: ignore[arg-type]
    return rows


def _root_of(head: bytes) -> str:
    """Give the first character of a JSON text."""
    text = head[:1024].decode(json.detect_encoding(head), "replace")
    return text.lstrip("\ufeff \t\r\n")[:1]


def _report_list(head: bytes, findings: Findings) -> None:
    is_results = b'"score"' in head and b'"image_id"' in head
    findings.add("results_file" if is_results else "top_level_list", "file", "", "a list")
