"""Remote images on the local disk: read once, never more bytes than allowed, and never a reason to fail."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from maskrcnn.errors import NotFoundError
from maskrcnn.training.image_cache import ImageCache


class Remote:
    """A store that counts what is read: ten bytes an image."""

    def __init__(self) -> None:
        self.reads: Counter[str] = Counter()

    def __call__(self, uri: str) -> bytes:
        self.reads[uri] += 1
        if "missing" in uri:
            raise NotFoundError(uri, "nothing there")
        return f"{uri[-10:]:>10}".encode()


@pytest.fixture
def remote() -> Remote:
    return Remote()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def kept(cache: ImageCache) -> list[Path]:
    return [path for path in cache.folder.iterdir() if path.name != "bytes"]


def test_the_second_read_is_from_the_disk_also_of_another_process(remote: Remote) -> None:
    first = ImageCache("run", 1000, remote)
    bodies = [first.read(f"s3://b/{name}.jpg") for name in "aba"]
    assert bodies[0] == bodies[2] == b"s3://b/a.jpg"[-10:]
    assert ImageCache("run", 1000, remote).read("s3://b/b.jpg") == bodies[1]
    assert remote.reads == {"s3://b/a.jpg": 1, "s3://b/b.jpg": 1}
    assert sorted(path.read_bytes() for path in kept(first)) == sorted(bodies[:2])


def test_another_training_reads_anew(remote: Remote) -> None:
    for name in ("one", "other"):
        ImageCache(name, 1000, remote).read("s3://b/a.jpg")
    assert remote.reads["s3://b/a.jpg"] == 2


def test_what_does_not_fit_is_read_every_time_and_what_is_there_stays(remote: Remote) -> None:
    cache = ImageCache("run", 35, remote)
    for _ in range(3):
        for name in "abcde":
            assert cache.read(f"s3://b/{name}.jpg").endswith(f"{name}.jpg".encode())
    assert [remote.reads[f"s3://b/{name}.jpg"] for name in "abcde"] == [1, 1, 1, 3, 3]
    assert sum(path.stat().st_size for path in kept(cache)) == 30


def test_readers_at_once_share_one_bound(remote: Remote) -> None:
    caches = [ImageCache("run", 200, remote) for _ in range(4)]
    start = threading.Barrier(len(caches))

    def read(number: int) -> None:
        start.wait()
        for index in range(15):
            caches[number].read(f"s3://b/{number}-{index}.jpg")

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(caches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(path.stat().st_size for path in kept(caches[0])) == 200
    assert (caches[0].folder / "bytes").read_text() == "200"


def test_never_more_than_half_of_what_the_disk_has_free(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=45))
    cache = ImageCache("run", 1000, remote)
    for name in "abcde":
        cache.read(f"s3://b/{name}.jpg")
    assert len(kept(cache)) == 2


@pytest.mark.parametrize("prefix", ["/data/", "file:///data/"])
def test_local_files_are_not_copied(remote: Remote, prefix: str) -> None:
    cache = ImageCache("run", 1000, remote)
    for _ in range(2):
        cache.read(f"{prefix}a.jpg")
    assert remote.reads[f"{prefix}a.jpg"] == 2
    assert not cache.folder.exists()


def test_no_bytes_are_no_cache(remote: Remote) -> None:
    cache = ImageCache("run", 0, remote)
    for _ in range(2):
        cache.read("s3://b/a.jpg")
    assert remote.reads["s3://b/a.jpg"] == 2
    assert not cache.folder.exists()


def test_what_cannot_be_read_is_not_kept(remote: Remote) -> None:
    cache = ImageCache("run", 1000, remote)
    for _ in range(2):
        with pytest.raises(NotFoundError):
            cache.read("s3://b/missing.jpg")
    assert remote.reads["s3://b/missing.jpg"] == 2


def test_a_folder_that_cannot_be_made_fails_no_read(remote: Remote) -> None:
    cache = ImageCache("run", 1000, remote)
    cache.folder.write_text("in the way")
    assert cache.read("s3://b/a.jpg") == cache.read("s3://b/a.jpg")
    assert remote.reads["s3://b/a.jpg"] == 2


@pytest.mark.parametrize("step", ["open", "rename"])
def test_a_full_disk_fails_no_read_and_leaves_no_part(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = ImageCache("run", 1000, remote)
    with monkeypatch.context() as patch:
        patch.setattr(*((tempfile, "mkstemp") if step == "open" else (os, "rename")), full)
        assert cache.read("s3://b/a.jpg").endswith(b"a.jpg")
    assert kept(cache) == []
    cache.read("s3://b/a.jpg")
    assert len(kept(cache)) == 1


def test_a_count_that_was_damaged_fails_no_read(remote: Remote) -> None:
    cache = ImageCache("run", 1000, remote)
    cache.read("s3://b/a.jpg")
    (cache.folder / "bytes").write_text("\x00\x00")
    assert cache.read("s3://b/b.jpg").endswith(b"b.jpg")


def test_the_end_removes_everything(remote: Remote, folder: Path) -> None:
    cache = ImageCache("run", 1000, remote)
    cache.read("s3://b/a.jpg")
    cache.remove()
    cache.remove()
    assert list(folder.iterdir()) == []
    cache.read("s3://b/a.jpg")
    assert remote.reads["s3://b/a.jpg"] == 2
