"""Files on this machine that are none, grow, or cannot be written: each is told in one line, and nothing waits."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from maskrcnn import storage
from maskrcnn.errors import AccessError, NotFoundError, StorageError


def make_pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return str(folder / "pipe")


def make_socket(folder: Path) -> str:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    return str(folder / "socket")


def make_loop(folder: Path) -> str:
    (folder / "loop").symlink_to(folder / "loop")
    return str(folder / "loop")


NO_FILES: dict[str, Callable[[Path], str]] = {
    "a folder": str,
    "a pipe": make_pipe,
    "a socket": make_socket,
    "a device": lambda folder: "/dev/zero",
    "a loop": make_loop,
    "a long name": lambda folder: str(folder / ("x" * 5000)),
    "below a file": lambda folder: f"{__file__}/a.jpg",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_is_not_found_and_never_waited_for(name: str, tmp_path: Path) -> None:
    uri = NO_FILES[name](tmp_path)
    for look in (
        storage.read_bytes,
        storage.stat,
        storage.open_input,
        lambda uri: storage.read_object(uri, "0-0", 0),
    ):
        with pytest.raises(NotFoundError) as caught:
            look(uri)
        assert caught.value.uri == uri


def test_a_file_that_grew_is_another_version(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"12345")
    meta = storage.stat(str(path))
    path.write_bytes(bytes(100))
    os.utime(path, ns=(0, int(meta.etag.rsplit("-", 1)[1])))
    with pytest.raises(NotFoundError, match="changed since it was listed"):
        storage.read_object(meta.uri, meta.etag, meta.size)


@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [
        (errno.ENOSPC, StorageError, "No space left on device; free some, then run the same command again"),
        (errno.EDQUOT, StorageError, "Disk quota exceeded; free some, then run the same command again"),
        (errno.EROFS, AccessError, "Read-only file system; mount it for writing, or name another place"),
        (errno.EACCES, AccessError, "Permission denied; see who may write there, or name another place"),
    ],
)
def test_a_write_that_fails_is_told_with_what_to_do_and_leaves_nothing(
    number: int, kind: type[StorageError], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    uri = str(tmp_path / "a.json")
    monkeypatch.setattr(os, "fsync", fail)
    for put in (storage.put, storage.put_if_absent):
        with pytest.raises(kind) as caught:
            put(uri, b"body")
        assert str(caught.value) == f"{uri}: {told}"
        assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_one_who_writes_stays_as_it_is(tmp_path: Path) -> None:
    def write_half() -> None:
        with storage.open_output(str(tmp_path / "a.json")) as file:
            file.write(b"half")
            (tmp_path / "elsewhere").read_bytes()

    with pytest.raises(FileNotFoundError, match="elsewhere"):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_links_that_lead_nowhere_are_left_out_of_a_listing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    make_loop(tmp_path)
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "through-a-file").symlink_to("a.jpg/b.jpg")
    (tmp_path / "circle").symlink_to(".")
    assert storage.list_uris(str(tmp_path)) == [str(tmp_path / "a.jpg")]


def test_another_failure_of_a_listing_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name, path = "a.jpg", str(tmp_path / "a.jpg")

        def stat(self) -> os.stat_result:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "scandir", lambda _: [Entry()])
    with pytest.raises(StorageError, match="Input/output error") as caught:
        storage.list_uris(str(tmp_path))
    assert caught.value.uri == str(tmp_path / "a.jpg")
