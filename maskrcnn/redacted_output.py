"""Everything that a process prints or logs, without secrets: one door for messages, log files and tracebacks."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO

from maskrcnn.errors import MaskrcnnError
from maskrcnn.redaction import redact, redact_values


def redact_output() -> None:
    """Take secrets out of what this process prints and logs from now on; once more does no harm.

    For processes that are ours alone: commands and their workers. Log records are redacted where they are made, so
    that handlers of libraries, which write files of their own, get them clean too.
    """
    sys.stdout = _redacting(sys.stdout)
    sys.stderr = _redacting(sys.stderr)
    sys.excepthook = _print_exception
    threading.excepthook = _print_thread_exception
    make_record = logging.getLogRecordFactory()
    if not isinstance(make_record, _CleanRecords):
        logging.setLogRecordFactory(_CleanRecords(make_record))


@contextmanager
def redacted_errors() -> Iterator[None]:
    """Let no error out of the block that tells a secret: whoever catches it elsewhere may print it, as Ray does.

    Raises:
        MaskrcnnError: the same error with redacted fields.
        RuntimeError: instead of another package's error, with its name and redacted message.
    """
    try:
        yield
    except Exception as error:
        told = "".join(traceback.format_exception(error))
        if redact(told) == told:
            raise
        if isinstance(error, MaskrcnnError):
            raise type(error)(*redact_values(error.args)) from None
        raise RuntimeError(f"{type(error).__name__}: {redact(str(error))}") from None


def _redacting(stream: TextIO) -> TextIO:
    return stream if isinstance(stream, RedactingStream) else RedactingStream(stream)  # type: ignore[return-value]


class RedactingStream:
    """A text stream that redacts what is written, and takes no harm when its reader leaves (`| head`): what it would
    have read is lost, and nothing else; all else is the stream's own.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def inner(self) -> TextIO:
        """Give the stream behind."""
        return self._stream

    def write(self, text: str) -> int:
        """Write a text without its secrets."""
        self._pass_on(redact(text))
        return len(text)

    def flush(self) -> None:
        """Pass on what waits."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._read_no_more()

    def writelines(self, lines: Any) -> None:
        """Write texts without their secrets."""
        for line in lines:
            self.write(line)

    def _pass_on(self, text: str) -> None:
        try:
            self._stream.write(text)
        except BrokenPipeError:
            self._read_no_more()

    def _read_no_more(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _CleanRecords:
    """Makes log records whose message and traceback are redacted."""

    def __init__(self, make_record: Any) -> None:
        self._make_record = make_record

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make_record(*args, **kwargs)
        record.msg, record.args = redact(_message_of(record)), ()
        if record.exc_info:
            record.exc_text = redact("".join(traceback.format_exception(*record.exc_info))).rstrip("\n")
        return record


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # a library's mistake, which must not end its caller
        return f"{record.msg} {record.args}"


def _print_exception(kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
    sys.stderr.write("".join(traceback.format_exception(kind, error, frames)))


def _print_thread_exception(hook: threading.ExceptHookArgs) -> None:
    name = hook.thread.name if hook.thread else "?"
    if hook.exc_type is not SystemExit:
        told = "".join(traceback.format_exception(hook.exc_type, hook.exc_value, hook.exc_traceback))
        sys.stderr.write(f"Exception in thread {name}:\n{told}")
