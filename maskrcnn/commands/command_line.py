"""What every command has in common: parsing, one-line errors, exit codes 0, 1 and 2."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import io
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Any, NoReturn, TypeVar

import tyro

from maskrcnn.commands.help import FRAME, RULE, render_help
from maskrcnn.config import UnusualValueWarning, flag
from maskrcnn.errors import AccessError, InputError, MaskrcnnError, NotFoundError
from maskrcnn.log_lines import LogFormat, LogStyle, new_run_id, set_up_logs
from maskrcnn.storage.outside import check_no_secrets

DONE, NOT_AS_IT_SHOULD_BE, WRONG_INPUT = 0, 1, 2

LOG_FORMAT = "log_format"

_TROUBLE_WITH_A_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG})

_Arguments = TypeVar("_Arguments")


def run_command(
    arguments_class: type[_Arguments],
    command: Callable[[_Arguments], int],
    name: str,
    default: Callable[[list[str]], _Arguments] | None = None,
    groups: Mapping[str, str] = MappingProxyType({}),
) -> NoReturn:
    """Parse the command line, run, and exit.

    Args:
        arguments_class: a dataclass of the options.
        command: what to run; gives the exit code.
        name: of the command.
        default: gives from the words of the command line what holds where they say nothing.
        groups: the titles of the groups of options in the help, each by the field that it begins with.

    Exit codes: 0 done; 1 ran, and something is not as it should be; 2 the input is wrong, told in one line.
    """
    set_up_logs(LogStyle(given_format(sys.argv[1:]), new_run_id(datetime.now(UTC))))
    warnings.showwarning = _show_warning
    try:
        arguments = _parse(arguments_class, name, default, groups)
        _refuse_credentials(arguments)
        sys.exit(command(arguments))
    except InputError as error:
        _fail(name, str(error), WRONG_INPUT, error.page)
    except (AccessError, NotFoundError) as error:
        _fail(name, f"{error.uri} cannot be used: {error.reason}", WRONG_INPUT, error.page)
    except MaskrcnnError as error:
        _fail(name, f"{type(error).__name__}: {error}", NOT_AS_IT_SHOULD_BE, error.page)
    except OSError as error:
        if error.errno not in _TROUBLE_WITH_A_DISK:
            raise
        place = error.filename or f"a temporary file in {tempfile.gettempdir()}"
        remedy = "see to it, or name another place (TMPDIR for temporary files), then run the same command again"
        _fail(name, f"{place}: {error.strerror}; {remedy}", NOT_AS_IT_SHOULD_BE)
    except KeyboardInterrupt:
        _fail(name, "interrupted; the same command goes on where this one stopped", 130)


def _parse(
    arguments_class: type[_Arguments],
    name: str,
    default: Callable[[list[str]], _Arguments] | None,
    groups: Mapping[str, str],
) -> _Arguments:
    """Parse, with the library's box of an error folded into one line."""
    complaint = io.StringIO()
    with_format = _with_log_format(arguments_class)
    given = tyro.MISSING_NONPROP if default is None else with_format(**_fields(arguments_class, default(sys.argv[1:])))

    def parse() -> _Arguments:
        config = (tyro.conf.OmitArgPrefixes,)
        parsed: Any = tyro.cli(with_format, prog=_invocation(name), config=config, default=given)
        return arguments_class(**_fields(arguments_class, parsed))

    if {"-h", "--help"} & set(sys.argv[1:]):
        _show_help(parse, groups)
    try:
        with contextlib.redirect_stderr(complaint), _endless_lines():
            return parse()
    except SystemExit:
        _fail(name, fold_complaint(complaint.getvalue()), WRONG_INPUT)


def _with_log_format(arguments_class: type[Any]) -> type[Any]:
    """Add to a command's options the one that all have."""
    help_text = "How output and logs are written; json: one object a line, each with the run's id."
    log_format = Annotated[LogFormat, tyro.conf.arg(help=help_text)]
    return dataclasses.make_dataclass(
        arguments_class.__name__,
        [(LOG_FORMAT, log_format, dataclasses.field(default="text"))],
        bases=(arguments_class,),
        frozen=True,
        namespace={"__doc__": arguments_class.__doc__},
    )


def _fields(arguments_class: type[Any], arguments: Any) -> dict[str, Any]:
    return {field.name: getattr(arguments, field.name) for field in dataclasses.fields(arguments_class)}


def given_format(words: list[str]) -> LogFormat:
    """Look for the format before anything is parsed: what is wrong with the words is told in it too."""
    given = [word.replace("_", "-") for word in words]  # the library takes both
    option = flag(LOG_FORMAT)
    return "json" if (option, "json") in pairwise(given) or f"{option}=json" in given else "text"


