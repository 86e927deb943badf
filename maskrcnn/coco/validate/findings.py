"""What can be wrong with a dataset, in one table of rules; findings are kept up to a limit, and counted without one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from maskrcnn.coco.ids import MAX_CATEGORY_ID, MIN_CATEGORY_ID

Severity = Literal["error", "warning"]
Subject = Literal["file", "image", "annotation", "category"]

MAX_KEPT = 1000
"""Findings of one code that are kept one by one; all are counted."""

MAX_VALUE_CHARS = 80

FEW_INSTANCES = 10

ERRORS: dict[str, str] = {
    "not_json": "the file must be JSON",
    "cut_off": "the file must be whole JSON, and ends too early",
    "top_level_list": "the top level must be an object with images, annotations and categories",
    "results_file": "must be a dataset; this is a results file, which jobs.evaluate takes as --predictions",
    "top_level_type": "the top level must be an object with images, annotations and categories",
    "missing_list": "images, annotations and categories must be there",
    "empty_list": "images and categories must hold at least one",
    "list_type": "images, annotations and categories must be lists",
    "row_type": "every image, annotation and category must be an object",
    "missing_field": "the field must be there",
    "field_type": "the field must be of its type",
    "duplicate_image_id": "image ids must be unique",
    "duplicate_annotation_id": "annotation ids must be unique",
    "duplicate_category_id": "category ids must be unique",
    "duplicate_category_name": "names of categories must be unique",
    "category_id_value": f"category ids must be at most {MAX_CATEGORY_ID}, and not below {MIN_CATEGORY_ID}",
    "orphan_image_id": "image_id must be the id of one of the images",
    "orphan_category_id": "category_id must be the id of one of the categories",
    "categories_differ": "training and validation must have the same categories",
    "segmentation_missing": "segmentation must be there",
    "segmentation_null": "segmentation must not be null",
    "segmentation_empty": "segmentation must hold at least one polygon, or an RLE",
    "segmentation_type": "segmentation must be a list of polygons, or an RLE",
    "polygon_flat_list": "segmentation must be a list of polygons, each a list; this is one list of numbers",
    "polygon_points_as_pairs": "a polygon must be one flat list [x1, y1, x2, y2, …]; its points are lists here",
    "polygon_strings": "coordinates must be numbers; these are texts",
    "polygon_type": "a polygon must be a flat list of numbers",
    "polygon_odd_count": "a polygon must have as many y as x",
    "polygon_too_few_points": "a polygon must have 3 or more points",
    "polygon_not_finite": "coordinates must be finite, not NaN or infinity",
    "polygon_zero_area": "a polygon must cover an area",
    "polygon_far_outside": "a polygon must lie near its image",
    "polygon_too_long": "a polygon's outline must be of a sane length",
    "mask_empty": "a mask must cover a pixel of its image",
    "rle_type": "an RLE must have size [height, width] and counts",
    "rle_too_large": "an RLE must not be larger than masks can be",
    "rle_size_swapped": "size must be [height, width]; this is [width, height]",
    "rle_size_differs": "size must be its image's [height, width]",
    "rle_invalid_characters": "counts must be a whole compressed string, of bytes 48 to 111",
    "rle_negative_run": "runs must be 0 or more",
    "rle_wrong_sum": "runs must sum to height x width",
    "bbox_length": "bbox must have 4 numbers [x, y, width, height]",
    "bbox_not_positive": "bbox must have a width and height above 0",
    "bbox_not_finite": "bbox must be finite, not NaN or infinity",
    "area_not_positive": "area must be finite and not negative",
    "iscrowd_value": "iscrowd must be 0 or 1",
    "image_size_value": "width and height must be whole numbers of 1 or more, of a size that masks can have",
    "file_name_leaves_root": "file_name must stay within the folder of images",
    "image_not_found": "the image's file must be there",
    "image_unreadable": "the image's file must be an image that can be decoded",
    "image_size_differs": "width and height must be the file's",
}

WARNINGS: dict[str, str] = {
    "list_twice": "a list stands twice in the file; only the last one counts",
    "bbox_missing": "bbox is needed to score boxes",
    "area_missing": "area is needed to score by size",
    "iscrowd_missing": "iscrowd is needed to score",
    "size_missing": "width and height are needed to train, and to check masks",
    "area_equals_bbox": "area is the bbox's, not the mask's",
    "area_disagrees": "area is less than half, or more than twice, the mask's",
    "bbox_disagrees": "bbox is not the mask's box",
    "bbox_outside": "bbox leaves the image",
    "polygon_outside": "a polygon leaves the image",
    "crowd_as_polygon": "crowds are RLE in COCO; a polygon with iscrowd 1 may be a mistake",
    "duplicate_instance": "the same instance stands there twice: image, category and shape",
    "unused_category": "no instance has this category, but perhaps crowds",
    "few_instances": f"fewer than {FEW_INSTANCES} instances are hardly enough to learn a category",
    "similar_category_names": "names of categories differ only in case or space",
    "exif_unrotated": "the file is turned by its EXIF orientation, and annotated as if it were not",
    "exif_turned": "the file is turned or mirrored by its EXIF orientation; its annotations must be too",
    "same_image_twice": "two images have the same content",
    "leakage": "the same image is in training and validation",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where it stands, what is there, and the rule that it breaks."""

    severity: Severity
    code: str
    file: str
    subject: Subject
    id: int | None
    """Of the image, annotation or category; None where it has none, or for the file as a whole."""
    index: int | None
    """Its place in its list, from 0; None for the file as a whole."""
    field: str
    value: str
    """What is there, shortened."""
    rule: str

    def __str__(self) -> str:
        where = [self.subject] if self.index is None else [self.subject, self._name()]
        named = " ".join([*where, self.field] if self.field else where)
        return f"{named}: {self.value}" if self.value else named

    def _name(self) -> str:
        return f"[{self.index}]" if self.id is None else str(self.id)


