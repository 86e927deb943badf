"""Fixtures of the promises' tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.folders import BucketFolder, DiskFolder, Folder
from tests.faults.proxy import FaultProxy

FolderMaker = Callable[[str], Folder]


@pytest.fixture
def s3_folder(faulty_s3: FaultProxy, bucket: str) -> FolderMaker:
    """Give folders of one fresh bucket; jobs reach it through the proxy, the folder's own methods do not."""
    return lambda name: BucketFolder(f"{bucket}/{name}", faulty_s3.upstream_endpoint)


@pytest.fixture(params=["disk", "s3"])
def any_folder(request: pytest.FixtureRequest, tmp_path: Path) -> FolderMaker:
    """Give folders on disk, then in a bucket."""
    if request.param == "disk":
        return lambda name: DiskFolder(tmp_path / name)
    maker: FolderMaker = request.getfixturevalue("s3_folder")
    return maker
