"""``--help``: every option of every command once, in groups, in lines that fit; and errors name pages that exist."""

from __future__ import annotations

import importlib
import re
import sys

import pytest

from maskrcnn import errors
from maskrcnn.__main__ import COMMANDS
from maskrcnn.commands.help import render_help
from tests.conftest import PROJECT_ROOT

COMMANDS_WITH_GROUPS = [name for name in COMMANDS if name != "demo"]


def show_help(name: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", "--help"])
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f"maskrcnn.commands.{name}").main()
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_is_broken_by_the_terminal(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = show_help(name, width, monkeypatch, capsys)
    choices = re.compile(r"  --[\w-]+ .*[{\[]")  # an option's choices are one word
    too_wide = [line for line in shown.splitlines() if len(line) > width and not choices.match(line)]
    assert too_wide == []
    assert "None" not in re.sub(r"weight-decay FLOAT +None on norms", "", shown)


@pytest.mark.parametrize("name", COMMANDS_WITH_GROUPS)
def test_options_stand_in_groups(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = importlib.import_module(f"maskrcnn.commands.{name}").GROUPS
    shown = show_help(name, 80, monkeypatch, capsys)
    titles = [one for one in re.findall(r"^([a-z].*):$", shown, re.MULTILINE) if one != "positional arguments"]
    assert titles[: 1 + len(groups)] == ["options", *groups.values()], "each field that begins a group is an option"
    options = re.findall(r"^  (--[\w-]+)", shown, re.MULTILINE)
    assert len(options) == len(set(options))
    words = " ".join(shown.split())
    assert [option for option in options if f"{option} {option}" in words] == []


def test_text_goes_below_an_option_that_leaves_no_room_for_it() -> None:
    shown = (
        "usage: x [OPTIONS]\n\nWhat it does.\n\n"
        "╭─ options ────╮\n"
        "│ -h, --help   show this                                  │\n"
        "│ --short STR  One two. (default: None)                   │\n"
        "│ --long-enough-to-fill-the-column {None}|INT             │\n"
        "│              Three                                      │\n"
        "│              four. (default: 5)                         │\n"
        "│ --is-on, --no-is-on                                     │\n"
        "│              Five. (default: False)                     │\n"
        "╰──────────────╯\n"
    )
    assert render_help(shown, {"short": "the short one"}, 80) == (
        "usage: x [OPTIONS]\n\nWhat it does.\n\n"
        "options:\n  -h, --help              show this\n\n"
        "the short one:\n  --short STR             One two.\n"
        "  --long-enough-to-fill-the-column INT\n                          Three four. (default: 5)\n"
        "  --is-on                 Five.\n"
    )


def test_pages_that_errors_name_are_there() -> None:
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.MaskrcnnError)]
    pages = {one.__name__: one.page for one in classes if one.page}
    assert {"AnnotationError", "BundleError", "OutputError", "ClusterError", "NonFiniteError"} <= set(pages)
    assert {name: page for name, page in pages.items() if not (PROJECT_ROOT / page).is_file()} == {}
