"""Label images with a bundle: detections and masks into Parquet, each image exactly once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NoReturn

from maskrcnn.commands.command_line import DONE, NOT_AS_IT_SHOULD_BE, run_command
from maskrcnn.commands.deadline import can_finish, describe_forecast, parse_finish_by
from maskrcnn.commands.slicing import SliceArguments
from maskrcnn.config import LabelConfig, check, warn_if_unusual
from maskrcnn.errors import InputError
from maskrcnn.log_lines import log_style
from maskrcnn.progress import clock

if TYPE_CHECKING:
    from maskrcnn.labelling.record import DryRun, RunReport


@dataclass(frozen=True)
class PredictArguments:
    """Label images with a bundle: detections and masks into Parquet, each image exactly once.

    Run it again after a crash, or tonight: what is done stays done.
    """

    bundle: str
    """The model: a folder with model.json and model.safetensors, on any URI."""
    images: str
    """What to label: a folder, a glob, a bucket prefix, a manifest Parquet, an S3 Inventory manifest.json, or a COCO
    JSON together with --image-root."""
    output: str
    """Where plans, table and run records go; the same one every night."""
    image_root: str | None = None
    """Where the images of a COCO JSON lie."""
    score_threshold: float | None = None
    """Detections below it are dropped, in [0, 1]; default: the bundle's, usually 0.5."""
    nms_threshold: float | None = None
    """Boxes of one category that overlap more (IoU) are one object; default: the bundle's, usually 0.5."""
    max_detections: int | None = None
    """In an image; default: the bundle's, usually 300."""
    mask_nms: float | None = None
    """For objects that touch or hide each other, so that boxes overlap far more than masks: masks of one category that
    overlap more (IoU) are one object, in (0, 1]; 0.5 is a good start. --nms-threshold is then 0.8 unless given."""
    batch_size: int = 2
    """Images, or tiles of --slice, a forward."""
    num_actors: str | None = None
    """MIN[,MAX] workers, one GPU each where there are GPUs; default: as many as the cluster has room for."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network runs."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on GPUs that have it, fp32 elsewhere. bf16 halves the time on processors that have it too."""
    rows_per_part: int | None = None
    """Images in one output file; default: 2048 on GPUs, 256 on CPUs."""
    date_from: str | None = None
    """Put the table in date= folders: last-modified, a column of the manifest, or a regular expression with one group
    that finds the date in the image's URI."""
    retry_errors: bool = False
    """Try images again that failed for lasting reasons too (timeouts and outages are always tried again)."""
    sample: float | None = None
    """Label only this share of the images, in (0, 1]: the same ones every night and for every bundle, since each URI's
    hash decides. A larger sample, or a run without --sample, adds the others to the same --output."""
    seed: int = 0
    """Of --sample: another seed draws other images."""
    masks: Literal["full", "none"] = "full"
    """none: boxes only, faster."""
    max_pixels: int = 100_000_000
    """Larger images are refused from their header."""
    price_per_hour: float | None = None
    """Of the whole cluster, for the cost in the run record."""
    price_per_actor_hour: float | None = None
    """Of one worker with its machine, for the dollars that --dry-run forecasts."""
    finish_by: str | None = None
    """HH:MM, the next such time here, or an ISO date and time: with --dry-run, say how many workers are done by then;
    else warn at once when these will not be."""
    forecast_from: str | None = None
    """Forecast from this run's record, OUTPUT/runs/….json of a sample on such workers; default: this output's newest
    run with the same options."""
    dry_run: bool = False
    """Say what would be done and how long it would take, and do nothing."""
    slicing: SliceArguments = field(default_factory=SliceArguments)

    def to_config(self) -> LabelConfig:
        """Check the values and give them to the job."""
        if self.seed and self.sample is None:
            raise InputError("--seed", "needs --sample, which is not given")
        if self.price_per_actor_hour is not None:
            check(self.price_per_actor_hour >= 0, "price_per_actor_hour", self.price_per_actor_hour, "0 or more")
            if not self.dry_run:
                raise InputError("--price-per-actor-hour", "is for --dry-run", remedy="--price-per-hour is the run's")
        warn_if_unusual(self.batch_size <= 64, "batch_size", self.batch_size, "1 to 8, up to 64 on large GPUs")
        return LabelConfig(
            bundle_uri=self.bundle,
            images_uri=self.images,
            output_uri=self.output,
            image_root_uri=self.image_root,
            score_threshold=self.score_threshold,
            nms_threshold=self.nms_threshold,
            max_detections=self.max_detections,
            mask_nms=self.mask_nms,
            slicing=self.slicing.to_config(),
            batch_size=self.batch_size,
            num_actors=parse_num_actors(self.num_actors),
            device=self.device,
            precision=self.precision,
            rows_per_part=self.rows_per_part,
            date_from=self.date_from,
            retry_errors=self.retry_errors,
            sample=self.sample,
            seed=self.seed,
            masks=self.masks,
            max_pixels=self.max_pixels,
            price_per_hour=self.price_per_hour,
            finish_by=parse_finish_by(self.finish_by, datetime.now()),
            forecast_from_uri=self.forecast_from,
        )


