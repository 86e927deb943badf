"""What a training's command line means: presets, arithmetic, rules, and what may change on a resume."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest

from maskrcnn.commands.command_line import run_command
from maskrcnn.commands.train import defaults
from maskrcnn.config import UnusualValueWarning
from maskrcnn.errors import InputError
from maskrcnn.training.arguments import (
    MAY_CHANGE_ON_RESUME,
    TrainArguments,
    arguments_to_json,
    parse_workers,
    refuse_changes,
    with_preset,
)
from maskrcnn.training.recipe import PRESETS

REQUIRED = ["--images", "x", "--annotations", "y", "--output", "z"]
NUM_IMAGES = 50_000


def arguments(**values: Any) -> TrainArguments:
    return TrainArguments(**{"images": "x", "annotations": "y", "output": "z"} | values)


def resolve(given: TrainArguments, num_images: int = NUM_IMAGES) -> int:
    """Build everything that a training's arguments stand for."""
    assert given.preprocess.min_size_px <= given.preprocess.max_size_px
    assert given.thresholds.max_detections >= 1
    assert given.model(3).num_labels == 4
    assert given.train_config(num_images).global_batch_size >= 1
    return 0


Parse = Callable[..., tuple[int, list[str], TrainArguments | None]]


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Parse]:
    """Run the command up to its configs; give the exit code, what it said on stderr, and the arguments."""

    def parse(*words: str) -> tuple[int, list[str], TrainArguments | None]:
        seen: list[TrainArguments] = []

        def command(given: TrainArguments) -> int:
            seen.append(given)
            return resolve(given)

        monkeypatch.setattr(sys, "argv", ["jobs/train.py", *REQUIRED, *words])
        with pytest.raises(SystemExit) as stop:
            run_command(TrainArguments, command, "train", defaults)
        said = capsys.readouterr()
        assert said.out == ""
        assert isinstance(stop.value.code, int)
        return stop.value.code, said.err.splitlines(), seen[0] if seen else None

    with warnings.catch_warnings():  # commands show them their own way, for good
        warnings.simplefilter("default")
        yield parse


@pytest.mark.parametrize(("text", "workers"), [("1", (1, 1)), ("8", (8, 8)), ("2,6", (2, 6)), (" 3,3 ", (3, 3))])
def test_workers_are_a_number_or_a_range(text: str, workers: tuple[int, int]) -> None:
    assert parse_workers(text) == workers


@pytest.mark.parametrize("text", ["0", "3,2", "0,4", "-1", "1,2,3", "1.5", "two", "", "1,"])
def test_other_numbers_of_workers_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"--num-workers must be N or MIN,MAX with 1 <= MIN <= MAX, got {text}"):
        parse_workers(text)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_fills_in_and_its_configs_can_be_built(parse: Parse, name: str) -> None:
    code, said, given = parse("--preset", name)
    assert (code, said) == (0, [])
    assert given is not None
    assert given.preset == name
    assert {key: getattr(given, key) for key in PRESETS[name]} == PRESETS[name]
    plain = arguments()
    others = [field.name for field in fields(given) if field.name not in {*PRESETS[name], "preset"}]
    assert [key for key in others if getattr(given, key) != getattr(plain, key)] == []


@pytest.mark.parametrize("words", [["--preset", "demo"], ["--preset=demo"]])
@pytest.mark.parametrize("comes_first", [True, False])
def test_what_is_given_goes_before_the_preset(parse: Parse, words: list[str], comes_first: bool) -> None:
    own = ["--learning-rate", "0.0005", "--short-sides", "64", "96", "--optimizer", "adamw", "--weights", "imagenet"]
    code, said, given = parse(*(own + words if comes_first else words + own))
    assert (code, said) == (0, [])
    assert given is not None
    assert (given.learning_rate, given.short_sides, given.weights) == (0.0005, (64, 96), "imagenet")
    assert (given.backbone, given.max_steps) == ("resnet18", 320)


def test_epochs_that_are_given_go_before_the_steps_of_a_preset(parse: Parse) -> None:
    _, _, given = parse("--preset", "demo", "--epochs", "3")
    assert given is not None
    assert given.train_config(10).schedule.max_steps == 3 * 5
    _, _, given = parse("--preset", "demo", "--epochs=3", "--max-steps", "40")
    assert given is not None
    assert given.train_config(10).schedule.max_steps == 40


def test_of_two_presets_the_last_counts_whole(parse: Parse) -> None:
    _, _, given = parse("--preset", "demo", "--preset", "coco-1x")
    assert given is not None
    assert given == with_preset(arguments(), "coco-1x")


