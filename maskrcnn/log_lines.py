"""What a process says, for machines to read: one JSON object a line, each with the run's id; or plain text.

All that a command or one of its workers prints, logs or dies of goes through here once `set_up_logs` was called.
"""

from __future__ import annotations

import atexit
import codecs
import io
import json
import logging
import re
import sys
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

from maskrcnn.redacted_output import RedactingStream, redact_output
from maskrcnn.redaction import redact

LogFormat = Literal["text", "json"]

TEXT_FORMAT = "%(levelname)s %(message)s"
NAME = "maskrcnn"
_TERMINAL_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_FROM_A_WORKER = re.compile(r"\((?P<worker>.*?pid=\d+[^()]*)\) (?P<line>.*)")
"""How Ray shows on the driver what a worker of the cluster has printed."""
_MARKS_OF_RAY = (":actor_name:", ":job_id:", ":task_name:")
"""By which Ray tells in a worker's output whose it is: they stay as they are."""

_PLAINLY = "maskrcnn.plainly"
_PLAIN_SIGNS = str.maketrans({"━": "=", "─": "-", "–": "-", "…": "...", "×": "x"})


@dataclass(frozen=True)
class LogStyle:
    """How a process tells what it does; travels to its workers."""

    format: LogFormat = "text"
    run_id: str | None = None


_style = LogStyle()


def log_style() -> LogStyle:
    """Give the style of this process, for its workers."""
    return _style


def new_run_id(started_at: datetime) -> str:
    """Name a run by its begin, which sorts, and by chance."""
    return f"{started_at:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"


def set_up_logs(style: LogStyle) -> None:
    """Make this process tell everything in this style and without secrets; for processes that are ours alone."""
    global _style
    for stream in (sys.stdout, sys.stderr):
        _say_what_it_can(_bare(stream))
    redact_output()
    _style = style
    if style.format == "text":
        logging.basicConfig(level=logging.WARNING, format=TEXT_FORMAT, stream=sys.stderr)
        return
    out, err = _bare(sys.stdout), _bare(sys.stderr)
    formatter = JsonFormatter(style.run_id)
    _speak_json(_handlers(), formatter, {out, err})
    handler = logging.StreamHandler(err)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    sys.stdout = JsonLines(out, "INFO", style.run_id)
    sys.stderr = JsonLines(err, "ERROR", style.run_id)
    sys.excepthook = _log_exception
    threading.excepthook = _log_thread_exception


class JsonFormatter(logging.Formatter):
    """Turns a log record into one line of JSON.

    Args:
        run_id: of the run that every line belongs to.
    """

    def __init__(self, run_id: str | None) -> None:
        super().__init__()
        self._run_id = run_id

    def format(self, record: logging.LogRecord) -> str:
        """Give the line, without an end."""
        failure = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else None)
        told: dict[str, Any] = {} if failure is None else {"exception": failure}
        return to_line(record.created, record.levelname, record.name, record.getMessage(), self._run_id, **told)


class JsonLines(RedactingStream):
    """A text stream that writes each line as a JSON object, redacted before it is quoted.

    Args:
        stream: where to write.
        level: of what is printed here.
        run_id: of the run that every line belongs to.
    """

    def __init__(self, stream: TextIO, level: str, run_id: str | None) -> None:
        super().__init__(stream)
        self._level = level
        self._run_id = run_id
        self._begun = ""
        self._lock = threading.RLock()
        atexit.register(self._end_line)

    def write(self, text: str) -> int:
        """Write the lines that this text ends; what is left waits for its end."""
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
            for line in lines:
                if line.startswith(_MARKS_OF_RAY):
                    self._pass_on(f"{line}\n")
                elif line.strip():
                    self._pass_on(f"{self._to_json(line)}\n")
        return len(text)

    def isatty(self) -> bool:
        """Say that nobody looks on, wherever this goes: no line moves."""
        return False

    def _end_line(self) -> None:
        if self._begun:
            self.write("\n")

    def _to_json(self, line: str) -> str:
        line = _TERMINAL_COLOUR.sub("", line)
        if from_worker := _FROM_A_WORKER.fullmatch(line):
            told = _parse(from_worker["line"])
            if told is not None:
                return json.dumps({**told, "worker": from_worker["worker"]})
        level = "WARNING" if line.startswith("warning: ") else self._level
        return to_line(datetime.now(UTC).timestamp(), level, NAME, redact(line.rstrip()), self._run_id)


def to_line(unix_time: float, level: str, logger: str, message: str, run_id: str | None, **more: Any) -> str:
    """Give one line of JSON.

    Args:
        unix_time: s.
        level: as logging names them.
        logger: who says it.
        message: what is said, redacted.
        run_id: of the run that it belongs to.
        more: further fields.
    """
    time = datetime.fromtimestamp(unix_time, UTC).isoformat(timespec="milliseconds")
    fields = {"time": time, "level": level, "logger": logger, "message": message, "run_id": run_id, **more}
    return json.dumps(fields)


def _parse(line: str) -> dict[str, Any] | None:
    """Read a line that a worker wrote in this style; None where it is another."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) and "run_id" in told else None


def _say_what_it_can(stream: TextIO) -> None:
    """Let a terminal that lacks a character show another, where it would end the command."""
    if isinstance(stream, io.TextIOWrapper):
        codecs.register_error(_PLAINLY, _to_plain)
        stream.reconfigure(errors=_PLAINLY)


def _to_plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return missing.translate(_PLAIN_SIGNS).encode("ascii", "backslashreplace").decode(), error.end


def _bare(stream: TextIO) -> TextIO:
    """Take a stream out of what redacts it: JSON must be redacted before it is quoted."""
    while isinstance(stream, RedactingStream):
        stream = stream.inner
    return stream


def _handlers() -> list[logging.Handler]:
    known = [logging.root, *(each for each in logging.root.manager.loggerDict.values())]
    return [handler for each in known if isinstance(each, logging.Logger) for handler in each.handlers]


def _speak_json(handlers: list[logging.Handler], formatter: JsonFormatter, streams: set[TextIO]) -> None:
    """Make handlers of libraries that write to the terminal, as Ray's does, write JSON there too."""
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler) and _bare(handler.stream) in streams:
            handler.setStream(_bare(handler.stream))
            handler.setFormatter(formatter)


def _log_exception(kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
    logging.getLogger(NAME).critical("%s: %s", kind.__name__, error, exc_info=(kind, error, frames))


def _log_thread_exception(hook: threading.ExceptHookArgs) -> None:
    if hook.exc_type is not SystemExit and hook.exc_value is not None:
        _log_exception(hook.exc_type, hook.exc_value, hook.exc_traceback)