def severity_of(code: str) -> Severity:
    """Say how bad a code is."""
    return "error" if code in ERRORS else "warning"


def rule_of(code: str) -> str:
    """Give the rule that a code stands for."""
    return ERRORS[code] if code in ERRORS else WARNINGS[code]


class Findings:
    """The findings about one file: all counted by code, the first of each code kept."""

    def __init__(self, file: str, max_kept: int = MAX_KEPT) -> None:
        self.file = file
        self.counts: Counter[str] = Counter()
        self._kept: dict[str, list[Finding]] = {}
        self._max_kept = max_kept

    def add(
        self,
        code: str,
        subject: Subject,
        field: str,
        value: Any = "",
        *,
        id: int | None = None,
        index: int | None = None,
    ) -> None:
        """Take one finding."""
        self.counts[code] += 1
        kept = self._kept.setdefault(code, [])
        if len(kept) < self._max_kept:
            shown = value if isinstance(value, str) else repr(value)
            if len(shown) > MAX_VALUE_CHARS:
                shown = shown[: MAX_VALUE_CHARS - 1] + "…"
            kept.append(Finding(severity_of(code), code, self.file, subject, id, index, field, shown, rule_of(code)))

    def extend(self, others: Findings) -> None:
        """Take all findings of another collection about the same file."""
        for code, number in others.counts.items():
            kept = self._kept.setdefault(code, [])
            kept += others._kept[code][: self._max_kept - len(kept)]
            self.counts[code] += number

    def __iter__(self) -> Iterator[Finding]:
        """Give what is kept, worst first: errors before warnings, then the most frequent code."""
        return (finding for code in self.codes() for finding in self._kept[code])

    def codes(self) -> list[str]:
        """List the codes, worst first."""
        return sorted(self.counts, key=lambda code: (severity_of(code), -self.counts[code], code))

    def of_code(self, code: str) -> list[Finding]:
        """Give what is kept of a code, in the order of the file."""
        return self._kept.get(code, [])

    def has_room(self, code: str) -> bool:
        """Say whether another finding of a code would be kept."""
        return len(self._kept.get(code, ())) < self._max_kept

    def num(self, severity: Severity) -> int:
        """Count the errors, or the warnings."""
        return sum(number for code, number in self.counts.items() if severity_of(code) == severity)


def to_json(collections: Sequence[Findings]) -> dict[str, Any]:
    """Give findings for programs: the counts, a line a code, and what is kept one by one, worst first."""
    groups: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    for findings in collections:
        for code in findings.codes():
            number = findings.counts[code]
            listed = len(findings.of_code(code))
            said = {"severity": severity_of(code), "code": code, "rule": rule_of(code), "file": findings.file}
            groups.append({**said, "count": number, "listed": listed})
        kept += [asdict(finding) for finding in findings]
    return {
        "errors": sum(findings.num("error") for findings in collections),
        "warnings": sum(findings.num("warning") for findings in collections),
        "groups": sorted(groups, key=lambda group: (group["severity"], -group["count"])),
        "findings": sorted(kept, key=lambda finding: finding["severity"]),
    }