@pytest.mark.parametrize("words", [["--preset", "coco-2x"], ["--preset=coco-2x"]])
def test_an_unknown_preset_is_one_line_with_the_list(parse: Parse, words: list[str]) -> None:
    code, said, _ = parse(*words)
    assert code == 2
    [line] = said
    assert line == ("jobs.train: --preset must be one of none, coco-1x, coco-lsj, finetune-small, demo, got coco-2x")


@pytest.mark.parametrize(
    ("values", "batch", "rate"),
    [
        ({}, 2, 0.005),
        ({"num_workers": "4"}, 8, 0.02),
        ({"num_workers": "2,4", "batch_size": 3, "grad_accum_steps": 2}, 24, 0.02),
        ({"num_workers": "4", "scale_learning_rate": False}, 8, 0.005),
        ({"grad_accum_steps": 8}, 16, 0.005),
    ],
)
def test_batch_and_rate_follow_the_most_workers(values: dict[str, Any], batch: int, rate: float) -> None:
    config = arguments(**values).train_config(100)
    assert config.global_batch_size == batch
    assert config.micro_batch_size == values.get("batch_size", 2)
    assert config.schedule.learning_rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("values", "num_images", "steps"),
    [
        ({"epochs": 3}, 10, 15),
        ({"epochs": 3}, 11, 18),  # the last update of an epoch is a smaller one
        ({"epochs": 3, "num_workers": "1,4"}, 10, 6),
        ({"epochs": 3, "max_steps": 7}, 10, 7),
        ({"epochs": 2}, 1, 2),
    ],
)
def test_epochs_become_steps(values: dict[str, Any], num_images: int, steps: int) -> None:
    assert arguments(**values).train_config(num_images).schedule.max_steps == steps


@pytest.mark.parametrize(
    ("values", "norm", "is_synced", "frozen_stages"),
    [
        ({}, "frozen", False, 2),
        ({"weights": "none"}, "batch", False, 0),
        ({"weights": "coco", "norm": "batch"}, "batch", False, 2),
        ({"norm": "sync"}, "batch", True, 2),
        ({"weights": "none", "norm": "frozen", "frozen_stages": 3}, "frozen", False, 3),
        ({"frozen_stages": 0}, "frozen", False, 0),
    ],
)
def test_norms_and_frozen_stages_follow_the_weights(
    values: dict[str, Any], norm: str, is_synced: bool, frozen_stages: int
) -> None:
    given = arguments(**values)
    config = given.train_config(100)
    assert (given.model(4).norm, config.norms_are_synced, config.frozen_stages) == (norm, is_synced, frozen_stages)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--score-threshold 1.5", "--score-threshold must be in [0, 1], got 1.5"),
        ("--max-detections 0", "--max-detections must be 1 or more, got 0"),
        ("--batch-size 0", "--batch-size must be 1 or more, got 0"),
        ("--learning-rate 0", "--learning-rate must be a finite number above 0, got 0.0"),
        ("--learning-rate nan", "--learning-rate must be a finite number above 0, got nan"),
        ("--learning-rate inf", "--learning-rate must be a finite number above 0, got inf"),
        ("--grad-accum-steps 0", "--grad-accum-steps must be 1 or more, got 0"),
        ("--epochs 0", "--epochs must be 1 or more, got 0"),
        ("--max-steps 0", "--max-steps must be 1 or more, got 0"),
        ("--num-workers 0", "--num-workers must be N or MIN,MAX with 1 <= MIN <= MAX, got 0"),
        ("--crop-size 33", "--crop-size must be a multiple of 32, or 0, got 33"),
        ("--scale-jitter 0.5 2", "--crop-size must be above 0 with --scale-jitter, got 0"),
        ("--scale-jitter 2 1 --crop-size 64", "--scale-jitter must be LOW,HIGH with 0 < LOW <= HIGH <= 10, got 2.0,1"),
        ("--short-sides 640 16", "--short-sides must be 32 px or more each, got (640, 16)"),
        ("--flip-probability 1.1", "--flip-probability must be in [0, 1], got 1.1"),
        ("--color-jitter 1", "--color-jitter must be in [0, 1), got 1.0"),
        ("--frozen-stages 6", "--frozen-stages must be in 0..5, got 6"),
        ("--ema-decay 1", "--ema-decay must be in (0, 1), got 1.0"),
        ("--min-size 16", "--min-size must be 32 px or more, got 16"),
        ("--decode-scale 3", "--decode-scale must be one of 1, 2, 4, 8, got 3"),
        ("--anchor-sizes 32 64", "--anchor-sizes must be five sizes of 1 px or more, one a level, got (32, 64)"),
        ("--anchor-sizes 0 1 2 3 4", "--anchor-sizes must be five sizes of 1 px or more, one a level, got (0, 1"),
        ("--anchor-aspect-ratios 1 0", "--anchor-aspect-ratios must be finite numbers above 0, got (1.0, 0.0)"),
        ("--momentum 1", "--momentum must be in [0, 1), got 1.0"),
        ("--weight-decay -1", "--weight-decay must be 0 or more, got -1.0"),
        ("--warmup-steps 9 --max-steps 9", "--warmup-steps must be in [0, 9), below --max-steps, got 9"),
        ("--max-grad-norm 0", "--max-grad-norm must be above 0, got 0.0"),
        ("--rois-per-image 3", "--rois-per-image must be 4 or more, got 3"),
        ("--anchors-per-image 1", "--anchors-per-image must be 2 or more, got 1"),
        ("--loader-workers -1", "--loader-workers must be 0 or more, got -1"),
        ("--cache-gib inf", "--cache-gib must be a finite number, 0 or more, got inf"),
        ("--save-minutes -1", "--save-minutes must be a finite number, 0 or more, got -1.0"),
        ("--validate-epochs nan", "--validate-epochs must be a finite number, 0 or more, got nan"),
        ("--keep-checkpoints 0", "--keep-checkpoints must be 1 or more, got 0"),
        ("--log-steps 0", "--log-steps must be 1 or more, got 0"),
        ("--max-nonfinite-steps -1", "--max-nonfinite-steps must be 0 or more, got -1"),
        ("--seed -1", "--seed must be 0 or more, got -1"),
        ("--images=", "--images must be a path or URI, got nothing"),
        ("--optimizer adam", "--optimizer must be one of sgd, adamw, got adam; see --help"),
        ("--val-images v", "--val-annotations must be given with --val-images"),
    ],
)
def test_a_value_that_cannot_be_is_one_line_with_flag_rule_and_value(parse: Parse, words: str, line: str) -> None:
    code, said, _ = parse(*words.split())
    assert code == 2
    [told] = said
    assert told.startswith(f"jobs.train: {line}")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--learning-rate 0.5", "warning: --learning-rate is usually 0.001 to 0.01 with sgd, got 0.5"),
        ("--optimizer adamw", "warning: --learning-rate is usually 0.0001 to 0.001 with adamw, got 0.005"),
        ("--batch-size 16", "warning: --batch-size is usually 1 to 8, got 16"),
    ],
)
def test_an_unusual_value_is_one_line_of_warning_and_used(parse: Parse, words: str, line: str) -> None:
    code, said, _ = parse(*words.split())
    assert (code, said) == (0, [line])


