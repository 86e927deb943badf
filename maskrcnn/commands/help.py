"""``--help`` as people read it: options in groups, a line or a paragraph each, nothing said of what is not set."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

INDENT = 26
"""Columns before an option's text."""
MAX_WIDTH = 100
FRAME = " ╭╮╰╯│|+"
"""What the CLI library draws its boxes with."""
_TITLE = re.compile(r"[─-]*\s*(positional arguments|.*?options)\s*[─-]*", re.IGNORECASE)
RULE = re.compile(r"[─-]{5,}")
"""Between the sections of a box; drawn with hyphens where the terminal is not known to take UTF-8."""


@dataclass
class _Option:
    """One option, as the library shows it."""

    invocation: str
    text: str

    @property
    def field(self) -> str:
        """Give the name of the arguments' field."""
        return re.split(r"[ ,]", self.invocation)[0].lstrip("-").replace("-", "_")


@dataclass
class _Box:
    """One of the library's boxes: its title, what stands above its options, and these."""

    title: str
    description: str
    options: list[_Option]


def render_help(shown: str, groups: Mapping[str, str], width: int) -> str:
    """Write the help anew.

    Args:
        shown: by the CLI library, with lines so wide that it breaks none.
        groups: the titles of groups of options, each by the field that it begins with.
        width: of the terminal, columns.
    """
    head, boxes = _parse(shown)
    width = max(60, min(width, MAX_WIDTH))
    blocks = [textwrap.fill(line, width) for line in head]
    for box in boxes:
        title = box.title
        lines = [f"{title}:"]
        if box.description:
            lines += textwrap.wrap(box.description, width, initial_indent="  ", subsequent_indent="  ")
        for option in box.options:
            if option.field in groups:
                blocks += ["\n".join(lines)] if len(lines) > 1 else []
                lines = [f"{groups[option.field]}:"]
            lines += _lines(option, width)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _parse(shown: str) -> tuple[list[str], list[_Box]]:
    """Take the library's text apart."""
    head: list[str] = []
    boxes: list[_Box] = []
    for framed in shown.splitlines():
        line = framed.strip(FRAME)
        title = _TITLE.fullmatch(line)
        if title and not framed.startswith(("│", "|", "usage")):
            boxes.append(_Box(title[1], "", []))
        elif not boxes:
            head += [line] if line else []
        elif (line.startswith("-") or _is_argument(boxes[-1], framed)) and not RULE.fullmatch(line):
            invocation, _, text = line.partition("  ")
            boxes[-1].options.append(_Option(invocation, text.strip()))
        elif line and not RULE.fullmatch(line):
            _continue(boxes[-1], line)
    return head, boxes


def _is_argument(box: _Box, framed: str) -> bool:
    """Say whether a line begins with a positional argument: text that goes on is indented."""
    return box.title == "positional arguments" and framed[1:3] != "  "


def _continue(box: _Box, line: str) -> None:
    if box.options:
        box.options[-1].text = f"{box.options[-1].text} {line}".strip()
    else:
        box.description = f"{box.description} {line}".strip()


def _lines(option: _Option, width: int) -> Iterator[str]:
    """Lay an option out: its text beside it where there is room, else below."""
    invocation = re.sub(r"\{None\}\||None,(?=[^}]*\})", "", option.invocation)
    invocation = (
        re.sub(r"(--[\w-]+), --no-[\w-]+", r"\1", invocation) if "default: False" in option.text else invocation
    )
    text = re.sub(r"\s*\(default: (?:None|False|)\s*\)", "", option.text)
    wrapped = textwrap.wrap(text, width - INDENT, break_on_hyphens=False)
    if len(invocation) + 4 > INDENT:
        yield f"  {invocation}"
    else:
        yield f"  {invocation:<{INDENT - 2}}{wrapped[0] if wrapped else ''}".rstrip()
        wrapped = wrapped[1:]
    for line in wrapped:
        yield f"{'':<{INDENT}}{line}"
