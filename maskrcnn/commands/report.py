"""Write a static site about a labelled folder: an overview, a gallery, and what evaluation and training say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import tyro

from maskrcnn.commands.command_line import DONE, NOT_AS_IT_SHOULD_BE, run_command
from maskrcnn.counting import page as counting
from maskrcnn.counting.page import CountsReport
from maskrcnn.counting.words import describe_counts
from maskrcnn.errors import InputError
from maskrcnn.progress import ProgressOf
from maskrcnn.report.job import Report, write_report
from maskrcnn.report.settings import ReportConfig
from maskrcnn.report.site import Site


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
    max_pixels: int = 100_000_000
    """Larger photos are not shown."""
    price_per_hour: float | None = None
    """Of the whole cluster, for the cost of the runs; default: what each run was told."""
    by: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Count by this too: a column of the table, or a regular expression over the image's URI with named groups, as
    '/(?P<store>[^/]+)/(?P<camera>[^/]+)/[^/]+$'; may be given several times. A page, counts.parquet, counts.json."""
    night: str | None = None
    """Of --by: the date that is judged by the seven before it, and must be there; default: the newest that is not
    in the future."""
    fail_on_drift: bool = False
    """Of --by: exit code 1 where counts drift from what is usual, a group is gone, dark (every image failed) or sparse
    (few images, or most of them failed), or nothing is judged."""

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
            max_pixels=self.max_pixels,
            price_per_hour=self.price_per_hour,
            more_pages=((counting.PAGE, "Counts"),) if self.by else (),
        )


def report(arguments: ReportArguments) -> int:
    """Write the site and tell where it is."""
    if not arguments.by and (arguments.night is not None or arguments.fail_on_drift):
        raise InputError("--by", "must be given with --night and --fail-on-drift")
    counts = _count(arguments) if arguments.by else None

    def write_more(site: Site) -> None:
        if counts is not None:
            counting.write_counts(site, counts, arguments.images)

    written = write_report(arguments.to_config(), ProgressOf("drawing"), write_more)
    if counts is not None:
        print(describe_counts(counts))
    print(describe_report(written))
    return judge_counts(counts) if counts is not None and arguments.fail_on_drift else DONE


def _count(arguments: ReportArguments) -> CountsReport:
    """Count before anything is written, so that groups and nights that cannot be leave no half a site."""
    return counting.count_nights(
        arguments.predictions, arguments.by, night=arguments.night, on_progress=ProgressOf("counting")
    )


def judge_counts(counts: CountsReport) -> int:
    """Say why a night does not pass, and give the exit code; one of which nothing could be judged does not pass."""
    if not counts.drift.is_judged:
        print("NOT JUDGED: no group has enough nights before and enough labelled images in this one")
    elif counts.has_drift:
        print("DRIFT")
    return NOT_AS_IT_SHOULD_BE if counts.has_drift or not counts.drift.is_judged else DONE


def describe_report(written: Report) -> str:
    """Say what was written."""
    lines = []
    if written.num_without_picture:
        lines.append(f"{written.num_without_picture:,} photos could not be read; the gallery says why")
    lines.append(f"{written.num_images:,} images, {written.num_shown:,} of them in the gallery: {written.uri}")
    return "\n".join(lines)


GROUPS = {
    "predictions": "what to report, where to",
    "annotations": "what to show beside it",
    "max_images": "the gallery, the cost",
    "by": "counts by group and night",
}


def main() -> NoReturn:
    """Run the command."""
    run_command(ReportArguments, report, "report", groups=GROUPS)
