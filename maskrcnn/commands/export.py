"""Export a labelled folder: COCO for annotation tools and for scoring, or one flat Parquet for SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NoReturn

from maskrcnn.commands.command_line import DONE, run_command
from maskrcnn.config import warn_if_unusual
from maskrcnn.exports.job import ExportReport, export_predictions
from maskrcnn.exports.settings import ExportConfig
from maskrcnn.progress import ProgressOf


@dataclass(frozen=True)
class ExportArguments:
    """Export a labelled folder: COCO for annotation tools and for scoring, or one flat Parquet for SQL."""

    predictions: str
    """What to export: the --output of a labelling job."""
    format: Literal["coco", "coco-results", "flat"]
    """coco: a dataset for pre-annotation, as CVAT, Label Studio and FiftyOne import it; coco-results: for COCO's
    scores; flat: Parquet with one row a detection."""
    output: str
    """The file to write, .json or .parquet; one that exists is refused."""
    score_threshold: float | None = None
    """Leave out detections below it, in [0, 1]; images stay."""
    categories: tuple[str, ...] = ()
    """Names or ids of the categories to export; default: all."""
    sample: int | None = None
    """Export so many images, for a review; default: all."""
    sample_by: Literal["least-certain", "random"] = "least-certain"
    """Which: least-certain are those whose exported detections have the lowest mean score, and come in that order,
    images without any last."""
    seed: int = 0
    """Of a random sample."""
    segmentation: Literal["polygons", "rle"] = "polygons"
    """Of coco: polygons can be edited everywhere; rle is the mask to the pixel."""
    polygon_tolerance: float = 1.0
    """Of coco: how far polygons may stray from the outline of the pixels, px; 0: not at all, with many more points."""
    image_root: str | None = None
    """Of coco: the folder that file names are relative to; default: the longest that all labelled images share."""
    bundle: str | None = None
    """List all categories of this model, not only those that occur."""
    annotations: str | None = None
    """Of coco-results: the COCO JSON whose image ids are meant, where the table has none; images are found by the end
    of their URI, or below --image-root."""

    def to_config(self) -> ExportConfig:
        """Check the values."""
        warn_if_unusual(self.polygon_tolerance <= 5, "polygon_tolerance", self.polygon_tolerance, "0 to 5 px")
        return ExportConfig(
            predictions_uri=self.predictions,
            format=self.format,
            output_uri=self.output,
            score_threshold=self.score_threshold,
            categories=self.categories,
            sample=self.sample,
            sample_by=self.sample_by,
            seed=self.seed,
            segmentation=self.segmentation,
            polygon_tolerance_px=self.polygon_tolerance,
            image_root_uri=self.image_root,
            bundle_uri=self.bundle,
            annotations_uri=self.annotations,
        )


def export(arguments: ExportArguments) -> int:
    """Export and tell what was written."""
    print(describe_export(export_predictions(arguments.to_config(), ProgressOf("exporting"))))
    return DONE


def describe_export(report: ExportReport) -> str:
    """Say what was written, and what is worth knowing."""
    lines = list(report.notes)
    if report.image_root is not None:
        lines.append(f"file names are relative to {report.image_root}")
    if report.mean_iou is not None:
        lines.append(f"IoU of the polygons with the masks: mean {report.mean_iou:.4f}, worst {report.worst_iou:.4f}")
    lines.append(f"{report.num_detections:,} detections of {report.num_images:,} images: {report.output_uri}")
    return "\n".join(lines)


GROUPS = {
    "predictions": "what to export, where to",
    "score_threshold": "which detections and images",
    "segmentation": "how they are written",
}


def main() -> NoReturn:
    """Run the command."""
    run_command(ExportArguments, export, "export", groups=GROUPS)
