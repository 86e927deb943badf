"""The compare command on what networks find: the gate opens for a good bundle and closes for a damaged one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from maskrcnn import Predictor, storage
from maskrcnn.commands.command_line import run_command
from maskrcnn.commands.compare import CompareArguments, compare
from maskrcnn.labelling.results import ImageResult
from maskrcnn.model.bundle import load_bundle, load_network, save_bundle
from maskrcnn.synthetic import write_shelves
from tests.conftest import PROJECT_ROOT
from tests.labelled_parts import write_part

NUM_IMAGES = 12

Run = Callable[..., tuple[int, str, str]]
GATE = """
min_images = 10
min_matched_iou = 0.9
max_lost_share = 0.1
max_gained_share = 0.1
max_count_change = 0.1
"""


def damage(bundle_uri: str, folder: Path, heads: tuple[str, ...], noise: float) -> str:
    """Write the bundle again, with noise on some heads' weights, in shares of their own spread."""
    bundle, network = load_bundle(bundle_uri), load_network(bundle_uri)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if any(head in name for head in heads) and weight.dim() > 1:
                weight += noise * weight.std() * torch.randn(weight.shape, generator=generator)
    save_bundle(
        str(folder),
        network,
        model=bundle.model,
        preprocess=bundle.preprocess,
        thresholds=bundle.thresholds,
        categories=bundle.categories,
        provenance={},
    )
    return str(folder)


def label(bundle_uri: str, images: Path, output: Path) -> str:
    """Label with the real network, and leave the table that a job leaves."""
    predictor = Predictor.from_bundle(bundle_uri, device="cpu")
    results: dict[str, ImageResult] = {}
    for path in sorted(images.iterdir()):
        [found] = predictor([path.read_bytes()])
        with Image.open(path) as image:
            results[path.name] = ImageResult(*image.size, found)
    return write_part(output, results, bucket=str(images))


