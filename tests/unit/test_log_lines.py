"""Every line that a process says as JSON is one object with the run's id, and holds no secret."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from maskrcnn.log_lines import JsonLines
from tests.conftest import PROJECT_ROOT

KEY = "AKIA" + "ABCDEFGHIJKLMNOP"
PROGRAM = f"""
import logging, sys, threading, warnings
from maskrcnn.log_lines import LogStyle, set_up_logs

library = logging.getLogger("library")  # as Ray's: a handler of its own, made before
library.addHandler(logging.StreamHandler(sys.stderr))
library.propagate = False
set_up_logs(LogStyle("json", "run-1"))
print("one, with key {KEY}")
print("two\\nthree", flush=True)
print("warning: four", file=sys.stderr)
logging.getLogger("maskrcnn.x").warning("five %s", "{KEY}")
library.warning("six")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
sys.stdout.write("seven, without an end")
raise RuntimeError('eight, "quoted" -----BEGIN PRIVATE KEY----- {KEY}')
"""


def read(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def written(text: str, level: str = "INFO") -> list[dict[str, Any]]:
    stream = io.StringIO()
    assert JsonLines(stream, level, "run-1").write(text) == len(text)
    return read(stream.getvalue())


@pytest.fixture(scope="module")
def said() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the program above says, on stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert KEY not in done.stdout + done.stderr
    return read(done.stdout), read(done.stderr)


def test_what_is_printed_logged_and_died_of_is_one_object_a_line(said: tuple[Any, Any]) -> None:
    out, err = said
    assert [(line["level"], line["message"]) for line in out] == [
        ("INFO", "one, with key …"),
        ("INFO", "two"),
        ("INFO", "three"),
        ("INFO", "seven, without an end"),
    ]
    assert [(line["level"], line["logger"], line["message"].split(",")[0]) for line in err] == [
        ("WARNING", "maskrcnn", "warning: four"),
        ("WARNING", "maskrcnn.x", "five …"),
        ("WARNING", "library", "six"),
        ("CRITICAL", "maskrcnn", "ZeroDivisionError: division by zero"),
        ("CRITICAL", "maskrcnn", "RuntimeError: eight"),
    ]
    assert {line["run_id"] for line in [*out, *err]} == {"run-1"}
    assert all(line.keys() >= {"time", "level", "logger", "message", "run_id"} for line in [*out, *err])


def test_a_failure_has_its_traceback_in_the_same_line(said: tuple[Any, Any]) -> None:
    *_, in_thread, last = said[1]
    assert "1 / 0" in in_thread["exception"] or "<lambda>" in in_thread["exception"]
    assert last["exception"].startswith("Traceback")
    assert "PRIVATE KEY" not in last["exception"]


def test_a_line_is_redacted_before_it_is_quoted_so_that_it_stays_json() -> None:
    (line,) = written("it was -----BEGIN PRIVATE KEY----- MIIE\n")
    assert line["message"] == "it was …"


def test_a_workers_line_keeps_its_own_fields_and_names_the_worker() -> None:
    told = {"time": "2026-11-22T01:02:03.000+00:00", "level": "WARNING", "message": "late", "run_id": "run-1"}
    (line,) = written(f"\x1b[36m(MapWorker(_PoolWorker) pid=7, ip=10.0.0.2)\x1b[0m {json.dumps(told)}\n")
    assert line == {**told, "worker": "MapWorker(_PoolWorker) pid=7, ip=10.0.0.2"}
    (other,) = written("(raylet pid=7) {not ours}\n")
    assert other["message"] == "(raylet pid=7) {not ours}"


def test_rays_own_marks_in_a_workers_output_stay_as_they_are() -> None:
    stream = io.StringIO()
    JsonLines(stream, "INFO", None).write(":actor_name:Worker\n\n:task_name:make\n")
    assert stream.getvalue() == ":actor_name:Worker\n:task_name:make\n"


def test_lines_are_whole_whatever_pieces_they_are_written_in() -> None:
    stream = io.StringIO()
    lines = JsonLines(stream, "INFO", None)
    for piece in ("hal", "f", "\nnext ", "one\n"):
        lines.write(piece)
    assert [line["message"] for line in read(stream.getvalue())] == ["half", "next one"]
    assert not lines.isatty()


def test_a_command_tells_in_json_what_is_wrong_with_its_words_too() -> None:
    words = ["-m", "jobs.predict", "--log-format", "json", "--bundle"]
    done = subprocess.run(
        [sys.executable, *words], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    (line,) = read(done.stderr)
    assert (line["level"], line["message"]) == (
        "ERROR",
        "jobs.predict: --bundle must be followed by a value; see --help",
    )
    assert line["run_id"]


def test_a_reader_that_splits_at_any_line_end_gets_whole_objects() -> None:
    (line,) = written("one\u2028line\x85of\u2029many\n")
    assert line["message"] == "one\u2028line\x85of\u2029many"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_lacks_a_character_gets_another(encoding: str) -> None:
    program = """
from maskrcnn.log_lines import LogStyle, set_up_logs
from maskrcnn.progress import progress_line

set_up_logs(LogStyle())
print(progress_line("labelling", 5, 0, 10, 1.0))
print("1 – 2 × 3 … 缶")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROJECT_ROOT,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        encoding=encoding,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    bar, signs = done.stdout.splitlines()
    assert bar.startswith(f"labelling {'=' * 14:28} 5/10 images")
    assert signs == f"1 - 2 {'×' if encoding == 'latin-1' else 'x'} 3 ... \\u7f36"
