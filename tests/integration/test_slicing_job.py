"""The labelling command with tiles: rows as the predictor gives them, recorded, and refused where they would differ."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn import read_predictions
from maskrcnn.coco.annotations import load_coco
from maskrcnn.coco.evaluate import evaluate
from maskrcnn.coco.rle import Rle, area
from maskrcnn.commands.command_line import run_command
from maskrcnn.commands.evaluate import EvaluateArguments, run_evaluation
from maskrcnn.commands.predict import PredictArguments, predict
from maskrcnn.commands.slicing import SliceArguments
from maskrcnn.config import SliceConfig, ThresholdConfig
from maskrcnn.errors import InputError
from maskrcnn.labelling.output import Output
from maskrcnn.model.bundle import load_bundle
from maskrcnn.model.coco_results import predict_dataset
from maskrcnn.model.loading import load_predictor
from maskrcnn.synthetic import write_shelves
from tests.conftest import without_page

Label = Callable[..., tuple[int, str]]


@pytest.fixture
def label(
    tiny_bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Label]:
    """Run the command over a large and a small image, and give its exit code and what it said."""
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for name, (width, height) in {"large": (300, 200), "small": (90, 60)}.items():
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(tmp_path / "in" / f"{name}.png")

    def label(*words: str) -> tuple[int, str]:
        places = ["--bundle", tiny_bundle, "--images", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["jobs/predict.py", *places, "--num-actors", "1", "--device", "cpu", *words])
        with pytest.raises(SystemExit) as stop:
            run_command(PredictArguments, predict, "predict")
        said = capsys.readouterr()
        return int(stop.value.code or 0), said.out if stop.value.code == 0 else said.err

    with warnings.catch_warnings():  # the command shows them its own way, for good
        warnings.simplefilter("default")
        yield label


def test_tiles_are_labelled_recorded_and_not_mixed_with_others(
    label: Label, tiny_bundle: str, local_ray: None, tmp_path: Path
) -> None:
    sliced = ("--slice", "128", "--mask-nms", "0.5", "--max-detections", "30")
    assert label(*sliced)[0] == 0

    thresholds = ThresholdConfig(load_bundle(tiny_bundle).thresholds.score_threshold, 0.8, 30)
    predictor = load_predictor(tiny_bundle, thresholds=thresholds, device="cpu", mask_nms=0.5, slicing=SliceConfig(128))
    whole = load_predictor(tiny_bundle, thresholds=thresholds, device="cpu", mask_nms=0.5)
    rows = {Path(row["image_uri"]).stem: row for row in read_predictions(str(tmp_path / "out")).to_pylist()}
    for name, expected_of in (("large", predictor), ("small", whole)):
        [expected] = expected_of([(tmp_path / "in" / f"{name}.png").read_bytes()])
        assert rows[name]["num_instances"] == len(expected) > 0
        found, size = rows[name]["instances"], [rows[name]["height"], rows[name]["width"]]
        assert [each["score"] for each in found] == pytest.approx(expected.scores.tolist(), rel=1e-4)
        assert [each["x"] for each in found] == pytest.approx(expected.boxes[:, 0].tolist(), abs=0.05)
        masks: list[Rle] = [{"size": size, "counts": counts} for counts in rows[name]["masks"]]
        assert [*map(area, masks)] == pytest.approx([*map(area, expected.rles)], rel=0.02, abs=3)
    [unsliced] = whole([(tmp_path / "in" / "large.png").read_bytes()])
    assert rows["large"]["num_instances"] > len(unsliced)

    recorded = Output(str(tmp_path / "out")).header(1).settings
    assert recorded["slice"] == 128
    assert recorded["slice_overlap"] == 0.2
    assert (recorded["mask_nms"], recorded["nms_threshold"]) == (0.5, 0.8)

    code, said = label(*sliced)
    assert code == 0
    assert "nothing was left to do" in said
    for other, told in (
        (("--slice", "160"), "slice was 128 when this output was begun, and is 160 now"),
        (("--slice", "128", "--slice-overlap", "0.3"), "slice_overlap was 0.2 when this output was begun, and is 0.3"),
        (("--slice", "128", "--mask-nms", "0.6"), "mask_nms was 0.5 when this output was begun, and is 0.6 now"),
        ((), "slice was 128 when this output was begun, and is None now"),
    ):
        code, said = label(*sliced[2:], *other)
        [line] = said.splitlines()
        assert code == 2
        assert line.startswith(f"jobs.predict: {told}")
        assert without_page(line).endswith("take the same as before, or another --output")


@pytest.mark.filterwarnings("ignore:category 2 is 'can':maskrcnn.config.UnusualValueWarning")  # of another data set
def test_a_bundle_is_scored_with_tiles_and_mask_nms(tiny_bundle: str, tmp_path: Path) -> None:
    annotations = write_shelves(tmp_path, 2, seed=1)
    arguments = EvaluateArguments(
        annotations=str(annotations),
        bundle=tiny_bundle,
        images=str(tmp_path / "images"),
        iou_types=("bbox",),
        mask_nms=0.4,
        device="cpu",
        output=str(tmp_path / "metrics.json"),
        slicing=SliceArguments(slice=96, slice_overlap=0.3),
    )
    assert run_evaluation(arguments) == 0
    thresholds = ThresholdConfig(0.05, 0.8, 100)
    slicing = SliceConfig(96, 0.3)
    predictor = load_predictor(tiny_bundle, thresholds=thresholds, device="cpu", mask_nms=0.4, slicing=slicing)
    dataset = load_coco(str(annotations))
    found = predict_dataset(predictor, dataset, str(tmp_path / "images"))
    expected = evaluate(dataset, found, iou_types=("bbox",), with_analysis=True)
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(json.dumps(expected))
    with pytest.raises(InputError, match="--mask-nms must be in"):
        run_evaluation(replace(arguments, mask_nms=2.0))
    with pytest.raises(InputError, match="--slice-overlap needs --slice"):
        run_evaluation(replace(arguments, slicing=SliceArguments(slice_overlap=0.3)))
