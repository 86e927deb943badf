"""What every command has in common: one line for a wrong command line, and the exit code."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from maskrcnn.commands.command_line import fold_complaint, given_format, run_command
from maskrcnn.commands.evaluate import EvaluateArguments
from maskrcnn.commands.predict import PredictArguments, predict
from maskrcnn.errors import AccessError, InputError, NonFiniteError, UnavailableError

REQUIRED = ["--bundle", "x", "--images", "y", "--output", "z"]


@pytest.fixture(autouse=True)
def own_warnings() -> Iterator[None]:
    """Commands show warnings their own way, for good; tests turn them into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


@dataclasses.dataclass(frozen=True)
class Outcome:
    code: int
    lines: list[str]
    out: str
    arguments: Any = None


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with these words, and give its exit code and what it said on stderr."""

    def run(
        words: list[str], command: Callable[[Any], int] = lambda arguments: 0, arguments_class: type = PredictArguments
    ) -> Outcome:
        seen: list[Any] = []
        monkeypatch.setattr(sys, "argv", ["jobs/predict.py", *words])
        with pytest.raises(SystemExit) as stop:
            run_command(arguments_class, lambda arguments: seen.append(arguments) or command(arguments), "predict")
        said = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Outcome(stop.value.code, said.err.splitlines(), said.out, seen[0] if seen else None)

    return run


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            [*REQUIRED, "--score-treshold", "0.3"],
            "jobs.predict: unknown option --score-treshold; did you mean --score-threshold or --slice-threshold?",
        ),
        (
            [*REQUIRED, "--batchsize", "3", "--retry-error"],
            "jobs.predict: unknown option --batchsize, --retry-error; did you mean --batch-size or --retry-errors?",
        ),
        ([*REQUIRED, "--nope", "3"], "jobs.predict: unknown option --nope; see --help"),
        ([*REQUIRED, "more"], "jobs.predict: unexpected argument more; see --help"),
        (["--bundle", "x"], "jobs.predict: --images, --output must be given; see --help"),
        ([], "jobs.predict: --bundle, --images, --output must be given; see --help"),
        (
            ["--imges", "x", "--output", "y"],
            "jobs.predict: unknown option --imges (did you mean --images?), and --bundle, --images must be given; "
            "see --help",
        ),
        (
            ["--bundle", "x", "--images", "x", "--zzz"],
            "jobs.predict: unknown option --zzz, and --output must be given; see --help",
        ),
        (["--bundle"], "jobs.predict: --bundle must be followed by a value; see --help"),
        (
            [*REQUIRED, "--score-threshold", "high"],
            "jobs.predict: --score-threshold must be a number, got high; see --help",
        ),
        ([*REQUIRED, "--batch-size", "1.5"], "jobs.predict: --batch-size must be a whole number, got 1.5; see --help"),
        ([*REQUIRED, "--max-detections", "all"], "jobs.predict: --max-detections must be a whole number, got all"),
        ([*REQUIRED, "--masks", "some"], "jobs.predict: --masks must be one of full, none, got some; see --help"),
    ],
)
@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_a_wrong_command_line_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], line: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    outcome = run(words)
    assert outcome.code == 2
    [said] = outcome.lines
    assert said.startswith(line)
    assert outcome.out == ""


def test_a_list_with_a_wrong_item_is_one_line(run: Run) -> None:
    outcome = run(["--annotations", "a", "--max-detections", "1", "x"], arguments_class=EvaluateArguments)
    assert outcome.code == 2
    assert outcome.lines == ["jobs.predict: --max-detections must be whole numbers, got 1 x; see --help"]


def test_a_complaint_of_a_kind_that_is_not_known_is_folded_whole() -> None:
    box = (
        "╭─ Something new ──────────────╮\n"
        "│ Both --a and --b were given, │\n"
        "│ and they exclude each other. │\n"
        "│ ──────────────────────────── │\n"
        "│ For full helptext, run x     │\n"
        "╰──────────────────────────────╯\n"
    )
    assert fold_complaint(box) == "Both --a and --b were given, and they exclude each other; see --help"


@pytest.mark.parametrize("text", ["25:00", "tonight", "2020-01-01T06:00"])
def test_a_finishing_time_that_is_none_is_one_line(run: Run, text: str) -> None:
    outcome = run([*REQUIRED, "--dry-run", "--finish-by", text], predict)
    assert outcome.code == 2
    rule = "must be HH:MM, or an ISO date and time that lies ahead"
    assert outcome.lines == [f"jobs.predict: --finish-by {rule}, got {text}"]


def test_options_are_handed_over_with_their_types(run: Run) -> None:
    outcome = run([*REQUIRED, "--score-threshold", "0.25", "--retry-errors", "--num-actors", "1,4"])
    assert (outcome.code, outcome.lines) == (0, [])
    expected = PredictArguments("x", "y", "z", score_threshold=0.25, retry_errors=True, num_actors="1,4")
    assert outcome.arguments == expected


def test_help_lists_every_option(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run(["--help"])
    assert (outcome.code, outcome.lines) == (0, [])
    listed = [
        "--bundle", "--images", "--output", "--image-root", "--score-threshold", "--num-actors", "--rows-per-part",
        "--date-from", "--retry-errors", "--dry-run", "--max-detections", "--nms-threshold", "--batch-size", "--device",
        "--masks", "--finish-by", "--forecast-from", "--price-per-actor-hour",
    ]  # fmt: skip
    assert [name for name in listed if f"{name} " not in outcome.out and f"{name}," not in outcome.out] == []
    assert outcome.arguments is None
    words = " ".join(outcome.out.replace("│", " ").split())
    assert "a folder, a glob, a bucket prefix, a manifest Parquet, an S3 Inventory manifest.json" in words


@pytest.mark.parametrize("code", [0, 1])
def test_the_commands_own_code_is_the_exit_code(run: Run, code: int) -> None:
    assert run(REQUIRED, lambda arguments: code).code == code


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("--images", "holds no\n images", "s3://b"), 2, "jobs.predict: --images holds no images, in s3://b"),
        (AccessError("s3://b/k", "denied"), 2, "jobs.predict: s3://b/k cannot be used: denied"),
        (UnavailableError("s3://b/k", "reset"), 1, "jobs.predict: UnavailableError: s3://b/k: reset"),
        (NonFiniteError(("step 3 on image 7",)), 1, "jobs.predict: NonFiniteError: 1 steps must give finite"),
        (KeyboardInterrupt(), 130, "jobs.predict: interrupted; the same command goes on where this one stopped"),
    ],
)
def test_errors_are_one_line_and_a_code(run: Run, error: BaseException, code: int, line: str) -> None:
    def fail(arguments: Any) -> int:
        raise error

    outcome = run(REQUIRED, fail)
    assert outcome.code == code
    [said] = outcome.lines
    assert said.startswith(line)


def test_a_defect_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(arguments: Any) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["jobs/predict.py", *REQUIRED])
    with pytest.raises(ZeroDivisionError):
        run_command(PredictArguments, fail, "predict")


def test_an_unusual_value_is_one_line_of_warning_and_used(run: Run) -> None:
    sizes: list[int] = []

    def command(arguments: PredictArguments) -> int:
        sizes.append(arguments.to_config().batch_size)
        return 0

    outcome = run([*REQUIRED, "--batch-size", "100"], command)
    assert outcome.code == 0
    assert outcome.lines == ["warning: --batch-size is usually 1 to 8, up to 64 on large GPUs, got 100"]
    assert sizes == [100]


def test_warnings_of_libraries_are_not_shown(run: Run) -> None:
    def command(arguments: PredictArguments) -> int:
        warnings.warn("plumbing", DeprecationWarning, stacklevel=1)
        return 0

    assert run(REQUIRED, command).lines == []


@pytest.mark.parametrize("name", ["--bundle", "--images", "--output", "--image-root", "--forecast-from"])
@pytest.mark.parametrize(
    ("uri", "shown"),
    [("s3://key:hunter22@bucket/a", "s3://…@bucket/a"), ("https://b/a?X-Amz-Signature=hunter22", "https://b/a?…")],
)
def test_credentials_in_what_is_given_are_refused_and_not_repeated(run: Run, name: str, uri: str, shown: str) -> None:
    outcome = run([*REQUIRED, name, uri])
    assert outcome.code == 2
    [line] = outcome.lines
    assert line.startswith(f"jobs.predict: {name} must hold no credentials, got {shown}; give them by the environment")
    assert "hunter22" not in line


def test_secrets_of_the_environment_never_reach_the_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")

    def fail(arguments: Any) -> int:
        sys.stdout.write("printed wJalrXUtnFEMI\n")
        raise UnavailableError("s3://bucket", "signed with wJalrXUtnFEMI")

    outcome = run(REQUIRED, fail)
    assert outcome.lines == ["jobs.predict: UnavailableError: s3://bucket: signed with … (docs/RELIABILITY.md)"]
    assert outcome.out == "printed …\n"


@pytest.mark.parametrize("option", ["--log-format", "--log_format"])
def test_the_format_is_known_before_anything_is_parsed_however_it_is_written(option: str) -> None:
    assert given_format(["--bundle", "x", option, "json"]) == "json"
    assert given_format([f"{option}=json"]) == "json"
    assert given_format([option, "text", "json"]) == "text"
