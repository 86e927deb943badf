"""Fixtures for every test: where the shared samples lie, and which tests this machine can run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

PROJECT_ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_path() -> Path:
    """The folder of real images and expected numbers: ``MASKRCNN_SHARED``, or beside the checkout."""
    place = Path(os.environ.get("MASKRCNN_SHARED", PROJECT_ROOT.parent / "shared"))
    if not (place / "data").is_dir():
        if os.environ.get("MASKRCNN_REQUIRE_SHARED") == "1":
            pytest.fail(f"the sample data is required here, and is not at {place}")
        pytest.skip(f"no sample data at {place}; set MASKRCNN_SHARED")
    return place
