"""What a training says of itself: its metrics file, its glances, and how they are averaged."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maskrcnn import storage
from maskrcnn.errors import UnavailableError
from maskrcnn.training import metrics, reporter
from maskrcnn.training.metrics import Glance, MetricsLog, glance_line, read_metrics
from maskrcnn.training.reporter import Clock, Reporter
from maskrcnn.training.step import StepResult
from maskrcnn.training.validation import ValidationTurns

SCORES = {kind: {"AP": 0.5, "AP50": 0.75, "AP75": 0.6} for kind in ("bbox", "segm")}


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The reporter's clock, in seconds, in a list to set it by."""
    seconds = [100.0]
    monkeypatch.setattr(reporter, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    return seconds


def line(step: int, **values: Any) -> dict[str, Any]:
    parts = {"loss_mask": 0.5, "loss_box_reg": 0.25}
    return {
        "step": step, "loss": 0.75, "losses": parts, "learning_rate": 0.1, "grad_norm": 1.0, "images_per_s": 2.0,
        "data_wait_s": 0.5, **values,
    }  # fmt: skip


def write(output: Path, *lines: dict[str, Any], end: str = "") -> None:
    (output / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines) + end)


def test_every_line_is_json_and_tensorboard_gets_the_same(tmp_path: Path, own_temporary_folder: Path) -> None:
    log = MetricsLog(str(tmp_path), 0)
    log.add(line(0))
    log.add({"step": 1, "epoch": 1, "validation": SCORES})
    log.close()
    texts = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(text) for text in texts] == [line(0), {"step": 1, "epoch": 1, "validation": SCORES}]
    [board] = (tmp_path / "tensorboard").iterdir()
    body = board.read_bytes()
    for name in (b"train/loss_mask", b"train/learning_rate", b"validation/segm_AP50", b"validation/bbox_AP"):
        assert name in body
    assert list(own_temporary_folder.iterdir()) == []


def test_a_resume_drops_what_came_later_and_keeps_the_validation_of_its_step(tmp_path: Path) -> None:
    kept = {"step": 2, "validation": SCORES}
    write(tmp_path, line(0), line(1), kept, line(2), line(3), {"step": 4, "validation": SCORES})
    log = MetricsLog(str(tmp_path), 2)
    log.add(line(2, loss=9.0))
    log.close()
    assert read_metrics(str(tmp_path)) == [line(0), line(1), kept, line(2, loss=9.0)]


@pytest.mark.parametrize(
    "end", ['{"step": 2, "lo', '{"step": 2, "loss": ', "{", "\x00\x00\x00", '{"name": "\ud83d'[:9]]
)
def test_a_last_line_that_was_cut_off_is_dropped(tmp_path: Path, end: str) -> None:
    write(tmp_path, line(0), line(1), end=end)
    assert read_metrics(str(tmp_path)) == [line(0), line(1)]
    MetricsLog(str(tmp_path), 9).close()
    assert read_metrics(str(tmp_path)) == [line(0), line(1)]


def test_no_metrics_are_none(tmp_path: Path) -> None:
    assert read_metrics(str(tmp_path)) == []


def test_lines_are_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MetricsLog(str(tmp_path), 0)
    log.add(line(0))
    log.wait()
    assert read_metrics(str(tmp_path)) == []
    monkeypatch.setattr(metrics, "FLUSH_S", -1.0)
    log.add(line(1))
    log.wait()
    assert [each["step"] for each in read_metrics(str(tmp_path))] == [0, 1]
    log.close()


def test_a_store_that_fails_costs_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(uri: str, body: bytes) -> None:
        raise UnavailableError(uri, "reset")

    log = MetricsLog(str(tmp_path), 0)
    log.add(line(0))
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(storage, "put", fail)
        log.flush()
        log.wait()
    assert "metrics could not be written" in caplog.text
    log.add(line(1))
    log.close()
    assert [each["step"] for each in read_metrics(str(tmp_path))] == [0, 1]


