"""What a user can set for an export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskrcnn.config import check, check_choice, flag
from maskrcnn.errors import InputError

ExportFormat = Literal["coco", "coco-results", "flat"]
SampleBy = Literal["least-certain", "random"]
SegmentationForm = Literal["polygons", "rle"]

SUFFIXES: dict[ExportFormat, str] = {"coco": ".json", "coco-results": ".json", "flat": ".parquet"}


OPTIONS_OF_FORMATS: dict[str, tuple[ExportFormat, ...]] = {
    "segmentation": ("coco",),
    "polygon_tolerance_px": ("coco",),
    "image_root_uri": ("coco", "coco-results"),
    "annotations_uri": ("coco-results",),
}
"""Options that mean nothing for other formats."""


@dataclass(frozen=True)
class ExportConfig:
    """One export of a predictions table."""

    predictions_uri: str
    format: ExportFormat
    output_uri: str
    score_threshold: float | None = None
    """None: all that the table holds."""
    categories: tuple[str, ...] = ()
    """Names or ids; none: all."""
    sample: int | None = None
    """How many images; None: all."""
    sample_by: SampleBy = "least-certain"
    seed: int = 0
    segmentation: SegmentationForm = "polygons"
    polygon_tolerance_px: float = 1.0
    image_root_uri: str | None = None
    """The folder that file names are relative to; None: the longest common one."""
    bundle_uri: str | None = None
    """Whose categories are all listed; None: those that occur."""
    annotations_uri: str | None = None
    """The COCO JSON whose image ids results are given under."""

    def __post_init__(self) -> None:
        check_choice("format", self.format, tuple(SUFFIXES))
        suffix = SUFFIXES[self.format]
        check(
            self.output_uri.endswith(suffix), "output", self.output_uri, f"a {suffix} file for --format {self.format}"
        )
        if self.score_threshold is not None:
            check(0 <= self.score_threshold <= 1, "score_threshold", self.score_threshold, "in [0, 1]")
        if self.sample is not None:
            check(self.sample >= 1, "sample", self.sample, "1 or more")
        check_choice("sample_by", self.sample_by, ("least-certain", "random"))
        check(self.seed >= 0, "seed", self.seed, "0 or more")
        check_choice("segmentation", self.segmentation, ("polygons", "rle"))
        check(0 <= self.polygon_tolerance_px <= 100, "polygon_tolerance", self.polygon_tolerance_px, "0 to 100 px")
        for name, formats in OPTIONS_OF_FORMATS.items():
            if self.format not in formats and getattr(self, name) != getattr(type(self), name):
                raise InputError(
                    flag(name.removesuffix("_uri").removesuffix("_px")), f"needs --format {' or '.join(formats)}"
                )
