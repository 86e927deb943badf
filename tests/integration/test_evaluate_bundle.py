"""The evaluate command with a bundle: the predictor over the images of a COCO file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from maskrcnn import Predictor
from maskrcnn.coco.annotations import load_coco
from maskrcnn.coco.evaluate import evaluate
from maskrcnn.commands.evaluate import EvaluateArguments, run_evaluation
from maskrcnn.config import ThresholdConfig
from maskrcnn.errors import InputError
from maskrcnn.model.bundle import load_bundle, load_network
from maskrcnn.model.coco_results import predict_dataset
from maskrcnn.synthetic import write_shelves


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shelves whose categories have the bundle's names where they have its ids."""
    path = write_shelves(tmp_path_factory.mktemp("shelves"), 3, seed=1)
    names = {2: "can", 3: "bottle", 5: "box", 8: "crate"}
    categories = [{"id": number, "name": name} for number, name in names.items()]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"categories": categories}))
    return path


def test_a_bundle_is_scored_over_the_images(shelves: Path, tiny_bundle: str, tmp_path: Path) -> None:
    document = json.loads(shelves.read_text())
    annotations = tmp_path / "truth.json"
    # One that is right as far as the network goes: its own best answers, so that the score cannot be 0.
    thresholds = ThresholdConfig(score_threshold=0.05, max_detections=300)
    predictor = Predictor.from_bundle(tiny_bundle, precision="fp32", thresholds=thresholds)
    document["annotations"], rows = [], []
    for image in document["images"]:
        [one] = predictor([(shelves.parent / "images" / image["file_name"]).read_bytes()])
        for place in range(len(one)):
            x0, y0, x1, y1 = one.boxes[place].tolist()
            row = {"image_id": image["id"], "category_id": int(one.category_ids[place])}
            row["bbox"] = [x0, y0, x1 - x0, y1 - y0]
            row["segmentation"] = {"size": one.rles[place]["size"], "counts": one.rles[place]["counts"].decode()}
            rows.append({**row, "score": float(one.scores[place])})
            if place < 5:
                area = (x1 - x0) * (y1 - y0)
                document["annotations"].append({**row, "id": len(rows), "area": area, "iscrowd": 0})
    document["categories"] = [{"id": number, "name": name} for number, name in {2: "can", 5: "box", 9: "bag"}.items()]
    annotations.write_text(json.dumps(document))
    arguments = EvaluateArguments(
        annotations=str(annotations),
        bundle=tiny_bundle,
        images=str(shelves.parent / "images"),
        precision="fp32",
        max_detections=(1, 300),
        output=str(tmp_path / "metrics.json"),
    )
    assert run_evaluation(arguments) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    expected = evaluate(load_coco(str(annotations)), rows, max_detections=(1, 300), with_analysis=True)
    assert metrics == json.loads(json.dumps(expected))
    assert metrics["bbox"]["AP"] > 0.1


def test_a_bundle_of_other_categories_is_refused_before_it_runs(
    shelves: Path, tiny_bundle: str, tmp_path: Path
) -> None:
    document = json.loads(shelves.read_text())
    for category in document["categories"]:
        category["name"] = f"my {category['name']}"
    (tmp_path / "truth.json").write_text(json.dumps(document))
    arguments = EvaluateArguments(str(tmp_path / "truth.json"), bundle=tiny_bundle, images=str(tmp_path / "none"))
    with pytest.raises(InputError, match=r"category 2 is 'can' in .*tiny and 'my can' in .*, and no id has the same"):
        run_evaluation(arguments)


def test_an_image_that_cannot_be_read_is_one_clear_line(shelves: Path, tiny_bundle: str, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in (shelves.parent / "images").iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    arguments = EvaluateArguments(str(shelves), bundle=tiny_bundle, images=str(images), iou_types=("bbox",))
    broken = images / "shelf-00003.jpg"
    Image.new("RGB", (20, 30)).save(broken)
    with pytest.raises(InputError, match="image 3 of .* must be 160 x 160 px as annotated, and is 20 x 30, in .*00003"):
        run_evaluation(arguments)
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(InputError, match=r"image 3 of .* cannot be decoded \(corrupt\): .*, in .*shelf-00003.jpg"):
        run_evaluation(arguments)
    broken.unlink()
    with pytest.raises(InputError, match=r"image 3 of .* is missing, in .*shelf-00003.jpg; is --images the folder"):
        run_evaluation(arguments)


def test_annotated_sizes_are_those_of_the_files_however_they_are_decoded(
    shelves: Path, tiny_bundle: str, tmp_path: Path
) -> None:
    bundle = load_bundle(tiny_bundle)
    predictor = Predictor(
        load_network(bundle),
        replace(bundle.preprocess, decode_scale=8),
        bundle.thresholds,
        categories=bundle.categories,
    )
    images = str(shelves.parent / "images")
    results = predict_dataset(predictor, load_coco(str(shelves)), images)
    assert len(results.scores) > 0
    assert results.segmentations is not None
    assert (results.segmentations.sizes == 160).all()
    document = json.loads(shelves.read_text())
    for image in document["images"]:
        image["width"] = image["height"] = 40  # what the reduced images measure
    document["annotations"] = []
    (tmp_path / "reduced.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="must be 40 x 40 px as annotated, and is 160 x 160"):
        predict_dataset(predictor, load_coco(str(tmp_path / "reduced.json")), images)
