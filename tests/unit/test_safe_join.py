"""Image names from a COCO file: below their folder, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maskrcnn.coco.file_names import safe_join
from maskrcnn.errors import AnnotationError

BAD_NAMES = [
    "../a.jpg",
    "a/../../b.jpg",
    "a/..",
    "..",
    "%2e%2e/a.jpg",
    "a/%2E%2E/%2e%2e/b.jpg",
    "/etc/passwd",
    "%2Fetc/passwd",
    "//host/a.jpg",
    "file:///etc/passwd",
    "s3://other/a.jpg",
    "http://host/a.jpg",
    "C:/a.jpg",
    "..\\a.jpg",
    "C:\\a.jpg",
    "a\0.jpg",
    "a%00.jpg",
    "",
    ".",
    "./",
]


@pytest.mark.parametrize(
    ("file_name", "joined"),
    [
        ("a.jpg", "s3://bucket/images/a.jpg"),
        ("sub/./a b.jpg", "s3://bucket/images/sub/a b.jpg"),
        ("./a//b.jpg", "s3://bucket/images/a/b.jpg"),
        ("..a/b..jpg", "s3://bucket/images/..a/b..jpg"),
        ("12:30:00.jpg", "s3://bucket/images/12:30:00.jpg"),
        ("100%.jpg", "s3://bucket/images/100%.jpg"),
    ],
)
def test_names_are_joined_to_their_folder(file_name: str, joined: str) -> None:
    assert safe_join("s3://bucket/images/", file_name) == joined


@pytest.mark.parametrize("file_name", BAD_NAMES)
@pytest.mark.parametrize("root_uri", ["s3://bucket/images", "images"])
def test_names_never_leave_their_folder(root_uri: str, file_name: str) -> None:
    with pytest.raises(AnnotationError, match="must "):
        safe_join(root_uri, file_name)


def test_symbolic_links_may_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "images" / "inner").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    os.symlink(tmp_path / "secret", tmp_path / "images" / "out")
    os.symlink(tmp_path / "images" / "inner", tmp_path / "images" / "in")
    root = str(tmp_path / "images")
    with pytest.raises(AnnotationError, match="symbolic link"):
        safe_join(root, "out/a.jpg")
    assert safe_join(root, "in/a.jpg") == f"{root}/in/a.jpg"
    # The folder itself may be a link: it is what the user named.
    os.symlink(root, tmp_path / "alias")
    assert safe_join(str(tmp_path / "alias"), "inner/a.jpg") == f"{tmp_path}/alias/inner/a.jpg"