def parse_num_actors(text: str | None) -> tuple[int, int] | None:
    """Read MIN[,MAX].

    Raises:
        InputError: when it is something else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:,(\d+))?", text.strip())
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high:
        raise InputError("--num-actors", f"must be MIN or MIN,MAX with 1 <= MIN <= MAX, got {text}")
    return low, high


def predict(arguments: PredictArguments) -> int:
    """Run the job and tell how it went."""
    config = arguments.to_config()
    from maskrcnn.labelling.job import LabellingJob  # torch and Ray take seconds; help and refusals do without

    job = LabellingJob(config, log_style().run_id)
    if arguments.dry_run:
        dry_run = job.dry_run()
        print(describe_dry_run(dry_run, sample=config.sample))
        print(
            describe_forecast(
                dry_run,
                now=datetime.now().astimezone(),
                finish_by=config.finish_by,
                price_per_actor_hour=arguments.price_per_actor_hour,
            )
        )
        is_good = config.finish_by is None or can_finish(dry_run, datetime.now().astimezone(), config.finish_by)
        return DONE if is_good else NOT_AS_IT_SHOULD_BE
    report = job.run()
    print(describe_run(report))
    return DONE if report.is_reconciled else NOT_AS_IT_SHOULD_BE


def describe_dry_run(dry_run: DryRun, *, sample: float | None = None) -> str:
    """Say what would be done."""
    drawn = "" if sample is None else _describe_sample(sample, dry_run.num_listed, dry_run.num_outside_sample)
    return (
        f"{drawn}would plan {dry_run.num_to_plan:,} of {dry_run.num_listed:,} listed images "
        f"({dry_run.num_bytes / 1e6:,.1f} MB) in {dry_run.num_parts_to_plan:,} parts, "
        f"and make {dry_run.num_parts_left:,} parts that earlier plans still lack; nothing was written"
    )


def _describe_sample(share: float, num_drawn: int, num_outside: int) -> str:
    return f"sample of {share:g}: {num_drawn:,} of {num_drawn + num_outside:,} images; "


def describe_run(report: RunReport) -> str:
    """Say what was done, what failed, and where it all is."""
    images, reconcile = report.record["images"], report.record["reconcile"]
    errors = ", ".join(f"{count:,} {kind}" for kind, count in sorted(report.record["errors"].items()))
    sample = report.record["sample"]
    drawn = _describe_sample(sample["share"], images["listed"], sample["images_outside"]) if sample else ""
    lines = [
        f"{drawn}{images['listed']:,} images listed, {images['planned']:,} new; {images['labelled']:,} labelled now: "
        f"{images['ok']:,} ok, {images['failed']:,} failed{f' ({errors})' if errors else ''}, "
        f"{report.record['instances']:,} instances, in {clock(report.record['seconds'])}"
    ]
    if reconcile["parts_left"]:
        lines.append(
            f"NOT RECONCILED: {reconcile['images_left']:,} images in {len(reconcile['parts_left'])} parts are missing; "
            f"run the same command again. {'; '.join(report.record['parts']['failures'])}"
        )
    elif not images["labelled"]:
        lines.append("nothing was left to do")
    lines.append(f"record: {report.record_uri}")
    return "\n".join(lines)


GROUPS = {
    "bundle": "what to label, with what, where to",
    "score_threshold": "which detections are kept",
    "batch_size": "how it runs",
    "rows_per_part": "what the table holds",
    "price_per_hour": "time and money",
}


def main() -> NoReturn:
    """Run the command."""
    run_command(PredictArguments, predict, "predict", groups=GROUPS)
