"""What a process prints, logs and dies of is told without secrets. In a process of its own: the doors stay shut."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest

from maskrcnn.errors import NonFiniteError, UnavailableError
from maskrcnn.log_lines import JsonLines
from maskrcnn.redacted_output import RedactingStream, redacted_errors
from tests.conftest import PROJECT_ROOT

SECRET = "wJalrXUtnFEMI-K7MDENG"
PROGRAM = f"""
import logging, os, sys, threading, warnings
from maskrcnn.redacted_output import redact_output
foreign = logging.FileHandler(sys.argv[1])
logging.getLogger("a.library").addHandler(foreign)
redact_output()
redact_output()
print("printed", {SECRET!r}, flush=True)
sys.stdout.writelines(["written {SECRET}\\n"])
assert sys.stdout.fileno() == 1 and not sys.stdout.isatty()
logger = logging.getLogger("a.library")
logger.warning("warned of %s", os.environ["AWS_SECRET_ACCESS_KEY"])
logger.warning("a library's mistake %d", "{SECRET}")
try:
    raise ValueError("s3://user:{SECRET}@bucket")
except ValueError:
    logger.exception("caught")
thread = threading.Thread(target=lambda: open("{SECRET}/nowhere"))
thread.start()
thread.join()
warnings.warn("beware of {SECRET}")
raise RuntimeError("the end of {SECRET}")
"""


def test_nothing_that_leaves_a_process_holds_a_secret(tmp_path: Path) -> None:
    environment = os.environ | {"AWS_SECRET_ACCESS_KEY": SECRET, "PYTHONPATH": str(PROJECT_ROOT)}
    (tmp_path / "program.py").write_text(PROGRAM.replace(repr(SECRET), 'os.environ["AWS_SECRET_ACCESS_KEY"]'))
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "log")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    log = (tmp_path / "log").read_text()
    assert run.returncode == 1
    assert run.stdout == "printed …\nwritten …\n"
    for told in (
        "Exception in thread",
        "FileNotFoundError: [Errno 2] No such file or directory: '…/nowhere'",
        "UserWarning: beware of …",
        "RuntimeError: the end of …",
    ):
        assert told in run.stderr
    assert "warned of …\na library's mistake %d ('…',)\ncaught\nTraceback" in log
    assert "ValueError: s3://…@bucket" in log
    assert SECRET not in run.stdout + log
    source_lines = [line for line in run.stderr.splitlines() if SECRET in line]
    assert source_lines == []


def test_errors_that_tell_a_secret_are_told_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    def raised(error: Exception, cause: Exception | None = None) -> BaseException:
        with pytest.raises(Exception) as caught, redacted_errors():  # noqa: PT011  any kind is given
            raise error from cause
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        return caught.value

    harmless = ValueError("a plain mistake")
    assert raised(harmless) is harmless
    storage_error = raised(UnavailableError("s3://bucket", f"signed with {SECRET}"))
    assert isinstance(storage_error, UnavailableError)
    assert (storage_error.uri, storage_error.reason) == ("s3://bucket", "signed with …")
    assert str(raised(KeyError(f"no {SECRET}"))) == "KeyError: 'no …'"
    assert str(raised(NonFiniteError((f"step 1 on s3://u:{SECRET}@b",)))).startswith("1 steps must give")
    assert str(raised(ValueError("outer"), KeyError(SECRET))) == "ValueError: outer"


@pytest.mark.parametrize("stream_class", [RedactingStream, lambda stream: JsonLines(stream, "INFO", "run")])
@pytest.mark.parametrize("line", ["short\n", f"{'long ' * 50_000}\n"])
def test_a_reader_that_left_ends_nothing(stream_class: Callable[[TextIO], RedactingStream], line: str) -> None:
    reader, writer = os.pipe()
    with open(writer, "w") as pipe:
        os.close(reader)
        stream = stream_class(pipe)
        for _ in range(2):
            stream.write(line)
            stream.flush()