def _show_help(parse: Callable[[], object], groups: Mapping[str, str]) -> NoReturn:
    """Let the library say what it knows, in lines without end, and lay it out."""
    width, shown = shutil.get_terminal_size().columns, io.StringIO()
    with contextlib.redirect_stdout(shown), _endless_lines(), contextlib.suppress(SystemExit):
        parse()
    print(render_help(shown.getvalue(), {**groups, LOG_FORMAT: "what it says"}, width), end="")
    sys.exit(DONE)


def _refuse_credentials(arguments: Any) -> None:
    """Refuse secrets in what is given: plans, records and bundles keep it."""
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        if isinstance(value, str):
            check_no_secrets(value, flag(field.name))


@contextlib.contextmanager
def _endless_lines() -> Iterator[None]:
    """Keep the library from breaking lines, since where it breaks them depends on the terminal."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def fold_complaint(box: str) -> str:
    """Fold the library's boxed, many-lined complaint into one line that names the option, the rule and the value."""
    complaint, *hints = _sections(box) or [["wrong options"]]
    text = " ".join(complaint)
    if unknown := re.match(r"Unrecognized options: (.*)", text):
        return _tell_unknown(unknown[1].split(", "), hints)
    if text.startswith("Missing from"):
        return _tell_missing(_options(complaint), hints)
    if unparsed := re.match(r"Error parsing (--[\w-]+): (.*?)(?: Got errors:.*)?$", text):
        given = " ".join(re.findall(r"'([^']*)'", unparsed[2]))
        return f"{unparsed[1]} must be {_kind_of(unparsed[1], hints)}, got {given}; see --help"
    if choice := re.match(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)\.", text):
        return f"{choice[2]} must be one of {choice[3].replace(chr(39), '')}, got {choice[1]}; see --help"
    if valueless := re.match(r"Missing value for argument '(.*?)'", text):
        return f"{valueless[1]} must be followed by a value; see --help"
    return f"{text.rstrip('.')}; see --help"


def _sections(box: str) -> list[list[str]]:
    """Give a box's lines, without frame and title; the first section is the complaint, the others are hints."""
    sections: list[list[str]] = [[]]
    for framed in box.splitlines()[1:]:
        line = framed.strip(FRAME)
        if RULE.fullmatch(line):
            sections.append([])
        elif line:
            sections[-1].append(line)
    return [section for section in sections if section]


def _options(lines: list[str]) -> list[str]:
    return [re.split(r"[ ,]", line)[0] for line in lines if line.startswith("--")]


def _tell_missing(options: list[str], hints: list[list[str]]) -> str:
    """Name what is missing, and first what may stand in its place, misspelt."""
    text = f"{', '.join(options)} must be given; see --help"
    misspelt: list[str] = next((hint for hint in hints if hint[0] == "Unrecognized options:"), [])
    for unknown in reversed(_options(misspelt)):
        similar = difflib.get_close_matches(unknown, options, n=1)
        meant = f" (did you mean {similar[0]}?)" if similar else ""
        text = f"unknown option {unknown}{meant}, and {text}"
    return text


def _tell_unknown(words: list[str], hints: list[list[str]]) -> str:
    options = [word for word in words if word.startswith("-")]
    if not options:
        return f"unexpected argument {words[0]}; see --help"
    text = f"unknown option {', '.join(options)}"
    # Sorted: the library's order differs from run to run.
    similar = sorted({option for hint in hints for option in _options(hint)})
    return f"{text}; did you mean {' or '.join(similar)}?" if similar else f"{text}; see --help"


def _kind_of(option: str, hints: list[list[str]]) -> str:
    """Say in words what an option takes, from the hint that shows its type."""
    shown = " ".join(line for hint in hints for line in hint if line.startswith(option))
    kinds = {"FLOAT": "a number", "[INT": "whole numbers", "INT": "a whole number"}
    return next((kind for name, kind in kinds.items() if name in shown), "of another type")


def _fail(name: str, message: str, code: int, page: str = "") -> NoReturn:
    """Say in one line what is wrong, and where more is said of such things."""
    line = f"{_invocation(name).removeprefix('python -m ')}: {' '.join(message.split())}"
    print(f"{line} ({page})" if page else line, file=sys.stderr)
    sys.exit(code)


def _invocation(name: str) -> str:
    """Give the words that a person typed: the console script is called by its own name."""
    return sys.argv[0] if sys.argv[0].startswith("maskrcnn ") else f"python -m jobs.{name}"


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Show our own warnings in one line; those of libraries are for developers."""
    if issubclass(category, UnusualValueWarning):
        print(f"warning: {message}", file=sys.stderr)
