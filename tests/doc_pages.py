"""The pages of the documentation as tests see them: their blocks of code, and what these need."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import PROJECT_ROOT

PAGES = [
    PROJECT_ROOT / "README.md",
    *sorted((PROJECT_ROOT / "docs").glob("*.md")),
    *sorted((PROJECT_ROOT / "deploy").glob("**/*.md")),
]
_FENCE = re.compile(r"(?:^<!-- needs (?P<needs>[^>]+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    needs: str
    """What it takes to run it, as a comment above it says; empty where nothing special is needed."""
    text: str

    def commands(self) -> list[str]:
        """Give the commands of a shell block, each in one line, without what only explains them."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def read_blocks(page: Path) -> list[Block]:
    """Give a page's blocks in order."""
    text = page.read_text()
    return [
        Block(page, text[: found.start()].count("\n") + 1, found["language"], found["needs"] or "", found["text"])
        for found in _FENCE.finditer(text)
    ]


def words_of_job(command: str) -> tuple[str, list[str]] | None:
    """Give the name and the words of a job's command; None for any other command."""
    if not command.startswith("python -m jobs."):
        return None
    words = shlex.split(command, comments=True)[2:]
    return words[0].removeprefix("jobs."), words[1:]
