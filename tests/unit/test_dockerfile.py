"""The image has the pinned set and the code, and is nobody's root; read, since nothing here builds images."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import PROJECT_ROOT

INSTALL = "pip install -c constraints.txt '.[jobs]'"
Step = tuple[str, str]


@pytest.fixture(scope="module")
def steps() -> list[Step]:
    """The file's instructions and their arguments, continued lines joined."""
    text = re.sub(r"\\\n\s*", "", (PROJECT_ROOT / "Dockerfile").read_text())
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def taken(steps: list[Step]) -> set[str]:
    return {source.strip("./") for name, rest in steps if name == "COPY" for source in shlex.split(rest)[:-1]}


def test_every_file_that_is_copied_is_there_and_let_through(steps: list[Step]) -> None:
    ignored = (PROJECT_ROOT / ".dockerignore").read_text().split()
    assert "*" in ignored, "nothing gets in unless it is named"
    assert taken(steps) == {word[1:] for word in ignored if word.startswith("!")}
    assert all((PROJECT_ROOT / source).exists() for source in taken(steps))


def test_what_is_installed_is_the_pinned_set_and_of_the_python_that_it_is_pinned_for(steps: list[Step]) -> None:
    installs = [rest for name, rest in steps if name == "RUN" and "pip" in rest]
    assert [line.replace("--no-cache-dir ", "").split(" && ")[0] for line in installs] == [INSTALL]
    assert [rest for name, rest in steps if name == "FROM"] == ["python:3.11-slim"]
    licences = (PROJECT_ROOT / "docs" / "LICENCES.md").read_text()
    assert INSTALL.replace(".[jobs]", "maskrcnn[jobs]") in licences, "the page that lists what this command brings"


def test_jobs_run_from_the_checkout_as_a_user_without_rights(steps: list[Step]) -> None:
    names = [name for name, _ in steps]
    settings = dict(steps)
    assert settings["USER"] == "1000:1000"
    assert names[-1] == "USER", "nothing runs as root after it"
    assert {"jobs", "maskrcnn"} <= taken(steps)
    assert Path(settings["WORKDIR"]).is_absolute()
    assert "RAY_AUTH_MODE=token" in settings["ENV"]
    assert not {"ADD", "EXPOSE", "VOLUME"} & set(names)


def test_the_image_has_what_kuberays_probes_call(steps: list[Step]) -> None:
    assert any("apt-get install" in rest and "wget" in rest for name, rest in steps if name == "RUN")