def test_a_glance_is_one_line_of_everything() -> None:
    glance = Glance(
        step=1500,
        max_steps=3000,
        epoch=2,
        losses={"loss_classifier": 0.25, "loss_mask": 0.5},
        images_per_s=12.34,
        data_wait_share=0.256,
        memory_bytes=3 * 2**30,
        seconds_left=185,
    )
    told = glance_line(glance)
    assert told == (
        "training ━━━━━━━━━━━━━━               step 1,500/3,000  epoch 2  loss 0.750 (classifier 0.25 mask 0.50)  "
        "12.3 img/s  data wait 26%  3.0 GiB  ETA 3m05s"
    )
    assert glance_line(Glance(**{**vars(glance), "scores": SCORES["segm"]})) == told + "  mAP 0.500  mAP@0.5 0.750"


def result(step: int, loss: float, *, grad_norm: float = 1.0, nonfinite: tuple[int, ...] = ()) -> StepResult:
    losses = {"loss_mask": loss, "loss_box_reg": 2 * loss}
    return StepResult(step, losses, grad_norm, 0.1 * (step + 1), nonfinite, is_out_of_memory=False, notices=())


def report(
    output: Path, log_steps: int = 1, max_steps: int = 4, turns: ValidationTurns | None = None
) -> tuple[Reporter, list[Glance]]:
    glances: list[Glance] = []
    values = {"max_steps": max_steps, "steps_per_epoch": 2, "log_steps": log_steps, "turns": turns}
    return Reporter(str(output), 0, show=glances.append, **values), glances


def test_a_line_has_means_over_its_steps_and_its_last_rate(tmp_path: Path, now: list[float]) -> None:
    found, _ = report(tmp_path, log_steps=2, max_steps=5)
    for step, loss in enumerate([1.0, 3.0, 5.0, 7.0, 9.0]):
        now[0] += 2
        found.add_step(result(step, loss), num_images=8, wait_s=0.5, num_samples=8 * (step + 1))
    found.close()
    lines = read_metrics(str(tmp_path))
    assert [each["step"] for each in lines] == [1, 3, 4]
    assert [each["epoch"] for each in lines] == [0, 1, 2]
    assert [each["num_samples"] for each in lines] == [16, 32, 40]
    assert [each["losses"] for each in lines] == [
        {"loss_mask": loss, "loss_box_reg": 2 * loss} for loss in (2.0, 6.0, 9.0)
    ]
    assert [each["loss"] for each in lines] == [6.0, 18.0, 27.0]
    assert [each["learning_rate"] for each in lines] == pytest.approx([0.2, 0.4, 0.5])
    assert [each["images_per_s"] for each in lines] == [4.0, 4.0, 4.0]
    assert [each["data_wait_s"] for each in lines] == [1.0, 1.0, 0.5]
    assert all(each["memory_bytes"] > 2**20 for each in lines)


def test_skipped_steps_are_counted_and_not_averaged(tmp_path: Path, now: list[float]) -> None:
    found, glances = report(tmp_path, log_steps=2)
    nan = float("nan")
    spoilt = [result(1, nan, nonfinite=(0,)), result(2, nan, nonfinite=(1,)), result(3, 1.0, grad_norm=nan)]
    for each in [result(0, 1.0), *spoilt]:
        now[0] += 1
        found.add_step(each, num_images=2, wait_s=0, num_samples=0)
    found.close()
    lines = read_metrics(str(tmp_path))
    assert [each["num_skipped"] for each in lines] == [1, 2]
    assert lines[0]["loss"] == 3.0
    assert (lines[1]["losses"], lines[1].get("loss")) == ({}, None), "a mean of nothing is not zero"
    assert [each["grad_norm"] for each in lines] == [-1.0, -1.0]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert glances[-1].losses == {"loss_mask": 1.0, "loss_box_reg": 2.0}


