"""The demo from its command line, small: it ends well, leaves what it says, and can be told again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
from PIL import Image

from maskrcnn import read_predictions
from maskrcnn.model.bundle import load_bundle


def _run_demo(folder: Path) -> str:
    command = [sys.executable, "-m", "jobs.demo", "--output", str(folder), "--num-steps", "2", "--num-images", "10"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_a_small_demo_leaves_images_model_table_sheet_and_report(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    told = _run_demo(folder)

    rows = read_predictions(str(folder / "predictions"))
    assert len(rows) == 10
    failed = rows.filter(pc.field("status") == "error").sort_by("image_uri")
    kinds = failed["error_kind"].to_pylist()
    assert kinds == ["corrupt", "corrupt", "unsupported", "corrupt", "too_large"]
    assert "10 images listed, 10 new; 10 labelled now: 5 ok, 5 failed" in told
    assert "10 images listed, 0 new; 0 labelled now" in told
    assert "nothing was left to do" in told

    for name in ("train", "unseen"):
        document = json.loads((folder / name / "annotations.json").read_text())
        assert len(document["images"]) == len(list((folder / name / "images").iterdir())) == 10
    assert [category.id for category in load_bundle(str(folder / "bundle")).categories] == [2, 3, 5, 8]
    with Image.open(folder / "contact-sheet.png") as sheet:
        assert sheet.width > 4 * 300
    assert f"open {folder}/report/index.html" in told
    pages = {path.name for path in (folder / "report").glob("*.html")}
    assert pages == {"index.html", "gallery.html", "scores.html", "training.html"}
    assert "step 2/2" in told
    assert (folder / "training" / "metrics.jsonl").exists()
    assert "category  products  mean_score" in told
