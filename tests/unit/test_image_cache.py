"""Remote images on the local disk: read once, never more bytes than allowed, and never a reason to fail."""

from __future__ import annotations

import errno
import hashlib
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
    return [path for path in cache.folder.iterdir() if path.name not in ("bytes", "in-use")]


def test_the_second_read_is_from_the_disk_also_of_another_process(remote: Remote) -> None:
    first = ImageCache("s3://out/a", "run", 1000, remote)
    bodies = [first.read(f"s3://b/{name}.jpg") for name in "aba"]
    assert bodies[0] == bodies[2] == b"s3://b/a.jpg"[-10:]
    assert ImageCache("s3://out/a", "run", 1000, remote).read("s3://b/b.jpg") == bodies[1]
    assert remote.reads == {"s3://b/a.jpg": 1, "s3://b/b.jpg": 1}
    assert sorted(path.read_bytes() for path in kept(first)) == sorted(bodies[:2])


def test_another_training_reads_anew(remote: Remote) -> None:
    for name in ("one", "other"):
        ImageCache(f"s3://out/{name}", "run", 1000, remote).read("s3://b/a.jpg")
    assert remote.reads["s3://b/a.jpg"] == 2


def test_a_run_reads_anew_what_an_earlier_one_of_the_training_had_read() -> None:
    stored = {"s3://b/a.jpg": b"cut off"}
    assert ImageCache("s3://out/a", "first", 1000, stored.__getitem__).read("s3://b/a.jpg") == b"cut off"
    stored["s3://b/a.jpg"] = b"whole"
    assert ImageCache("s3://out/a", "second", 1000, stored.__getitem__).read("s3://b/a.jpg") == b"whole"


def test_what_earlier_runs_of_the_training_left_is_removed(remote: Remote, folder: Path) -> None:
    earlier = ImageCache("s3://out/a", "first", 1000, remote)
    earlier.read("s3://b/a.jpg")
    unversioned = Path(str(earlier.folder).removesuffix("-first"))
    unversioned.mkdir(mode=0o700)
    (unversioned / "image").write_bytes(b"x")
    other = ImageCache("s3://out/other", "first", 1000, remote)
    other.read("s3://b/a.jpg")
    left, kept_folder = earlier.folder, other.folder
    del earlier, other  # their processes ended
    ImageCache("s3://out/a", "second", 1000, remote)
    assert list(folder.iterdir()) == [kept_folder]
    assert not left.exists()


def test_a_folder_in_which_a_process_is_at_work_stays(remote: Remote) -> None:
    earlier = ImageCache("s3://out/a", "first", 1000, remote)
    earlier.read("s3://b/a.jpg")
    ImageCache("s3://out/a", "second", 1000, remote)
    earlier.read("s3://b/a.jpg")
    assert remote.reads["s3://b/a.jpg"] == 1


def test_workers_that_start_at_once_remove_the_same_folder_and_share_the_new_one(remote: Remote) -> None:
    start = threading.Barrier(4)
    caches: list[ImageCache] = []

    def begin() -> None:
        start.wait()
        cache = ImageCache("s3://out/a", "second", 1000, remote)
        cache.read("s3://b/a.jpg")
        caches.append(cache)

    ImageCache("s3://out/a", "first", 1000, remote).read("s3://b/a.jpg")
    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(caches) == 4
    assert len(kept(caches[0])) == 1
    assert [path.name for path in caches[0].folder.parent.iterdir()] == [caches[0].folder.name]


