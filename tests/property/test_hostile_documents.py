"""Hostile COCO documents: none crashes the process or hangs it, each is accepted, or refused by file, id and field.

`HOSTILE_DOCUMENTS` says how many, `HOSTILE_FIRST` where to begin; the n-th document is always the same.
"""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.coco import rle
from maskrcnn.coco.annotations import CocoDataset, load_coco, parse_coco
from maskrcnn.coco.evaluate import evaluate
from maskrcnn.coco.results import load_results
from maskrcnn.coco.validate.dataset import Validation, validate_annotations
from maskrcnn.coco.validate.repair import repair_dataset, repairs_uri
from maskrcnn.errors import AnnotationError
from tests.coco_documents import good_document
from tests.conftest import PROJECT_ROOT
from tests.hostile_documents import Hostile, hostile_results, hostile_segmentation

NUM_DOCUMENTS = int(os.environ.get("HOSTILE_DOCUMENTS", "2000"))
FIRST = int(os.environ.get("HOSTILE_FIRST", "0"))
MOST_S = 5.0

NOT_MENDED = {
    "duplicate_image_id", "duplicate_category_id", "duplicate_category_name", "category_id_value",
    "missing_list", "empty_list", "list_type", "image_size_value",
    "not_json", "cut_off", "top_level_list", "results_file", "top_level_type",
}  # fmt: skip
"""Errors of which nobody can know what is meant."""

pytestmark = pytest.mark.timeout(24 * 3600)


@pytest.fixture(scope="module")
def hostile() -> Hostile:
    """Documents of real sets too, where they are at hand."""
    shared = Path(os.environ.get("MASKRCNN_SHARED", PROJECT_ROOT.parent / "shared"))
    paths = sorted(shared.glob("data/*/annotations_val.json"))
    return Hostile([_some_of(json.loads(path.read_text()), random.Random(0)) for path in paths])


def _some_of(document: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Keep two images, and some of their annotations."""
    images = rng.sample(document["images"], 2)
    ids = {image["id"] for image in images}
    annotations = [row for row in document["annotations"] if row["image_id"] in ids][:12]
    return {"images": images, "annotations": annotations, "categories": document["categories"]}


def test_hostile_documents_are_accepted_or_refused_by_name(hostile: Hostile, tmp_path: Path) -> None:
    seen: Counter[str] = Counter()
    for number in range(FIRST, FIRST + NUM_DOCUMENTS):
        path = tmp_path / "doc.json"
        path.write_bytes(hostile.document(number))
        begin = time.monotonic()
        validation = validate_annotations(str(path))
        dataset = _load(path, number)
        _compare(validation, dataset, number)
        _repair(validation, tmp_path, number)
        assert time.monotonic() - begin < MOST_S, f"document {number}"
        seen["accepted" if dataset else "refused"] += 1
        seen.update(validation.findings.codes())
    if NUM_DOCUMENTS >= 2000:  # that the documents are as hostile as they are meant to be
        assert min(seen["accepted"], seen["refused"]) > NUM_DOCUMENTS / 20
        assert len(seen) > 45


def _load(path: Path, number: int) -> CocoDataset | None:
    """Load a document and draw every mask; None where it is refused, properly."""
    try:
        dataset = load_coco(str(path))
        for index in range(dataset.num_annotations):
            if dataset.has_segmentation(index):
                rle.to_mask(dataset.rle(index))
        return dataset
    except AnnotationError as error:
        refusal = error
    assert refusal.place == str(path), f"document {number}: {refusal}"
    assert "\n" not in str(refusal)
    assert re.match(r"annotation|image|categor|file", refusal.thing), str(refusal)
    return None


def _compare(validation: Validation, dataset: CocoDataset | None, number: int) -> None:
    findings = validation.findings
    for finding in findings:
        assert finding.file == validation.scanned.uri
        assert finding.subject == "file" or (finding.index is not None and finding.field), f"document {number}"
    if dataset is None:
        assert findings.num("error") or findings.counts["size_missing"], f"document {number} is refused and not said"
    elif not findings.num("error"):
        masks = [dataset.rle(index) for index in range(dataset.num_annotations)]
        assert all(mask["size"] for mask in masks)


def _repair(validation: Validation, folder: Path, number: int) -> None:
    if not validation.scanned.is_whole:
        return
    uri = str(folder / "fixed.json")
    repair_dataset(validation, uri)
    json.loads(Path(repairs_uri(uri)).read_bytes())
    left = validate_annotations(uri).findings
    unmended = {code for code in left.codes() if left.of_code(code)[0].severity == "error"} - NOT_MENDED
    is_hopeless = bool(validation.findings.counts.keys() & NOT_MENDED)
    assert not unmended or is_hopeless, f"document {number}: {unmended}"
    Path(uri).unlink()
    Path(repairs_uri(uri)).unlink()


def test_hostile_segmentations_are_drawn_or_refused(tmp_path: Path) -> None:
    num_drawn = 0
    for number in range(FIRST, FIRST + NUM_DOCUMENTS):
        segmentation = hostile_segmentation(random.Random(number))
        begin = time.monotonic()
        refusal = None
        try:
            mask = rle.from_segmentation(segmentation, 40, 60, thing="annotation 1 segmentation", place="a.json")
            assert rle.to_mask(mask).shape == (40, 60)
            assert rle.area(mask) == rle.to_mask(mask).sum()
            num_drawn += 1
        except AnnotationError as error:
            refusal = error
        if refusal:
            assert refusal.thing.startswith("annotation 1 segmentation"), f"segmentation {number}"
            assert refusal.place == "a.json"
        assert time.monotonic() - begin < MOST_S, f"segmentation {number}"
    assert 0 < num_drawn < NUM_DOCUMENTS


def test_hostile_results_are_scored_or_refused_by_name(tmp_path: Path) -> None:
    dataset = parse_coco(good_document(), "truth.json")
    path = tmp_path / "results.json"
    num_scored = 0
    for number in range(FIRST, FIRST + NUM_DOCUMENTS):
        path.write_bytes(hostile_results(number))
        begin = time.monotonic()
        refusal = None
        try:
            metrics = evaluate(
                dataset, load_results(str(path)), iou_types=("bbox", "segm", "boundary"), with_analysis=True
            )
            assert all(-1 <= row["AP"] <= 1 for name, row in metrics.items() if name != "dropped_predictions")
            num_scored += 1
        except AnnotationError as error:
            refusal = error
        if refusal:
            assert refusal.place == str(path), f"results {number}: {refusal}"
            assert re.match(r"prediction|results file|file", refusal.thing), f"results {number}: {refusal}"
        assert time.monotonic() - begin < MOST_S, f"results {number}"
    assert 0 < num_scored < NUM_DOCUMENTS