def test_the_scaled_rate_of_many_workers_is_not_unusual(parse: Parse) -> None:
    assert parse("--num-workers", "64")[:2] == (0, [])


def test_arguments_survive_json() -> None:
    given = arguments(scale_jitter=(0.1, 2.0), crop_size=64, short_sides=(64, 96), max_steps=5, ema_decay=0.99)
    written = json.loads(json.dumps(arguments_to_json(given)))
    assert written["scale_jitter"] == [0.1, 2.0]
    refuse_changes(given, written, "out")
    restored = {name: tuple(value) if isinstance(value, list) else value for name, value in written.items()}
    assert TrainArguments(**restored) == given


@pytest.mark.parametrize(
    ("begun", "now", "line"),
    [
        (
            {"learning_rate": 0.005},
            {"learning_rate": 0.002},
            "--learning-rate must be 0.005 as when the training was begun, got 0.002, in out; "
            "give that, or a new --output",
        ),
        ({}, {"short_sides": (64,)}, "--short-sides must be [] as when the training was begun, got [64], in out"),
        ({"max_steps": 9}, {}, "--max-steps must be 9 as when the training was begun, got None, in out"),
        ({}, {"batch_size": 1}, "--batch-size must be 2 as when"),
    ],
)
def test_a_resume_with_another_value_names_flag_and_both(begun: dict[str, Any], now: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as caught:
        refuse_changes(arguments(**now), arguments_to_json(arguments(**begun)), "out")
    assert str(caught.value).startswith(line)


def test_what_is_not_learnt_from_may_change_on_a_resume() -> None:
    assert {field.name for field in fields(TrainArguments)} >= MAY_CHANGE_ON_RESUME
    begun = {**arguments_to_json(arguments()), **dict.fromkeys(MAY_CHANGE_ON_RESUME, "something else")}
    refuse_changes(arguments(), begun, "out")
    refuse_changes(arguments(), {"a flag of an older version": 1}, "out")


def test_an_unusual_value_warns_where_it_is_used_as_a_library() -> None:
    with pytest.warns(UnusualValueWarning, match="--batch-size is usually 1 to 8, got 9"):
        arguments(batch_size=9).train_config(100)
