"""The whole story on drawn shelves, on this machine, in minutes: draw, train, score, label, look, query."""

from __future__ import annotations

import json
import shutil
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import pyarrow.compute as pc

from maskrcnn import read_predictions
from maskrcnn.coco.annotations import load_coco
from maskrcnn.coco.evaluate import evaluate
from maskrcnn.coco.evaluate.scoreboard import format_metrics, to_json
from maskrcnn.commands.command_line import DONE, NOT_AS_IT_SHOULD_BE, run_command
from maskrcnn.commands.predict import describe_run
from maskrcnn.config import LabelConfig, check
from maskrcnn.drawing import Mark
from maskrcnn.errors import OutputError
from maskrcnn.images import BadImage, decode
from maskrcnn.labelling.coco_results import load_table_results
from maskrcnn.labelling.job import label_images
from maskrcnn.model.precision import fastest_precision
from maskrcnn.progress import clock
from maskrcnn.report.job import write_report
from maskrcnn.report.plots import Tile, draw_contact_sheet
from maskrcnn.report.settings import ReportConfig
from maskrcnn.synthetic import write_shelves
from maskrcnn.training.arguments import TrainArguments, with_preset
from maskrcnn.training.job import TrainingJob
from maskrcnn.training.metrics import read_metrics

MARKER = ".maskrcnn-demo"
"""A file that says whose folder this is, since the demo replaces what it left there before."""
LEFTOVERS = ("train", "unseen", "training", "bundle", "predictions", "report")
SHEET_NAME = "contact-sheet.png"
NUM_SCORED = 40
NUM_TILES = 12
QUERY = """\
SELECT instance.category, count(*) AS products, round(avg(instance.score), 2) AS mean_score,
       round(avg(instance.area)) AS mean_area_px
FROM (SELECT unnest(instances) AS instance FROM '{table}' WHERE status = 'ok')
GROUP BY ALL ORDER BY products DESC"""


@dataclass(frozen=True)
class DemoArguments:
    """Draw shelves, train, score, label unseen images, and show the result: the whole story, in minutes."""

    output: str = "demo-output"
    """The folder to leave everything in; what an earlier demo left there is replaced."""
    seed: int = 0
    """Of the drawing and the training."""
    num_steps: int = 320
    """Optimizer updates; more give a better model."""
    num_images: int = 200
    """To learn from, and as many unseen ones to label; 10 or more."""


def demo(arguments: DemoArguments) -> int:
    """Tell the story."""
    begin = time.monotonic()
    check(
        arguments.num_images >= 2 * len(BREAKAGES), "num_images", arguments.num_images, f"{2 * len(BREAKAGES)} or more"
    )
    num_images, precision = arguments.num_images, fastest_precision()
    folder = empty_folder(Path(arguments.output))
    unseen, bundle, predictions = folder / "unseen", folder / "bundle", folder / "predictions"

    tell(1, f"drawing {num_images} shelves to learn from, and {num_images} unseen ones, with exact masks")
    train_annotations = write_shelves(folder / "train", num_images, seed=2 * arguments.seed)
    unseen_annotations = write_shelves(unseen, num_images, seed=2 * arguments.seed + 1)

    num_scored = min(NUM_SCORED, num_images)
    tell(2, f"training Mask R-CNN on a ResNet-18 from scratch, and validating on {num_scored} unseen images")
    validation_annotations = write_first_images(unseen_annotations, num_scored)
    training = TrainArguments(
        images=str(train_annotations.parent / "images"),
        annotations=str(train_annotations),
        output=str(folder / "training"),
        val_images=str(unseen / "images"),
        val_annotations=str(validation_annotations),
        validate_epochs=0,
        keep_checkpoints=1,
        seed=arguments.seed,
        precision=precision,
    )
    training = replace(with_preset(training, "demo"), max_steps=arguments.num_steps)
    shutil.copytree(TrainingJob(training).run().bundle_uri, bundle)

    tell(3, f"what {num_scored} unseen images say of it")
    print(format_metrics(read_metrics(str(folder / "training"))[-1]["validation"]))

    break_images(unseen / "images")
    tell(4, f"labelling {num_images} unseen images, {len(BREAKAGES)} of them broken meanwhile")
    label_config = LabelConfig(
        bundle_uri=str(bundle),
        images_uri=str(unseen / "images"),
        output_uri=str(predictions),
        batch_size=4,
        rows_per_part=50,
        precision=precision,
    )
    first = label_images(label_config)
    print(describe_run(first))
    tell(5, "the same job again")
    again = label_images(label_config)
    print(describe_run(again))

    tell(6, "what the table says")
    show_failures(predictions)
    show_query(predictions)
    draw_sheet(predictions, folder / SHEET_NAME)
    tell(7, "a report of it all, to look at")
    pages = write_pages(predictions, unseen_annotations, folder)
    print(
        f"open {pages}\n"
        f"\n{folder}/report             overview, gallery, scores, training\n"
        f"{folder}/{SHEET_NAME}  labelled images, drawn\n"
        f"{folder}/predictions        the table, its plans and run records\n"
        f"{folder}/bundle             the model: python -m jobs.predict --bundle {bundle} --images ... --output ...\n"
        f"{folder}/training           metrics, checkpoints\n"
        f"{folder}/train, unseen      the images with their COCO JSON\n"
        f"done in {clock(time.monotonic() - begin)}"
    )
    return DONE if first.is_reconciled and again.is_reconciled else NOT_AS_IT_SHOULD_BE


