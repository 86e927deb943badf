"""What every command has in common: parsing, one-line errors, exit codes 0, 1 and 2."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn, TypeVar

import tyro

from maskrcnn.config import UnusualValueWarning
from maskrcnn.errors import InputError, MaskrcnnError

DONE, NOT_AS_IT_SHOULD_BE, WRONG_INPUT = 0, 1, 2

_Arguments = TypeVar("_Arguments")

_BOX = re.compile(r"[╭╮╰╯│─]+")


def run_command(arguments_class: type[_Arguments], command: Callable[[_Arguments], int], name: str) -> NoReturn:
    """Parse the command line, run, and exit.

    Exit codes: 0 done; 1 ran, and something is not as it should be; 2 the input is wrong, told in one line.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    warnings.showwarning = _show_warning
    arguments = _parse(arguments_class, name)
    try:
        sys.exit(command(arguments))
    except InputError as error:
        _fail(name, str(error), WRONG_INPUT)
    except MaskrcnnError as error:
        _fail(name, f"{type(error).__name__}: {error}", NOT_AS_IT_SHOULD_BE)
    except KeyboardInterrupt:
        _fail(name, "interrupted; the same command goes on where this one stopped", 130)


def _parse(arguments_class: type[_Arguments], name: str) -> _Arguments:
    """Parse, with the library's box of an error folded into one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(arguments_class, prog=f"python -m jobs.{name}", config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        _fail(name, fold_complaint(complaint.getvalue()), WRONG_INPUT)


def fold_complaint(box: str) -> str:
    """Fold a boxed, many-lined complaint into one line, without its title and the pointer to --help."""
    lines = [_BOX.sub("", line).strip() for line in box.splitlines()[1:]]
    text = " ".join(line for line in lines if line)
    text = re.sub(r"\s*(For full helptext|Argument helptext:).*", "", text)
    return f"{text}; see --help"


def _fail(name: str, message: str, code: int) -> NoReturn:
    print(f"jobs.{name}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Show our own warnings in one line; those of libraries are for developers."""
    if issubclass(category, UnusualValueWarning):
        print(f"warning: {message}", file=sys.stderr)
