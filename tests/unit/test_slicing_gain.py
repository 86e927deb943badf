"""What slicing gains on a shelf whose products are too small in the network's input: AP before and after, printed."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from PIL import Image

from maskrcnn.coco.annotations import CocoDataset, load_coco
from maskrcnn.coco.evaluate import evaluate
from maskrcnn.coco.rle import area, from_mask, to_bbox, to_json
from maskrcnn.config import SliceConfig
from maskrcnn.model.coco_results import predict_dataset
from maskrcnn.model.predictor import AnyPredictor
from maskrcnn.model.slicing import SlicedPredictor
from maskrcnn.synthetic import draw_shelf
from tests.blobs import BlobPredictor, paint

SMALLEST_SEEN_PX = 6.0


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> tuple[CocoDataset, str]:
    """A shelf of 1200x800 px, painted so that a predictor can be exact; and where it lies."""
    folder = tmp_path_factory.mktemp("shelf")
    drawn = draw_shelf(1, width=1200, height=800, num_boards=7)
    masks = [instance.mask for instance in drawn.instances]
    labels = [1 + index % 3 for index in range(len(masks))]
    Image.fromarray(paint((800, 1200), masks, labels)).save(folder / "shelf.png")
    annotations = []
    for number, (mask, label) in enumerate(zip(masks, labels, strict=True), start=1):
        rle = from_mask(mask)
        of_mask = {"segmentation": to_json(rle), "bbox": to_bbox(rle), "area": area(rle), "iscrowd": 0}
        annotations.append({"id": number, "image_id": 1, "category_id": 10 * label, **of_mask})
    document = {
        "images": [{"id": 1, "file_name": "shelf.png", "width": 1200, "height": 800}],
        "categories": [{"id": 10 * label, "name": f"kind {label}"} for label in (1, 2, 3)],
        "annotations": annotations,
    }
    (folder / "annotations.json").write_text(json.dumps(document))
    return load_coco(str(folder / "annotations.json")), str(folder)


def score(way: str, predictor: AnyPredictor, shelf: tuple[CocoDataset, str]) -> float:
    dataset, folder = shelf
    begin = time.perf_counter()
    results = predict_dataset(predictor, dataset, folder)
    seconds = time.perf_counter() - begin
    ap = float(evaluate(dataset, results, iou_types=("segm",), max_detections=(1000,))["segm"]["AP"])
    print(f"{way:<20} AP {ap:.3f}, {len(results)} found of {dataset.num_annotations}, {seconds:.2f} s")  # noqa: T201
    return ap


def test_slicing_finds_what_the_whole_image_hides(shelf: tuple[CocoDataset, str]) -> None:
    seeing = BlobPredictor(min_side_px=SMALLEST_SEEN_PX)
    configs = {
        f"{merge} {metric}": SliceConfig(256, 0.4, slice_merge=merge, slice_metric=metric)
        for merge, metric in (("nms", "iomin"), ("merge", "iomin"), ("nms", "iou"))
    }
    ap = {way: score(way, SlicedPredictor(seeing, config), shelf) for way, config in configs.items()}
    whole = score("whole", seeing, shelf)
    assert whole < 0.2
    assert ap["nms iomin"] > 0.99
    assert ap["merge iomin"] > 0.99
    assert whole + 0.3 < ap["nms iou"] < 0.8  # small pieces stay, since they are little of what both cover


def test_ranked_by_score_alone_pieces_take_the_place_of_their_wholes(
    shelf: tuple[CocoDataset, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskrcnn.model.slicing._is_cut", lambda boxes, *_: np.zeros(len(boxes), bool))
    seeing = BlobPredictor(min_side_px=SMALLEST_SEEN_PX)
    assert score("ranked by score", SlicedPredictor(seeing, SliceConfig(256, 0.4)), shelf) < 0.5
