"""Score predictions, or a bundle, against annotations: COCO's numbers, the best score thresholds, kinds of errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, NoReturn, TypeVar

from maskrcnn import storage
from maskrcnn.coco.annotations import CocoDataset, load_coco
from maskrcnn.coco.categories import check_category_names
from maskrcnn.coco.evaluate import evaluate
from maskrcnn.coco.evaluate.scoreboard import format_metrics, to_json
from maskrcnn.coco.results import CocoResults, check_categories, check_images, load_results
from maskrcnn.commands.command_line import DONE, run_command
from maskrcnn.commands.slicing import SliceArguments
from maskrcnn.config import BOX_NMS_BEFORE_MASK_NMS, check, flag
from maskrcnn.errors import InputError, OutputError, StorageError
from maskrcnn.labelling.coco_results import load_table_results
from maskrcnn.progress import Progress

_Loaded = TypeVar("_Loaded")

HIGHEST_THRESHOLD_FOR_AP = 0.05
"""AP weighs every score: detectors are scored by detections down to this one."""
_FORMATS = "the --output folder of a labelling job or a COCO results .json"


@dataclass(frozen=True)
class EvaluateArguments:
    """Score predictions, or a bundle, against annotations: COCO's 12 numbers and AP by category, the score thresholds
    with the best F1, and what kinds of errors there are; --output also has precision-recall curves and confusions."""

    annotations: str
    """The truth: a COCO JSON, on any URI."""
    predictions: str | None = None
    """What to score: the --output of a labelling job, or a COCO results .json."""
    bundle: str | None = None
    """Or the model to run over the images: a folder with model.json and model.safetensors."""
    images: str | None = None
    """The folder that the annotations' file names are relative to; needed with --bundle, and with --predictions where
    file names alone do not tell images apart."""
    iou_types: tuple[Literal["bbox", "segm", "boundary"], ...] = ("bbox", "segm")
    """Score by the overlap of boxes, of masks, or of masks' outlines (Boundary AP), one or more."""
    max_detections: tuple[int, ...] = (1, 10, 100)
    """Limits on what counts in an image and category: AR is given at each, everything else at the largest."""
    output: str | None = None
    """Write the numbers there as JSON; an older file is replaced."""
    score_threshold: float = HIGHEST_THRESHOLD_FOR_AP
    """Of a --bundle: AP weighs every score, so that few detections are dropped, in [0, 1]."""
    mask_nms: float | None = None
    """Of a --bundle: as in jobs.predict, in (0, 1]."""
    batch_size: int = 2
    """Of a --bundle: images, or tiles of --slice, a forward."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where a --bundle's network runs."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on GPUs that have it, fp32 elsewhere."""
    slicing: SliceArguments = field(default_factory=SliceArguments)


def run_evaluation(arguments: EvaluateArguments) -> int:
    """Score, print the table, write the JSON."""
    if (arguments.predictions is None) == (arguments.bundle is None):
        raise InputError("--predictions or --bundle", "must be given, one of the two")
    if arguments.bundle is None:
        _refuse_options_of_bundles(arguments)
    check(bool(arguments.iou_types), "iou_types", "nothing", "bbox, segm or boundary, one or more")
    check(min(arguments.max_detections, default=0) >= 1, "max_detections", arguments.max_detections, "1 or more each")
    dataset = _load("--annotations", arguments.annotations, load_coco)
    results, notes = (_predict(arguments, dataset), []) if arguments.bundle else _read(arguments, dataset)
    check_categories(results, dataset)
    for note in notes:
        print(note)
    metrics = evaluate(
        dataset,
        results,
        iou_types=arguments.iou_types,
        max_detections=arguments.max_detections,
        with_analysis=True,
    )
    names = zip(map(str, dataset.categories.ids), dataset.categories.names, strict=True)
    print(format_metrics(metrics, dict(names)))
    if arguments.output:
        try:
            storage.put(arguments.output, to_json(metrics))
        except StorageError as error:
            raise OutputError("--output", f"cannot be written: {error.reason}", error.uri) from error
    return DONE


