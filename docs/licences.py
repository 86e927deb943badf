"""Write docs/LICENCES.md: every package that ``maskrcnn[jobs]`` installs, with its version and its licence.

Run it in an environment of constraints.txt: ``python docs/licences.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = Path(__file__).with_name("LICENCES.md")
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"

NAMES = {
    "Apache 2.0": "Apache-2.0",
    "Apache License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD 3-Clause": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "FreeBSD": "BSD-2-Clause",
    "NVIDIA Proprietary Software": "LicenseRef-NVIDIA-Proprietary",
}
"""The SPDX names of what packages call their licences."""
SAID_AT_LENGTH = {"cycler": "BSD-3-Clause", "kiwisolver": "BSD-3-Clause"}
"""Of packages whose metadata hold the whole text, and no name of it."""
NOT_SAID = {"cuda-toolkit": "LicenseRef-NVIDIA-Proprietary"}
"""Of packages whose metadata say nothing. This one is empty: it only names the nvidia packages."""
ANY = "any"
"""The version of a package that constraints.txt leaves open."""
NOTES = """
- MPL-2.0 (certifi): asks only that changed files of its own stay under it; none is changed.
- NVIDIA's: the CUDA libraries that torch's wheel for Linux brings; free to use and, with an application, to pass on.
  On a host without a GPU, torch's CPU wheel does without them.
- Inside numpy's wheel is libgfortran, under GPL-3.0 with the GCC Runtime Library Exception, which frees what is linked.
- Inside setuptools is a copy of autocommand (LGPL-3.0), which setuptools' own build uses; nothing here imports it.
"""


@dataclass(frozen=True)
class Package:
    """A package of the closure."""

    name: str
    version: str
    licence: str


def closure(root: str, extras: frozenset[str]) -> list[Package]:
    """Find everything that a distribution installs on this system, itself left out, by name.

    Raises:
        PackageNotFoundError: when something of it is not installed here.
    """
    seen: dict[str, set[str]] = {}
    todo = [(canonicalize_name(root), extras)]
    while todo:
        name, wanted = todo.pop()
        fresh = {"", *wanted} - seen.setdefault(name, set())
        seen[name] |= fresh
        for text in distribution(name).requires or ():
            requirement = Requirement(text)
            if any(requirement.marker is None or requirement.marker.evaluate({"extra": extra}) for extra in fresh):
                following = (canonicalize_name(requirement.name), frozenset(requirement.extras))
                if {"", *following[1]} - seen.get(following[0], set()):
                    todo.append(following)
    found = (distribution(name) for name in sorted(seen) if name != canonicalize_name(root))
    return [Package(canonicalize_name(each.name), each.version, licence_of(each)) for each in found]


def licence_of(package: Distribution) -> str:
    """Read a package's licence: its SPDX expression, else its classifiers, else the first line of its own words."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [text.split(" :: ") for text in metadata.get_all("Classifier", ())]
    named = [words[-1] for words in classifiers if words[0] == "License" and words[-1] != "OSI Approved"]
    if package.name in SAID_AT_LENGTH:
        return SAID_AT_LENGTH[package.name]
    own_words = (metadata.get("License") or "").strip().splitlines()
    if named and not (named == ["BSD License"] and own_words):
        return " OR ".join(dict.fromkeys(NAMES.get(text, text) for text in named))
    if own_words:
        return NAMES.get(own_words[0], own_words[0])
    return NOT_SAID.get(canonicalize_name(package.name), "")


def constraints() -> dict[str, str]:
    """Give the version of every package that constraints.txt pins."""
    pins = (line.partition("#")[0].strip() for line in CONSTRAINTS.read_text().splitlines())
    pairs = (re.split(r"==", pin) for pin in pins if "==" in pin)
    return {canonicalize_name(name): version for name, version in pairs}


def render(packages: list[Package]) -> str:
    """Write the page."""
    pinned = constraints()
    rows = "".join(f"| {each.name} | {pinned.get(each.name, ANY)} | {each.licence} |\n" for each in packages)
    return (
        "# Licences\n\n"
        "maskrcnn is Apache-2.0. Everything that `pip install -c constraints.txt 'maskrcnn[jobs]'` brings on Linux, as "
        f"its own\nmetadata says; written by `docs/licences.py`. {len(packages)} packages.\n\n"
        f"| package | version | licence |\n| --- | --- | --- |\n{rows}{NOTES}"
    )


if __name__ == "__main__":
    try:
        PAGE.write_text(render(closure("maskrcnn", frozenset({"jobs"}))))
    except PackageNotFoundError as error:
        remedy = "run pip install -c constraints.txt -e '.[jobs]'"
        raise SystemExit(f"{error.name} must be installed to be listed; {remedy}") from None