def tell(chapter: int, title: str) -> None:
    """Begin a chapter."""
    print(f"\n[{chapter}/7] {title}", flush=True)


def empty_folder(folder: Path) -> Path:
    """Make the demo's folder, without what an earlier demo left in it.

    Raises:
        OutputError: when there is something in it that is no demo's.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError("--output", "must be a folder, and is a file", str(folder))
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise OutputError("--output", "must be a new folder or an earlier demo's", str(folder), "name another")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()
    for name in LEFTOVERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / SHEET_NAME).unlink(missing_ok=True)
    return folder


def write_first_images(annotations_path: Path, num_images: int) -> Path:
    """Write the annotations of a COCO file's first images beside it."""
    document = json.loads(annotations_path.read_bytes())
    document["images"] = document["images"][:num_images]
    chosen = {image["id"] for image in document["images"]}
    document["annotations"] = [each for each in document["annotations"] if each["image_id"] in chosen]
    path = annotations_path.with_name("validation.json")
    path.write_text(json.dumps(document))
    return path


def break_images(folder: Path) -> None:
    """Break the last images of a folder, each in its own way."""
    image_paths = sorted(folder.iterdir())
    for image_path, breakage in zip(image_paths[-len(BREAKAGES) :], BREAKAGES, strict=True):
        image_path.write_bytes(breakage(image_path.read_bytes()))


def _declare_200_megapixels(body: bytes) -> bytes:
    sizes_at = body.index(b"\xff\xc0") + 5  # baseline JPEG's frame header: length, precision, then height and width
    return body[:sizes_at] + struct.pack(">HH", 10_000, 20_000) + body[sizes_at + 4 :]


BREAKAGES: tuple[Callable[[bytes], bytes], ...] = (
    lambda body: body[: len(body) // 2],
    lambda body: b"",
    lambda body: b"<html><body>503 Service Unavailable</body></html>",
    lambda body: body[: len(body) // 2] + bytes(len(body) - len(body) // 2),
    _declare_200_megapixels,
)
"""Cut off, empty, a web page, zeroed from the middle on, a header that says 200 megapixels."""


def show_failures(predictions: Path) -> None:
    """Print the images that have no detections, and why."""
    failed = read_predictions(str(predictions), columns=["image_uri", "status", "error_kind", "error_message"])
    for row in failed.filter(pc.field("status") == "error").sort_by("image_uri").to_pylist():
        print(f"{Path(row['image_uri']).name}  {row['error_kind']:<12} {row['error_message']:.80}")


def show_query(predictions: Path) -> None:
    """Print a query over the Parquet files, and its answer where DuckDB is installed."""
    query = QUERY.format(table=f"{predictions}/table/*.parquet")
    print(f"\n{query}\n")
    try:
        import duckdb
    except ImportError:
        print("(install duckdb to run it)")
        return
    answer = duckdb.connect().execute(query)
    rows = [tuple(column[0] for column in answer.description or ()), *answer.fetchall()]
    widths = [max(len(str(value)) for value in column) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{value!s:<{width}}" for value, width in zip(row, widths, strict=True)))


def draw_sheet(predictions: Path, sheet_path: Path) -> None:
    """Draw the first images of the table, and one that failed, as the table has them."""
    table = read_predictions(str(predictions)).sort_by("image_uri")
    sound, failed = (table.filter(pc.field("status") == status).to_pylist() for status in ("ok", "error"))
    tiles = [_tile(row) for row in [*sound[: NUM_TILES - 1], *failed[:1]]]
    draw_contact_sheet(tiles).save(sheet_path)


def write_pages(predictions: Path, annotations_path: Path, folder: Path) -> Path:
    """Score the table, write a report of everything, and give its first page."""
    dataset = load_coco(str(annotations_path))
    results = load_table_results(str(predictions), dataset).results
    metrics_path = annotations_path.with_name("metrics.json")
    metrics_path.write_bytes(to_json(evaluate(dataset, results, with_analysis=True)))
    config = ReportConfig(
        predictions_uri=str(predictions),
        output_uri=str(folder / "report"),
        annotations_uri=str(annotations_path),
        metrics_uri=str(metrics_path),
        training_uri=str(folder / "training"),
    )
    write_report(config)
    return folder / "report" / "index.html"


def _tile(row: dict[str, Any]) -> Tile:
    image_path = Path(row["image_uri"])
    if row["status"] == "error":
        return Tile(None, [], f"{image_path.name}  {row['error_kind']}: {row['error_message']}")
    image = decode(image_path.read_bytes())
    size = [row["height"], row["width"]]
    marks = [
        Mark({"size": size, "counts": counts}, instance["category"], instance["score"])
        for counts, instance in zip(row["masks"], row["instances"], strict=True)
    ]
    caption = f"{image_path.name}  {row['num_instances']} products"
    return Tile(None if isinstance(image, BadImage) else image, marks, caption)


def main() -> NoReturn:
    """Run the command."""
    run_command(DemoArguments, demo, "demo")
