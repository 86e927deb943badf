"""The image files behind a dataset, looked at by threads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn import storage
from maskrcnn.coco.validate.dataset import Validation, compare_splits, validate_annotations, validate_files
from maskrcnn.errors import AccessError, StorageError, StorageTimeout, UnavailableError
from tests.coco_documents import IMAGES, Document, good_document


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def draw(path: Path, size: tuple[int, int] = (60, 40), seed: int = 0, orientation: int = 1) -> None:
    """Save noise of a (width, height), px, that is to be turned by a viewer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The files of the good document, all as they should be."""
    folder = tmp_path / "images"
    for seed, name in enumerate(IMAGES.values()):
        draw(folder / name, seed=seed)
    return folder


def look(tmp_path: Path, images: Path, executor: Executor, document: Document | None = None) -> Validation:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(document or good_document()))
    return validate_files(validate_annotations(str(path)), str(images), executor)


def lines(validation: Validation) -> list[str]:
    return [f"{finding.code} {finding}" for finding in validation.findings]


def test_files_that_are_as_they_should_be(tmp_path: Path, images: Path, executor: Executor) -> None:
    validation = look(tmp_path, images, executor)
    assert lines(validation) == []
    assert validation.files is not None
    assert validation.files.sizes == dict.fromkeys(range(3), (40, 60))
    assert len(validation.files.digests) == 3


def test_each_flaw_of_a_file_is_named(tmp_path: Path, images: Path, executor: Executor) -> None:
    (images / "b.png").unlink()
    whole = (images / "empty.png").read_bytes()
    (images / "empty.png").write_bytes(whole[: len(whole) // 2])
    draw(images / "a/ä b.png", size=(59, 40))
    validation = look(tmp_path, images, executor)
    assert sorted(lines(validation)) == [
        "image_not_found image 7 file_name: b.png: No such file or directory",
        "image_size_differs image 0 width, height: 60 x 40, and the file is 59 x 40",
        "image_unreadable image 12 file_name: empty.png: PNG is cut off inside its IDAT chunk",
    ]
    assert validation.files is not None
    assert validation.files.unusable == {1, 2}


@pytest.mark.parametrize(
    ("stored", "orientation", "code"),
    [
        ((60, 40), 6, "exif_unrotated"),  # upright it is 40 x 60
        ((60, 40), 8, "exif_unrotated"),
        ((40, 60), 6, ""),  # upright it is 60 x 40, as annotated
        ((60, 40), 3, "exif_turned"),
        ((60, 40), 1, ""),
        ((61, 40), 6, "image_size_differs"),
    ],
)
def test_the_exif_orientation_is_compared_with_what_is_annotated(
    tmp_path: Path, images: Path, executor: Executor, stored: tuple[int, int], orientation: int, code: str
) -> None:
    document = good_document()
    document["images"][1]["file_name"] = "b.jpg"
    draw(images / "b.jpg", stored, orientation=orientation)
    assert [finding.code for finding in look(tmp_path, images, executor, document).findings] == [code] * bool(code)


def test_the_same_content_under_two_names_is_found(tmp_path: Path, images: Path, executor: Executor) -> None:
    (images / "empty.png").write_bytes((images / "a/ä b.png").read_bytes())
    assert lines(look(tmp_path, images, executor)) == [
        "same_image_twice image 12 file_name: empty.png and a/ä b.png",
    ]


def test_images_in_both_sets_are_found_by_content_and_not_by_name(
    tmp_path: Path, images: Path, executor: Executor
) -> None:
    other = tmp_path / "val-images"
    for seed, name in enumerate(IMAGES.values()):
        draw(other / name, seed=10 + seed)
    (other / "b.png").write_bytes((images / "empty.png").read_bytes())
    train, val = look(tmp_path, images, executor), look(tmp_path, other, executor)
    compare_splits(train, val)
    assert lines(train) == []
    assert lines(val) == ["leakage image 7 file_name: b.png is empty.png of the training set"]


def test_a_symbolic_link_that_leads_out_is_not_followed(tmp_path: Path, images: Path, executor: Executor) -> None:
    (images / "b.png").unlink()
    draw(tmp_path / "secret.png")
    (images / "b.png").symlink_to(tmp_path / "secret.png")
    [finding] = look(tmp_path, images, executor).findings
    assert (finding.code, finding.id) == ("file_name_leaves_root", 7)


def test_progress_counts_every_file(tmp_path: Path, images: Path, executor: Executor) -> None:
    document = good_document()
    document["images"] += [{"id": 100 + n, "file_name": f"{n}.png", "width": 9, "height": 9} for n in range(100)]
    path = tmp_path / "train.json"
    path.write_text(json.dumps(document))
    done: list[int] = []
    validation = validate_files(validate_annotations(str(path)), str(images), executor, done.append)
    assert validation.findings.counts == {"image_not_found": 100}
    assert done[-1] == 103
    assert done == sorted(done)


def test_a_turned_square_cannot_be_told_from_an_upright_one(tmp_path: Path, images: Path, executor: Executor) -> None:
    document = good_document()
    document["images"][2] |= {"file_name": "square.jpg", "width": 64, "height": 64}
    draw(images / "square.jpg", (64, 64), orientation=6)
    assert [finding.code for finding in look(tmp_path, images, executor, document).findings] == ["exif_turned"]


@pytest.mark.parametrize("failure", [UnavailableError, StorageTimeout])
def test_a_store_that_stays_away_says_nothing_of_the_files(
    tmp_path: Path, images: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch, failure: type[StorageError]
) -> None:
    def fail(uri: str) -> bytes:
        raise failure(uri, "503 Slow Down")

    path = tmp_path / "train.json"
    path.write_text(json.dumps(good_document()))
    validation = validate_annotations(str(path))
    monkeypatch.setattr(storage, "read_bytes", fail)
    with pytest.raises(failure):
        validate_files(validation, str(images), executor)


def test_files_that_may_not_be_read_are_told_and_not_thrown_away(
    tmp_path: Path, images: Path, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(uri: str) -> bytes:
        raise AccessError(uri, "403 Forbidden")

    monkeypatch.setattr(storage, "read_bytes", deny)
    validation = look(tmp_path, images, executor)
    assert validation.findings.counts == {"image_unreadable": 3}
    assert validation.files is not None
    assert validation.files.unusable == set()
