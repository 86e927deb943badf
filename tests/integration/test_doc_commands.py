"""Every command of the documentation is run, page by page, from top to bottom, as a reader would.

Trainings take two steps on small pictures; everything else is run as it stands. Blocks that need a cluster or a
download say so above them, and are only parsed (``tests/unit/test_doc_pages.py``).
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from maskrcnn.commands.predict import PredictArguments, predict
from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig
from maskrcnn.model.bundle import Category, save_bundle
from maskrcnn.model.network import build_network
from maskrcnn.synthetic import CATEGORIES, write_shelves
from tests.conftest import PROJECT_ROOT, s3_client
from tests.doc_pages import PAGES, Block, read_blocks, words_of_job

pytestmark = [
    pytest.mark.usefixtures("local_ray"),
    pytest.mark.filterwarnings("ignore::maskrcnn.config.UnusualValueWarning"),
]
RUN = [page for page in PAGES if any(block.language in ("sh", "python", "sql") for block in read_blocks(page))]
QUICK_TRAINING = {
    "--preset": "demo", "--max-steps": "2", "--min-size": "64", "--max-size": "64", "--precision": "fp32",
    "--weights": "none", "--device": "cpu", "--validate-epochs": "0", "--save-minutes": "0",
    "--max-detections": "100",  # a network that has learnt nothing finds as much as it may
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, s3_endpoint: str, local_ray: None) -> Path:
    """A reader's machine after ``make demo``: where commands are typed, and a home with photos and a data set."""
    place = tmp_path_factory.mktemp("reader") / "machine"
    home, folder = place / "home", place / "checkout"
    folder.mkdir(parents=True)
    for name in ("deploy", "docs", "jobs", "maskrcnn"):
        (folder / name).symlink_to(PROJECT_ROOT / name)
    annotations = write_shelves(home / "data", 4, seed=1, width=96, height=96, num_boards=1)
    shutil.copy(annotations, home / "data" / "train.json")
    shutil.copy(annotations, home / "data" / "val.json")
    demo = folder / "demo-output"
    unseen = write_shelves(demo / "unseen", 4, seed=2, width=96, height=96, num_boards=1).parent
    shutil.copytree(unseen / "images", home / "photos")
    (folder / "photo.jpg").symlink_to(min((unseen / "images").iterdir()))
    write_bundle(demo / "bundle")
    arguments = PredictArguments(
        bundle=str(demo / "bundle"), images=str(unseen / "images"), output=str(demo / "predictions")
    )
    assert predict(arguments) == 0
    shutil.copytree(place, place.with_name("as-it-was"), symlinks=True)
    return place


@pytest.fixture
def reader(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine as it was before another page was read, always at the same place, which the demo's table names."""
    shutil.rmtree(prepared)
    shutil.copytree(prepared.with_name("as-it-was"), prepared, symlinks=True)
    home, folder = prepared / "home", prepared / "checkout"
    fill_buckets(folder)
    for name, value in (("HOME", str(home)), ("PYTHONPATH", str(PROJECT_ROOT)), ("PATH", path_of_the_environment())):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    return folder


def path_of_the_environment() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def write_bundle(folder: Path) -> None:
    """Write a model of the demo's categories that finds something in every picture, and learns from none."""
    torch.manual_seed(0)
    model = ModelConfig(backbone="resnet18", num_labels=len(CATEGORIES) + 1, max_proposals=24)
    preprocess, thresholds = PreprocessConfig(min_size_px=32, max_size_px=64), ThresholdConfig(0.3, 0.5, 8)
    network = build_network(model, preprocess, thresholds).eval()
    with torch.no_grad():
        network.roi_heads.box_predictor.cls_score.weight.mul_(20)
    categories = [Category(id_, name, label + 1) for label, (id_, name) in enumerate(CATEGORIES.items())]
    save_bundle(
        str(folder),
        network,
        model=model,
        preprocess=preprocess,
        thresholds=thresholds,
        categories=categories,
        provenance={"weights": "random"},
    )


def fill_buckets(folder: Path) -> None:
    """Put into a store what the pages say is there: photos of two stores and nights, and the model."""
    client, demo = s3_client(), folder / "demo-output"
    for bucket in ("photos", "models", "labels"):
        client.create_bucket(Bucket=bucket)
        for each in client.list_objects_v2(Bucket=bucket).get("Contents", ()):
            client.delete_object(Bucket=bucket, Key=each["Key"])
    for index, image_path in enumerate(sorted((demo / "unseen" / "images").iterdir())):
        key = f"2026-11-22/store-{index % 2}/{image_path.name}"
        client.put_object(Bucket="photos", Key=key, Body=image_path.read_bytes())
    for name in ("model.json", "model.safetensors"):
        client.put_object(Bucket="models", Key=f"shelf/{name}", Body=(demo / "bundle" / name).read_bytes())


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_a_page_does_what_it_says(page: Path, reader: Path, monkeypatch: pytest.MonkeyPatch, shared_path: Path) -> None:
    monkeypatch.setenv("SAMPLES", str(shared_path / "data"))
    go_on_from_other_pages(page.name, reader, Path.home())
    for block in read_blocks(page):
        run_block(block, monkeypatch)


def go_on_from_other_pages(name: str, folder: Path, home: Path) -> None:
    """Leave what a reader of these pages has from other ones."""
    if name == "TUNING.md":
        shutil.copytree(folder / "demo-output" / "bundle", home / "runs" / "small" / "bundle")
    if name == "EXPORTING.md":
        shutil.copytree(folder / "demo-output" / "predictions", home / "labels")


def run_block(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.needs.startswith(("a cluster", "the network")):
        return
    if block.language == "python":
        run_outside([sys.executable, "-c", block.text])
    elif block.language == "sql":
        run_sql(block.text)
    elif "<<" in block.text:
        run_outside(["bash", "-euo", "pipefail", "-c", block.text])
    elif block.language == "sh":
        for command in block.commands():
            job = words_of_job(command)
            if job is not None:
                run_job(*job, monkeypatch)
            elif not command.startswith(". .venv"):
                run_outside(["bash", "-euo", "pipefail", "-c", command])


def run_outside(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"


def run_sql(text: str) -> None:
    import duckdb

    for statement in filter(str.strip, text.split(";")):
        duckdb.connect().execute(statement).fetchall()


def run_job(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a job's command in this process, which has a Ray already."""
    words = [os.path.expandvars(os.path.expanduser(word)) for word in words]
    if name == "train":
        words = shortened(words)
    monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", *words])
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"maskrcnn.commands.{name}").main()
    # A gate may close: the bundle of these tests finds nothing that makes sense.
    assert stop.value.code in ((0, 1) if "--gate" in words else (0,)), f"python -m jobs.{name} {' '.join(words)}"


def shortened(words: list[str]) -> list[str]:
    """Let a training take moments."""
    kept = list(words)
    for option in QUICK_TRAINING:
        if option in kept:
            del kept[kept.index(option) : kept.index(option) + 2]
    return [*kept, *(word for pair in QUICK_TRAINING.items() for word in pair)]