def _refuse_options_of_bundles(arguments: EvaluateArguments) -> None:
    """Refuse what would have no effect."""
    plain = EvaluateArguments(arguments.annotations)
    for name in ("score_threshold", "batch_size", "device", "precision", "mask_nms"):
        if getattr(arguments, name) != getattr(plain, name):
            raise InputError(flag(name), "needs --bundle, which is not given")
    if arguments.slicing != plain.slicing:
        raise InputError("--slice", "needs --bundle, which is not given")


def _read(arguments: EvaluateArguments, dataset: CocoDataset) -> tuple[CocoResults, list[str]]:
    """Give the predictions, and what is worth knowing of them."""
    uri = str(arguments.predictions)
    with_masks = _needs_masks(arguments)
    if uri.lower().endswith(".json"):
        results = _load("--predictions", uri, lambda uri: load_results(uri, with_masks=with_masks))
        check_images(results, dataset)
        return results, []
    if storage.exists(uri):
        raise InputError("--predictions", f"must be {_FORMATS}, got another file", uri)
    table = load_table_results(uri, dataset, images_uri=arguments.images, with_masks=with_masks)
    notes = []
    if num_missing := dataset.num_images - len(table.labelled_ids):
        notes.append(
            f"{num_missing:,} of {dataset.num_images:,} images failed or are not in the table; they count as empty"
        )
    if table.score_threshold > HIGHEST_THRESHOLD_FOR_AP:
        notes.append(
            f"the table has no detections below its score threshold of {table.score_threshold:g}: AP and AR are lower "
            "than the bundle's own, which --bundle gives"
        )
    return table.results, notes


def _predict(arguments: EvaluateArguments, dataset: CocoDataset) -> CocoResults:
    bundle_uri = str(arguments.bundle)
    if arguments.images is None:
        raise InputError("--images", "must be given with --bundle: the folder of the annotations' file names")
    check(arguments.batch_size >= 1, "batch_size", arguments.batch_size, "1 or more")
    # Here, since torch takes seconds, and scoring a table does without.
    from maskrcnn.model.bundle import load_bundle
    from maskrcnn.model.coco_results import predict_dataset
    from maskrcnn.model.loading import load_predictor

    bundle = load_bundle(bundle_uri)
    names = {one.id: one.name for one in bundle.categories}
    check_category_names(names, bundle_uri, dataset.categories, dataset.place)
    kept = bundle.thresholds
    # What a limit may count, the predictor must not drop before.
    max_detections = max(kept.max_detections, *arguments.max_detections)
    thresholds = replace(kept, score_threshold=arguments.score_threshold, max_detections=max_detections)
    if arguments.mask_nms is not None:
        thresholds = replace(thresholds, nms_threshold=BOX_NMS_BEFORE_MASK_NMS)
    predictor = load_predictor(
        bundle_uri,
        thresholds=thresholds,
        device=arguments.device,
        precision=arguments.precision,
        mask_nms=arguments.mask_nms,
        slicing=arguments.slicing.to_config(),
        batch_size=arguments.batch_size,
    )
    progress = Progress(dataset.num_images, "predicting")
    results = predict_dataset(
        predictor,
        dataset,
        arguments.images,
        batch_size=arguments.batch_size,
        with_masks=_needs_masks(arguments) or arguments.mask_nms is not None,
        on_progress=lambda num_done: progress.update(num_done, 0),
    )
    progress.finish(dataset.num_images, 0)
    return results


def _needs_masks(arguments: EvaluateArguments) -> bool:
    return set(arguments.iou_types) != {"bbox"}


def _load(option: str, uri: str, load: Callable[[str], _Loaded]) -> _Loaded:
    try:
        return load(uri)
    except StorageError as error:
        raise InputError(option, f"cannot be read: {error.reason}", error.uri) from error


GROUPS = {
    "annotations": "what to score, by what",
    "iou_types": "how to score",
    "score_threshold": "how to run a --bundle",
}


def main() -> NoReturn:
    """Run the command."""
    run_command(EvaluateArguments, run_evaluation, "evaluate", groups=GROUPS)
