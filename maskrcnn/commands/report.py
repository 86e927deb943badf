"""Write a static site about a labelled folder: an overview, a gallery, and what evaluation and training say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from maskrcnn.commands.command_line import DONE, run_command
from maskrcnn.progress import Progress
from maskrcnn.report.job import Report, write_report
from maskrcnn.report.settings import ReportConfig


@dataclass(frozen=True)
class ReportArguments:
    """Write a static site about a labelled folder: an overview, a gallery, and what evaluation and training say. It
    opens from a file as from a bucket, without a server and without a network."""

    predictions: str
    """What to report: the --output of a labelling job."""
    output: str
    """The folder of the site, on any URI: a new one, or an earlier report's, which is replaced."""
    images: str | None = None
    """Find the images below this folder, by the end of their names; default: where the table says."""
    annotations: str | None = None
    """The truth, a COCO JSON: the gallery then marks what is right, wrong and missed, at IoU 0.5."""
    metrics: str | None = None
    """The --output of jobs.evaluate: a page with scores, curves, the best thresholds and confusions."""
    training: str | None = None
    """The --output of jobs.train: a page with losses and scores by step."""
    max_images: int = 10_000
    """In the gallery: where there are more, annotated ones come first, then failures, up to a tenth, then any."""
    seed: int = 0
    """Of that choice."""
    price_per_hour: float | None = None
    """Of the whole cluster, for the cost of the runs; default: what each run was told."""

    def to_config(self) -> ReportConfig:
        """Check the values."""
        return ReportConfig(
            predictions_uri=self.predictions,
            output_uri=self.output,
            images_uri=self.images,
            annotations_uri=self.annotations,
            metrics_uri=self.metrics,
            training_uri=self.training,
            max_images=self.max_images,
            seed=self.seed,
            price_per_hour=self.price_per_hour,
        )


def report(arguments: ReportArguments) -> int:
    """Write the site and tell where it is."""
    shown: list[Progress] = []

    def show(num_done: int, num_images: int) -> None:
        if not shown:
            shown.append(Progress(num_images, "drawing"))
        shown[0].update(num_done, 0)

    written = write_report(arguments.to_config(), show)
    if shown:
        shown[0].finish(written.num_shown, written.num_without_picture)
    print(describe_report(written))
    return DONE


def describe_report(written: Report) -> str:
    """Say what was written."""
    lines = []
    if written.num_without_picture:
        lines.append(f"{written.num_without_picture:,} photos could not be read; the gallery says why")
    lines.append(f"{written.num_images:,} images, {written.num_shown:,} of them in the gallery: {written.uri}")
    return "\n".join(lines)


def main() -> NoReturn:
    """Run the command."""
    run_command(ReportArguments, report, "report")
