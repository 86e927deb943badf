"""Bad input to the evaluate command: exit code 2, one clear line, and nothing written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskrcnn.commands.command_line import run_command
from maskrcnn.commands.evaluate import EvaluateArguments, run_evaluation
from tests.conftest import without_page
from tests.labelled import LABELLED, to_results_json, write_table, write_truth


class Command:
    """The evaluate command in this process, with whatever a test changes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.folder, self.output = folder, folder / "metrics.json"
        self.truth = write_truth(folder / "truth.json")
        self.results = to_results_json(folder / "results.json", LABELLED)

    def write(self, name: str, content: str) -> str:
        (self.folder / name).write_text(content)
        return str(self.folder / name)

    def edit(self, path: str, **changes: Any) -> str:
        """Write a file again, changed: members of the truth, or fields of all predictions; None takes away."""
        document = json.loads(Path(path).read_text())
        for row in document if isinstance(document, list) else [document]:
            row.update(changes)
            for name in [name for name, value in changes.items() if value is None]:
                del row[name]
        return self.write(f"edited-{Path(path).name}", json.dumps(document))

    def refuses(self, **options: str) -> str:
        """Run, expect exit code 2, and give the line."""
        given = {"annotations": self.truth, "predictions": self.results, "output": str(self.output), **options}
        words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", *value.split())]
        self._monkeypatch.setattr(sys, "argv", ["jobs/evaluate.py", *words])
        with pytest.raises(SystemExit) as stop:
            run_command(EvaluateArguments, run_evaluation, "evaluate")
        said = self._capsys.readouterr()
        assert (stop.value.code, said.out) == (2, "")
        [line] = said.err.splitlines()
        assert line.startswith("jobs.evaluate: ")
        assert not self.output.exists()
        return without_page(line.removeprefix("jobs.evaluate: "))


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("categories", "rule"), [(None, "categories must be a list"), ([], "categories must hold at least one")]
)
def test_a_truth_without_categories(command: Command, categories: Any, rule: str) -> None:
    truth = command.edit(command.truth, categories=categories)
    line = command.refuses(annotations=truth)
    assert line.startswith(rule)
    assert line.endswith(f"in {truth}")


def test_results_of_another_dataset(command: Command) -> None:
    results = command.edit(command.results, image_id=4711)
    expected = f"--predictions must be of images in {command.truth}, by image_id, and none is, as 4711, in {results}"
    assert command.refuses(predictions=results) == expected


def test_predictions_of_other_categories(command: Command) -> None:
    rule = f"predictions' category_id must be of categories in {command.truth} (3, 8), and none is, as 77, in "
    results = command.edit(command.results, category_id=77)
    assert command.refuses(predictions=results) == rule + results
    renumbered = command.edit(command.truth, annotations=[], categories=[{"id": 1, "name": "box"}])
    table = write_table(command.folder / "out", {**LABELLED, "back/a.jpg": LABELLED["front/b.jpg"]})
    rule = f"predictions' category_id must be of categories in {renumbered} (1), and none is, as 3, in {table}"
    assert command.refuses(annotations=renumbered, predictions=table) == rule


def test_truth_and_predictions_the_wrong_way_round(command: Command) -> None:
    line = command.refuses(predictions=command.truth)
    assert line == (
        f"results file must be a list of predictions, got an object, in {command.truth}; "
        "an object is a dataset, given with --annotations"
    )
    assert command.refuses(annotations=command.results).endswith("a list is a results file, given with --predictions")


@pytest.mark.parametrize("name", ["found.csv", "found", "part-000001-00000.parquet", "metrics.jsonl"])
def test_a_file_of_an_unknown_format(command: Command, name: str) -> None:
    path = command.write(name, "image,score\n")
    formats = "the --output folder of a labelling job or a COCO results .json"
    assert command.refuses(predictions=path) == f"--predictions must be {formats}, got another file, in {path}"


def test_a_folder_that_is_no_table(command: Command) -> None:
    expected = f"--predictions holds no labelled images, in {command.folder}; name the --output of a labelling job"
    assert command.refuses(predictions=str(command.folder)) == expected


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("image,score", "file must be JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[{]", "file must be JSON: Expecting property name enclosed in double quotes: line 1 column 3 (char 2)"),
        ("[3]", "predictions[0] must be an object, got int"),
        ("[{}]", "predictions[0] image_id must be a whole number, got None"),
    ],
)
def test_a_results_file_that_is_none(command: Command, content: str, rule: str) -> None:
    path = command.write("broken.json", content)
    assert command.refuses(predictions=path) == f"{rule}, in {path}"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"mask_nms": "0.5"}, "--mask-nms needs --bundle, which is not given"),
        ({"batch_size": "8"}, "--batch-size needs --bundle, which is not given"),
        ({"slice": "512"}, "--slice needs --bundle, which is not given"),
        ({"iou_types": "mask"}, "--iou-types must be one of bbox, segm, boundary, got mask; see --help"),
        ({"max_detections": "0"}, "--max-detections must be 1 or more each, got (0,)"),
        ({"max_detections": "many"}, "--max-detections must be whole numbers, got many; see --help"),
        ({"annotations": "nowhere.json"}, "--annotations cannot be read: No such file or directory, in nowhere.json"),
    ],
)
def test_wrong_options(command: Command, options: dict[str, str], line: str) -> None:
    assert command.refuses(**options) == line


def test_a_broken_mask_of_the_table_is_named_before_it_reaches_the_decoder(command: Command) -> None:
    table = write_table(command.folder / "out", LABELLED)
    [part] = (command.folder / "out" / "table").glob("*.parquet")
    rows = pq.read_table(part)
    masks = rows["masks"].to_pylist()
    masks[1] = [b"oooooo0"]
    column = rows.schema.names.index("masks")
    pq.write_table(rows.set_column(column, "masks", pa.array(masks, rows.schema.field("masks").type)), part)
    line = command.refuses(predictions=table)
    assert line == ("predictions[3] (image 2) segmentation counts must take at most 6 bytes a run, got 7, in " + table)