@pytest.fixture(scope="module")
def tables(tiny_bundle: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a bundle, one as good, and a damaged one find in the same images; and the folder of these."""
    folder = tmp_path_factory.mktemp("tables")
    images = write_shelves(folder / "shelves", NUM_IMAGES, 3).parent / "images"
    bundles = {
        "trusted": tiny_bundle,
        "good": damage(tiny_bundle, folder / "good-bundle", ("mask_predictor",), 1e-4),
        "damaged": damage(tiny_bundle, folder / "damaged-bundle", ("mask_predictor", "box_predictor"), 1.0),
    }
    (folder / "gate.toml").write_text(GATE)
    tables = {name: label(bundle, images, folder / name) for name, bundle in bundles.items()}
    return tables | {"images": str(images), "gate": str(folder / "gate.toml")}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the real command line in this process: exit code, what it printed, what it complained."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["jobs/compare.py", *words])
        with pytest.raises(SystemExit) as stop:
            run_command(CompareArguments, compare, "compare")
        said = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, said.out, said.err

    return run


def test_the_gate_opens_for_a_good_bundle(tables: dict[str, str], tmp_path: Path) -> None:
    words = [tables["trusted"], tables["good"], "--gate", tables["gate"], "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.compare", *words], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1] == f"{NUM_IMAGES} images compared by masks, at a score threshold of 0.3; left out: none"
    assert lines[-2:] == [f"page: {tmp_path}/index.html", "the gate is open"]
    said = json.loads((tmp_path / "comparison.json").read_text())
    assert said["gate"] == {"is_open": True, "exceeded": []}
    assert said["overall"]["mean_iou"] > 0.98


def test_the_gate_closes_for_a_damaged_bundle_and_the_page_shows_where(
    run: Run, tables: dict[str, str], tmp_path: Path
) -> None:
    by = r"shelf-\d{4}(?P<last_digit>\d)"
    words = [tables["trusted"], tables["damaged"], "--gate", tables["gate"], "--output", str(tmp_path), "--by", by]
    code, out, err = run(*words, "--worst", "5")
    assert (code, err) == (1, "")
    assert out.splitlines()[-1] == "THE GATE IS CLOSED"
    assert re.search(r"^exceeded: all images: lost_share is 0\.\d+, above max_lost_share = 0\.1$", out, re.MULTILINE)
    said = json.loads((tmp_path / "comparison.json").read_text())
    assert said["overall"]["lost_share"] > 0.1
    assert {group["group"]["last_digit"] for group in said["by_group"]} == set("0123456789")
    costs = [one["cost"] for one in said["worst"]]
    assert len(costs) == 5
    assert costs == sorted(costs, reverse=True)
    page = (tmp_path / "index.html").read_text()
    assert page.count("<img") == 10
    assert "cannot be read" not in page
    pictures = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert pictures == {f"{place:03d}-{side}.jpg" for place in range(5) for side in "ab"}
    with Image.open(tmp_path / "pictures" / "000-a.jpg") as picture:
        assert max(picture.size) == 720


def test_a_reader_that_leaves_costs_neither_the_page_nor_the_exit_code(tables: dict[str, str], tmp_path: Path) -> None:
    words = [tables["trusted"], tables["damaged"], "--gate", tables["gate"], "--output", str(tmp_path), "--worst", "0"]
    command = [sys.executable, "-m", "jobs.compare", *words]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(timeout=120) == 1
    assert (tmp_path / "index.html").exists()


def test_images_that_are_gone_are_drawn_on_grey_and_found_again_where_they_lie_now(
    run: Run, tables: dict[str, str], tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tables["images"], moved)
    away = Path(tables["images"]).rename(tmp_path / "away")
    try:
        words = [tables["trusted"], tables["damaged"], "--output", str(tmp_path / "page"), "--worst", "2"]
        assert run(*words)[0] == 0
        assert (tmp_path / "page" / "index.html").read_text().count("cannot be read") == 2
        assert run(*words, "--images", str(moved))[0] == 0
        assert "cannot be read" not in (tmp_path / "page" / "index.html").read_text()
    finally:
        away.rename(tables["images"])


def test_what_a_comparison_that_was_killed_left_behind_is_taken_away_by_the_next(
    run: Run, tables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [tables["trusted"], tables["damaged"], "--output", str(tmp_path / "page")]
    with monkeypatch.context() as patch:
        patch.setattr("maskrcnn.comparison.page.Site.write_page", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            compare(CompareArguments(tables["trusted"], tables["damaged"], output=words[-1], worst=3))
    left = sorted(path.name for path in (tmp_path / "page" / "pictures").iterdir())
    assert left == [f"00{place}-{side}.jpg" for place in range(3) for side in "ab"]
    assert run(*words, "--worst", "1")[0] == 0
    assert sorted(path.name for path in (tmp_path / "page" / "pictures").iterdir()) == left[:2]


def test_a_bucket_gets_the_same_page(run: Run, tables: dict[str, str], bucket: str) -> None:
    code, out, _ = run(tables["trusted"], tables["good"], "--output", f"{bucket}/page", "--worst", "1")
    assert code == 0
    assert out.splitlines()[-1] == f"page: {bucket}/page/index.html"
    listed = {uri.removeprefix(f"{bucket}/page/") for uri in storage.list_uris(f"{bucket}/page")}
    assert {"index.html", "comparison.json", "assets/style.css", "pictures/000-a.jpg"} <= listed


def test_a_gate_over_no_common_image_is_closed(run: Run, tables: dict[str, str], tmp_path: Path) -> None:
    elsewhere = write_part(tmp_path / "other", {"x.jpg": ImageResult(error_kind="corrupt")})
    for words in (["--gate", tables["gate"]], []):
        code, out, _ = run(tables["trusted"], elsewhere, "--output", str(tmp_path / "page"), *words)
        assert code == 1
        assert f"0 images compared by masks, at a score threshold of 0.3; left out: {NUM_IMAGES} only in A" in out
    assert "NOTHING COMPARED" in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["a", "b"], "jobs.compare: --output must be given; see --help"),
        (
            ["none", "b", "--output", "x"],
            "jobs.compare: A holds no labelled images, in none; name the --output of a ",
        ),
        (["a", "none", "--output", "x"], "jobs.compare: B holds no labelled images, in none; name the --output of a "),
        (["a", "b", "--output", "x", "--gate", "none.toml"], "jobs.compare: --gate cannot be read: "),
        (["a", "b", "--output", "x", "--worst", "-1"], "jobs.compare: --worst must be in 0..500, got -1"),
        (
            ["a", "b", "--output", "x", "--score-threshold", "2"],
            "jobs.compare: --score-threshold must be in [0, 1], got 2.0",
        ),
        (
            ["a", "b", "--output", "x", "--score-threshold", "0.1"],
            "jobs.compare: --score-threshold must be 0.3 or more",
        ),
        (["a", "b", "--output", "x", "--by", "shop"], "jobs.compare: --by must be a column (image_uri, "),
    ],
)
def test_wrong_input_is_one_line(run: Run, tables: dict[str, str], words: list[str], line: str) -> None:
    places = {"a": tables["trusted"], "b": tables["good"]}
    code, out, err = run(*(places.get(word, word) for word in words))
    assert (code, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1
