from __future__ import annotations

import io

import pytest

from maskrcnn import progress
from maskrcnn.progress import Progress, clock, progress_line


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.4, "59s"), (185, "3m05s"), (7620, "2h07m")])
def test_durations_are_written_as_people_do(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_a_line_has_images_rate_failures_and_eta() -> None:
    line = progress_line("labelling", 250, 3, 1000, 50.0)
    assert "250/1,000 images" in line
    assert "5.0/s" in line
    assert "3 failed" in line
    assert "ETA 2m30s" in line


def test_parts_tried_again_do_not_count_past_the_end() -> None:
    assert "10/10 images" in progress_line("labelling", 13, 0, 10, 5.0)


def test_nothing_done_yet_has_no_eta() -> None:
    assert "ETA" not in progress_line("labelling", 0, 0, 10, 5.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_line_that_is_rewritten() -> None:
    stream = Terminal()
    bar = Progress(10, "labelling", stream)
    bar.update(5, 0)
    bar.finish(10, 1)
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().count("\r") == 2


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    lines = Progress(1000, "labelling", stream)
    for second in range(0, 180, 5):
        now[0] = float(second)
        lines.update(second, 0)
    assert stream.getvalue().count("\n") == 2
    lines.finish(1000, 0)
    assert stream.getvalue().splitlines()[-1].endswith("in 2m55s")
