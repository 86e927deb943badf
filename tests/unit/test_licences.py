"""docs/LICENCES.md names everything that the product installs, and nothing that would bind who uses it."""

from __future__ import annotations

import importlib.util
import re
import sys
from types import ModuleType

import pytest

from tests.conftest import PROJECT_ROOT

COPYLEFT = re.compile(r"\b[AL]?GPL|GNU|SSPL|EUPL|CC-BY-SA", re.IGNORECASE)


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licences", PROJECT_ROOT / "docs" / "licences.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["licences"] = module  # where its dataclass looks for itself
    spec.loader.exec_module(module)
    return module


def listed() -> dict[str, tuple[str, str]]:
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (.+?) \|$", (PROJECT_ROOT / "docs" / "LICENCES.md").read_text(), re.M)
    return {name: (version, licence) for name, version, licence in rows if name not in ("package", "---")}


def test_every_package_of_the_product_is_listed_as_it_is_installed(licences: ModuleType) -> None:
    closure, pinned = licences.closure("maskrcnn", frozenset({"jobs"})), licences.constraints()
    assert {"torch", "ray", "pyarrow", "tyro", "numpy", "grpcio"} <= {each.name for each in closure}
    installed = {each.name: (each.version if each.name in pinned else licences.ANY, each.licence) for each in closure}
    assert installed == listed(), "run docs/licences.py again"


def test_versions_are_those_of_the_constraints(licences: ModuleType) -> None:
    versions = {name: version for name, (version, _) in listed().items()}
    assert versions.pop("setuptools") == licences.ANY, "pip leaves its own tools out of what it freezes"
    assert versions == {name: licences.constraints()[name] for name in versions}


def test_every_package_says_its_licence_and_none_is_copyleft() -> None:
    assert [name for name, (_, licence) in listed().items() if not licence.strip()] == []
    assert {name: licence for name, (_, licence) in listed().items() if COPYLEFT.search(licence)} == {}


def test_weak_copyleft_is_certifis_alone_and_the_page_says_why() -> None:
    assert [name for name, (_, licence) in listed().items() if "MPL" in licence] == ["certifi"]
    assert "- MPL-2.0 (certifi):" in (PROJECT_ROOT / "docs" / "LICENCES.md").read_text()


def test_a_closure_takes_the_extras_that_are_asked_for(licences: ModuleType) -> None:
    core = {each.name for each in licences.closure("maskrcnn", frozenset())}
    assert {"torch", "numpy", "typing-extensions"} <= core
    assert not {"ray", "tyro", "pytest", "duckdb"} & core