@pytest.mark.parametrize("kind", ["open to others", "a link", "somebody else's"])
def test_a_folder_that_is_not_this_users_alone_is_not_used(
    remote: Remote, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    cache = ImageCache("s3://out/a", "run", 1000, remote)
    planted = folder / "planted" if kind == "a link" else cache.folder
    planted.mkdir(mode=0o700)
    (planted / hashlib.sha256(b"s3://b/a.jpg").hexdigest()).write_bytes(b"poison")
    if kind == "a link":
        cache.folder.symlink_to(planted)
    elif kind == "open to others":
        planted.chmod(0o770)
    else:
        monkeypatch.setattr(os, "getuid", lambda: planted.stat().st_uid + 1)
    for _ in range(2):
        assert cache.read("s3://b/a.jpg") == b"s3://b/a.jpg"[-10:]
    assert remote.reads["s3://b/a.jpg"] == 2
    assert len(list(planted.iterdir())) == 1


def test_what_does_not_fit_is_read_every_time_and_what_is_there_stays(remote: Remote) -> None:
    cache = ImageCache("s3://out/a", "run", 35, remote)
    for _ in range(3):
        for name in "abcde":
            assert cache.read(f"s3://b/{name}.jpg").endswith(f"{name}.jpg".encode())
    assert [remote.reads[f"s3://b/{name}.jpg"] for name in "abcde"] == [1, 1, 1, 3, 3]
    assert sum(path.stat().st_size for path in kept(cache)) == 30


def test_readers_at_once_share_one_bound(remote: Remote) -> None:
    caches = [ImageCache("s3://out/a", "run", 200, remote) for _ in range(4)]
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
    cache = ImageCache("s3://out/a", "run", 1000, remote)
    for name in "abcde":
        cache.read(f"s3://b/{name}.jpg")
    assert len(kept(cache)) == 2


@pytest.mark.parametrize("prefix", ["/data/", "file:///data/"])
def test_local_files_are_not_copied(remote: Remote, prefix: str) -> None:
    cache = ImageCache("s3://out/a", "run", 1000, remote)
    for _ in range(2):
        cache.read(f"{prefix}a.jpg")
    assert remote.reads[f"{prefix}a.jpg"] == 2
    assert not cache.folder.exists()


def test_no_bytes_are_no_cache(remote: Remote) -> None:
    cache = ImageCache("s3://out/a", "run", 0, remote)
    for _ in range(2):
        cache.read("s3://b/a.jpg")
    assert remote.reads["s3://b/a.jpg"] == 2
    assert not cache.folder.exists()


def test_what_cannot_be_read_is_not_kept(remote: Remote) -> None:
    cache = ImageCache("s3://out/a", "run", 1000, remote)
    for _ in range(2):
        with pytest.raises(NotFoundError):
            cache.read("s3://b/missing.jpg")
    assert remote.reads["s3://b/missing.jpg"] == 2


def test_a_folder_that_cannot_be_made_fails_no_read(remote: Remote) -> None:
    cache = ImageCache("s3://out/a", "run", 1000, remote)
    cache.folder.write_text("in the way")
    assert cache.read("s3://b/a.jpg") == cache.read("s3://b/a.jpg")
    assert remote.reads["s3://b/a.jpg"] == 2


@pytest.mark.parametrize("step", ["open", "rename"])
def test_a_full_disk_fails_no_read_and_leaves_no_part(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = ImageCache("s3://out/a", "run", 1000, remote)
    with monkeypatch.context() as patch:
        patch.setattr(*((tempfile, "mkstemp") if step == "open" else (os, "rename")), full)
        assert cache.read("s3://b/a.jpg").endswith(b"a.jpg")
    assert kept(cache) == []
    cache.read("s3://b/a.jpg")
    assert len(kept(cache)) == 1


def test_a_count_that_was_damaged_fails_no_read(remote: Remote) -> None:
    cache = ImageCache("s3://out/a", "run", 1000, remote)
    cache.read("s3://b/a.jpg")
    (cache.folder / "bytes").write_text("\x00\x00")
    assert cache.read("s3://b/b.jpg").endswith(b"b.jpg")


def test_a_failure_frees_the_disk_though_others_still_read(remote: Remote, folder: Path) -> None:
    cache = ImageCache("s3://out/a", "run", 1000, remote)
    cache.read("s3://b/a.jpg")
    ImageCache("s3://out/a", "run", 0, remote).remove()
    assert list(folder.iterdir()) == []
    assert cache.read("s3://b/a.jpg") == b"s3://b/a.jpg"[-10:]
    assert list(folder.iterdir()) == []


def test_the_end_removes_everything(remote: Remote, folder: Path) -> None:
    cache = ImageCache("s3://out/a", "run", 1000, remote)
    cache.read("s3://b/a.jpg")
    cache.remove()
    cache.remove()
    assert list(folder.iterdir()) == []
    cache.read("s3://b/a.jpg")
    assert remote.reads["s3://b/a.jpg"] == 2