def test_a_glance_is_smoothed_and_tells_the_time_that_is_left(tmp_path: Path, now: list[float]) -> None:
    found, glances = report(tmp_path)
    now[0] += 4
    found.add_step(result(0, 1.0), num_images=8, wait_s=1, num_samples=8)
    now[0] += 0.1
    found.add_step(result(1, 2.0), num_images=8, wait_s=0, num_samples=16)  # too soon after the one before
    now[0] += 4
    found.add_step(result(2, 1.0), num_images=8, wait_s=1, num_samples=24)
    assert [glance.step for glance in glances] == [1, 3]
    assert (glances[0].images_per_s, glances[0].data_wait_share, glances[0].seconds_left) == (2.0, 0.25, 12.0)
    assert glances[0].losses == {"loss_mask": 1.0, "loss_box_reg": 2.0}
    seconds = 0.9 * (0.9 * 4 + 0.1 * 0.1) + 0.1 * 4
    assert glances[1].losses["loss_mask"] == pytest.approx(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 1)
    assert glances[1].seconds_left == pytest.approx(seconds)
    assert glances[1].images_per_s == pytest.approx(8 / seconds)
    now[0] += 0.1
    found.add_step(result(3, 1.0), num_images=8, wait_s=0, num_samples=32)
    assert (glances[-1].step, glances[-1].seconds_left) == (4, 0), "the last one is shown whenever it comes"
    found.close()


def test_a_validation_is_no_slow_step_and_scores_stay_in_view(tmp_path: Path, now: list[float]) -> None:
    found, glances = report(tmp_path)
    now[0] += 1
    found.add_step(result(0, 1.0), num_images=4, wait_s=0, num_samples=4)
    found.add_scores(1, SCORES)
    now[0] += 1000
    found.end_validation(1)
    now[0] += 1
    found.add_step(result(1, 1.0), num_images=4, wait_s=0, num_samples=8)
    found.close()
    assert (glances[0].scores, glances[1].scores) == (None, SCORES["segm"])
    assert (glances[1].images_per_s, glances[1].seconds_left) == (4.0, 2.0)
    lines = read_metrics(str(tmp_path))
    assert lines[1] == {"step": 1, "epoch": 0, "validation": SCORES}
    assert lines[2]["images_per_s"] == 4.0


def test_the_time_that_is_left_counts_the_validations_to_come(tmp_path: Path, now: list[float]) -> None:
    found, glances = report(tmp_path, max_steps=6, turns=ValidationTurns(every_steps=2, every_s=0))
    for step in range(6):
        now[0] += 1
        found.add_step(result(step, 1.0), num_images=4, wait_s=0, num_samples=0)
        if step + 1 in (2, 4, 6):
            now[0] += 30
            found.end_validation(step + 1)
    found.close()
    # The length of a validation is known after the first one; a last glance follows the last one.
    assert [glance.seconds_left for glance in glances] == [5, 4, 3 + 60, 2 + 60, 1 + 30, 0 + 30, 0]


@pytest.mark.parametrize(
    ("turns", "step", "seconds", "num_left"),
    [
        (ValidationTurns(0, 0), 3, 70, 1),
        (ValidationTurns(4, 0), 3, 70, 3),
        (ValidationTurns(4, 0), 4, 60, 3),
        (ValidationTurns(4, 0), 5, 50, 2),
        (ValidationTurns(5, 0), 3, 70, 2),
        (ValidationTurns(0, 20), 3, 70, 4),
        (ValidationTurns(4, 20), 8, 20, 2),
        (ValidationTurns(4, 20), 10, 0, 1),
    ],
)
def test_validations_to_come_are_counted(turns: ValidationTurns, step: int, seconds: float, num_left: int) -> None:
    assert turns.num_left(step, 10, seconds) == num_left


def test_a_clock_is_due_every_so_often_and_goes_on_after_a_resume(now: list[float]) -> None:
    clock = Clock(50.0)
    assert not clock.is_due("save", 10)
    now[0] += 9
    assert not clock.is_due("save", 10)
    now[0] += 1
    assert clock.is_due("save", 10)
    assert not clock.is_due("save", 10)
    now[0] += 100
    assert not clock.is_due("save", 0)
    assert clock.total_s() == 160.0
