"""The documentation names only options, pages and files that are there, and is as short as it promises to be."""

from __future__ import annotations

import dataclasses
import importlib
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.__main__ import COMMANDS
from tests.conftest import PROJECT_ROOT
from tests.doc_pages import PAGES, Block, read_blocks

BLOCKS = [block for page in PAGES for block in read_blocks(page)]
NEEDS = ("a cluster", "the network", "the sample data")
OTHERS_FLAGS = {
    # ray, kubectl, aws, openssl, promtool, docker, pip
    "--address", "--working-dir", "--submission-id", "--no-wait", "--head", "--from-literal", "--type",
    "--feature-gates", "--generate", "--schema", "--temp-dir", "--log-format",
}  # fmt: skip


def arguments_classes() -> dict[str, type]:
    modules = {name: importlib.import_module(f"maskrcnn.commands.{name}") for name in COMMANDS}
    return {
        name: next(one for key, one in vars(module).items() if key.lower() == f"{name}arguments")
        for name, module in modules.items()
    }


def flags_of(arguments_class: Any) -> set[str]:
    found = set()
    for field in dataclasses.fields(arguments_class):
        found.add(f"--{field.name.replace('_', '-')}")
        if dataclasses.is_dataclass(field.default_factory):
            found |= flags_of(field.default_factory)
    return found | {f"--no-{flag[2:]}" for flag in found}


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len((PROJECT_ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_that_a_page_names_is_one(page: Path) -> None:
    if page.name == "LOG.md":
        pytest.skip("the log tells of what was")
    known = {"--help", *OTHERS_FLAGS}.union(*(flags_of(one) for one in arguments_classes().values()))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text())) - known - benchmark_flags(page) == set()


def benchmark_flags(page: Path) -> set[str]:
    """Give the options of benchmarks, which some pages name."""
    return {"--small", "--soak"} if page.name in ("RELIABILITY.md",) else set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page.name}:{block.line}")
def test_a_block_is_whole_and_says_what_it_needs(block: Block) -> None:
    assert block.needs == "" or block.needs.startswith(NEEDS), f"one of {NEEDS}"
    if block.language == "sh":
        done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    elif block.language == "python":
        compile(block.text, block.page.name, "exec")
    else:
        assert block.language in ("sql", "toml", "text")


@pytest.mark.parametrize(
    "block", [one for one in BLOCKS if "python -m jobs." in one.text], ids=lambda block: block.page.name
)
def test_a_commands_options_are_its_own(block: Block) -> None:
    for command in block.commands():
        for name, words in re.findall(r"python -m jobs\.(\w+) ([^|&>]*)", command):
            given = set(re.findall(r"(?<=\s)--[a-z][a-z-]+", f" {words}"))
            assert given - flags_of(arguments_classes()[name]) - {"--log-format", "--help"} == set(), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_stand_in_blocks_that_are_run(page: Path) -> None:
    if page.name in ("LOG.md", "RELIABILITY.md"):
        pytest.skip("no guide")
    outside = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    indented = re.findall(r"^    (?:\S+=\S+ )*(?:python -m jobs\..*--.*)$", outside, re.M)
    assert indented == []
