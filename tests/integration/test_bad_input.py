"""Bad input to the labelling command: exit code 2, one clear line, and nothing written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maskrcnn.commands.command_line import run_command
from maskrcnn.commands.predict import PredictArguments, predict
from maskrcnn.labelling.backlog import Backlog
from maskrcnn.labelling.listing import list_manifest
from maskrcnn.labelling.output import Output
from maskrcnn.labelling.plan_files import PlanHeader, num_rows_by_date
from maskrcnn.model.bundle import load_bundle
from tests.conftest import PROJECT_ROOT, without_page


class Command:
    """The labelling command in this process, over one image, with whatever a test changes."""

    def __init__(
        self, bundle: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.output = folder / "out"
        self.images = folder / "in"
        self.images.mkdir()
        Image.new("RGB", (40, 30)).save(self.images / "a.png")
        self.options = {"--bundle": bundle, "--images": str(self.images), "--output": str(self.output)}

    def words(self, options: dict[str, str]) -> list[str]:
        return [word for pair in {**self.options, **options}.items() for word in pair]

    def refusal(self, **changes: object) -> str:
        """Run with these options, check that it is refused properly, and give the one line."""
        options = {f"--{name.replace('_', '-')}": str(value) for name, value in changes.items()}
        self._monkeypatch.setattr(sys, "argv", ["jobs/predict.py", *self.words(options)])
        with pytest.raises(SystemExit) as stop:
            run_command(PredictArguments, predict, "predict")
        said = self._capsys.readouterr()
        assert (stop.value.code, said.out) == (2, "")
        return one_line(said.err)


def one_line(stderr: str) -> str:
    [line] = stderr.splitlines()
    assert line.startswith("jobs.predict: ")
    assert "Traceback" not in line
    return without_page(line.removeprefix("jobs.predict: "))


@pytest.fixture
def command(
    tiny_bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    with warnings.catch_warnings():  # the command shows them its own way, for good
        warnings.simplefilter("default")
        yield Command(tiny_bundle, tmp_path, monkeypatch, capsys)


def begin_output(command: Command, bundle_uri: str) -> None:
    """Leave the plan of an earlier run with this bundle and its own thresholds."""
    bundle = load_bundle(bundle_uri)
    settings = {"bundle_sha256": bundle.sha256, **asdict(bundle.thresholds), "masks": "full", "date_from": None}
    rows = Backlog(list_manifest(str(command.images)), rows_per_part=10).next_plan()
    assert rows is not None
    header = PlanHeader("an earlier run", settings, 10, num_rows_by_date(rows))
    Output(str(command.output)).put_plan(1, rows, header)


def test_a_bundle_that_is_not_there(command: Command, tmp_path: Path) -> None:
    line = command.refusal(bundle=tmp_path / "none")
    assert line.startswith(f"bundle {tmp_path}/none is not a model bundle: it holds no model.json; give the folder")
    assert not command.output.exists()


def test_a_bundle_of_a_newer_format(command: Command, tiny_bundle: str, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.mkdir()
    document = json.loads((Path(tiny_bundle) / "model.json").read_text())
    (newer / "model.json").write_text(json.dumps({**document, "format_version": 7}))
    line = command.refusal(bundle=newer)
    assert line.startswith("format_version must be at most 1, which is what this version reads, got 7, in ")
    assert line.endswith("newer/model.json; update maskrcnn")


def test_an_output_of_another_bundle(command: Command, tiny_bundle: str, tmp_path: Path) -> None:
    begin_output(command, tiny_bundle)
    other = tmp_path / "other"
    other.mkdir()
    for name in ("model.json", "model.safetensors"):
        (other / name).write_bytes((Path(tiny_bundle) / name).read_bytes())
    document = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**document, "provenance": {"step": 2}}))
    line = command.refusal(bundle=other)
    before, after = load_bundle(tiny_bundle).sha256, load_bundle(str(other)).sha256
    assert line.startswith(f"bundle_sha256 was {before} when this output was begun, and is {after} now, in ")
    assert line.endswith(f"{command.output}; take the same as before, or another --output")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"score_threshold": 0.4}, "score_threshold was 0.3 when this output was begun, and is 0.4 now, in "),
        ({"nms_threshold": 0.6}, "nms_threshold was 0.5 when this output was begun, and is 0.6 now, in "),
        ({"max_detections": 9}, "max_detections was 8 when this output was begun, and is 9 now, in "),
        ({"masks": "none"}, "masks was full when this output was begun, and is none now, in "),
        ({"date_from": "last-modified"}, "date_from was None when this output was begun, and is last-modified now"),
        ({"slice": 512}, "slice was None when this output was begun, and is 512 now, in "),
        ({"mask_nms": 0.6, "nms_threshold": 0.5}, "mask_nms was None when this output was begun, and is 0.6 now, in "),
        ({"mask_nms": 0.6}, "nms_threshold was 0.5 when this output was begun, and is 0.8 now, in "),
    ],
)
def test_an_output_of_other_settings(command: Command, tiny_bundle: str, changes: dict[str, object], told: str) -> None:
    begin_output(command, tiny_bundle)
    assert command.refusal(**changes).startswith(told)
    assert sorted(path.name for path in command.output.rglob("*.*")) == ["000001.parquet"]


@pytest.mark.parametrize("name", ["empty", "missing", "missing/*.jpg"])
def test_images_that_are_not_there(command: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    line = command.refusal(images=tmp_path / name)
    assert line == f"--images holds no images, or does not exist, in {tmp_path / name}"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"score_threshold": 1.5}, "--score-threshold must be in [0, 1], got 1.5"),
        ({"score_threshold": "nan"}, "--score-threshold must be in [0, 1], got nan"),
        ({"nms_threshold": 0}, "--nms-threshold must be in (0, 1], got 0.0"),
        ({"max_detections": 0}, "--max-detections must be 1 or more, got 0"),
        ({"batch_size": 0}, "--batch-size must be 1 or more, got 0"),
        ({"rows_per_part": 0}, "--rows-per-part must be in 1..1000000, got 0"),
        ({"num_actors": 0}, "--num-actors must be MIN or MIN,MAX with 1 <= MIN <= MAX, got 0"),
        ({"num_actors": "3,2"}, "--num-actors must be MIN or MIN,MAX with 1 <= MIN <= MAX, got 3,2"),
        ({"num_actors": "x"}, "--num-actors must be MIN or MIN,MAX with 1 <= MIN <= MAX, got x"),
        (
            {"score_treshold": 0.3},
            "unknown option --score-treshold; did you mean --score-threshold or --slice-threshold?",
        ),
        ({"slice": 63}, "--slice must be 64 px or more, got 63"),
        ({"slice": "small"}, "--slice must be a whole number, got small; see --help"),
        ({"slice": 512, "slice_overlap": 0.9}, "--slice-overlap must be in [0, 0.9), got 0.9"),
        ({"slice_overlap": 0.2}, "--slice-overlap needs --slice, which is not given"),
        ({"slice_merge": "nms"}, "--slice-merge needs --slice, which is not given"),
        ({"slice": 512, "slice_merge": "soft"}, "--slice-merge must be one of"),
        ({"slice": 512, "slice_metric": "giou"}, "--slice-metric must be one of"),
        ({"slice": 512, "slice_threshold": 0}, "--slice-threshold must be in (0, 1), got 0.0"),
        ({"mask_nms": 1.5}, "--mask-nms must be in (0, 1], got 1.5"),
        ({"mask_nms": 0.5, "masks": "none"}, "--mask-nms needs masks; leave out --masks none"),
        ({"images": ""}, "--images must be a path or URI, got nothing"),
        ({"date_from": "("}, "--date-from is not a regular expression: "),
        ({"date_from": "captured"}, "--date-from must be last-modified, a column (this input has none) or a regular"),
    ],
)
def test_a_value_that_cannot_be(command: Command, changes: dict[str, object], line: str) -> None:
    assert command.refusal(**changes).startswith(line)
    assert not command.output.exists()


@pytest.mark.parametrize("place", ["/proc", "a file"])
def test_an_output_that_cannot_be_written(command: Command, local_ray: None, tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").write_text("in the way")
    output = Path("/proc/maskrcnn") if place == "/proc" else tmp_path / place / "out"
    line = command.refusal(output=output)
    assert line.startswith("--output cannot be written: ")
    assert line.endswith(f", in {output}/plans/000001.parquet")


def test_more_actors_than_the_cluster_holds(command: Command, local_ray: None) -> None:
    line = command.refusal(num_actors=5, device="cpu")
    assert line == "--num-actors needs 5 CPUs for 5 actors, and the cluster has 4; take fewer actors"
    assert not command.output.exists()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("no-uri.parquet", "the manifest must have a column image_uri, has path, store, in "),
        ("null-uri.parquet", "manifest column image_uri must have no nulls, in "),
        ("taken.parquet", "manifest column score_threshold is the name of a column of the predictions table, in "),
        ("broken.parquet", "--images is not a Parquet file: "),
        ("missing.parquet", "--images does not exist, in "),
        ("broken.json", "--images is not JSON: "),
        ("other.json", "--images is neither a COCO file nor an S3 Inventory manifest, in "),
        ("coco.json", "--image-root must say where the images of a COCO file lie, in "),
    ],
)
def test_a_manifest_that_cannot_be_used(command: Command, tmp_path: Path, name: str, line: str) -> None:
    uri = str(command.images / "a.png")
    pq.write_table(pa.table({"path": [uri], "store": ["s1"]}), tmp_path / "no-uri.parquet")
    pq.write_table(pa.table({"image_uri": [uri, None]}), tmp_path / "null-uri.parquet")
    pq.write_table(pa.table({"image_uri": [uri], "score_threshold": [1]}), tmp_path / "taken.parquet")
    (tmp_path / "broken.parquet").write_text("PAR1 it is not")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "coco.json").write_text('{"images": [], "annotations": [], "categories": []}')
    refused = command.refusal(images=tmp_path / name)
    assert refused.startswith(line)
    assert str(tmp_path / name) in refused


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("images", "--images "),
        ("output", "--output "),
        ("bundle", "bundle s3://no-such-bucket/x is not a model bundle: it holds no model.json"),
    ],
)
def test_a_bucket_that_is_not_there(
    command: Command, local_ray: None, s3_endpoint: str, option: str, line: str
) -> None:
    refused = command.refusal(**{option: "s3://no-such-bucket/x"})
    assert refused.startswith(line)
    assert "s3://no-such-bucket" in refused


def run_for_real(words: list[str]) -> str:
    """Run the command as users do, and give its one line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ran = subprocess.run(
        [sys.executable, "-m", "jobs.predict", *words],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    return one_line(ran.stderr)


def test_a_misspelt_option_for_real(command: Command) -> None:
    line = run_for_real(command.words({"--score-treshold": "0.3"}))
    assert line == "unknown option --score-treshold; did you mean --score-threshold or --slice-threshold?"
    assert not command.output.exists()


def test_more_actors_than_the_machine_holds_for_real(command: Command) -> None:
    line = run_for_real(command.words({"--num-actors": "4096", "--device": "cpu"}))
    num_cpus = os.cpu_count()
    assert line == f"--num-actors needs 4096 CPUs for 4096 actors, and the cluster has {num_cpus}; take fewer actors"
    assert not command.output.exists()
