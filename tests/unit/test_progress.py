from __future__ import annotations

import io

import pytest

from maskrcnn import progress
from maskrcnn.progress import LiveLine, Progress, clock, progress_line


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


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock, in seconds, in a list to set it by; the terminal is 20 columns wide."""
    seconds = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    monkeypatch.setenv("COLUMNS", "20")
    return seconds


def screen(written: str) -> list[str]:
    """Give what a terminal shows after this was written to it."""
    lines = [""]
    column = 0
    for character in written:
        if character == "\r":
            column = 0
        elif character == "\n":
            lines.append("")
            column = 0
        else:
            lines[-1] = lines[-1][:column] + character + lines[-1][column + 1 :]
            column += 1
            assert column < 20, "the line would be broken"
    return [line.rstrip() for line in lines]


def test_a_terminals_line_moves_at_most_every_so_often(now: list[float]) -> None:
    stream = Terminal()
    live = LiveLine(stream)
    for tenth in range(10):
        now[0] = tenth / 10
        live.show(f"step {tenth}")
    shown = [part.strip() for part in stream.getvalue().split("\r") if part]
    assert shown[0] == "step 0"
    assert 4 <= len(shown) <= 5
    live.show("step 10", is_last=True)
    assert screen(stream.getvalue()) == ["step 10"]


def test_news_stand_above_the_line_that_moves(now: list[float]) -> None:
    stream = Terminal()
    live = LiveLine(stream)
    live.say("hello")
    live.show("a long line that moves on")
    live.say("news")
    assert screen(stream.getvalue()) == ["hello", "news", "a long line that mo"]
    now[0] = 1.0
    live.show("moved")
    assert screen(stream.getvalue()) == ["hello", "news", "moved"]
    live.close()
    live.close()
    live.say("the end")
    assert screen(stream.getvalue()) == ["hello", "news", "moved", "the end", ""]


def test_a_log_gets_news_at_once_and_the_state_every_minute(now: list[float]) -> None:
    stream = io.StringIO()
    live = LiveLine(stream)
    for second in range(0, 121, 10):
        now[0] = float(second)
        live.show(f"step {second}, a line that is longer than the terminal")
        if second == 70:
            live.say("news")
    live.show("step 130", is_last=True)
    live.show("step 130", is_last=True)
    live.close()
    rest = ", a line that is longer than the terminal"
    assert stream.getvalue().splitlines() == [f"step 60{rest}", "news", f"step 120{rest}", "step 130"]
    assert "\r" not in stream.getvalue()


def test_a_state_that_is_the_same_is_not_written_again(now: list[float]) -> None:
    stream = io.StringIO()
    live = LiveLine(stream)
    for second in (60, 120, 180):
        now[0] = float(second)
        live.show("step 1")
    assert stream.getvalue() == "step 1\n"
