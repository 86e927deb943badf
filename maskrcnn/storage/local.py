"""The local file system: exclusive links for create-if-absent, size and mtime as etag."""

from __future__ import annotations

import errno
import io
import os
import stat as stat_module
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from maskrcnn.errors import AccessError, ExistsError, NotFoundError, StorageError
from maskrcnn.storage.base import EXISTS, ObjectMeta, PutAnswer, listing_batch
from maskrcnn.storage.paths import local_path, spell_path

if TYPE_CHECKING:
    import pyarrow

LISTING_BATCH_SIZE = 10_000

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO}
"""EEXIST is what making a folder in a file's place gives, ENXIO what opening a socket gives."""
_NO_IMAGE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
"""What links give that lead nowhere, through a file, or to themselves; and what was there and is gone."""
_REMEDIES = {
    errno.EACCES: "see who may write there, or name another place",
    errno.EPERM: "see who may write there, or name another place",
    errno.EROFS: "mount it for writing, or name another place",
    errno.ENOSPC: "free some, then run the same command again",
    errno.EDQUOT: "free some, then run the same command again",
    errno.EFBIG: "raise the limit (ulimit -f), then run the same command again",
    errno.EMFILE: "raise the limit (ulimit -n), then run the same command again",
}


_NO_FILE = "is a folder, a device, a pipe or a socket, and no file"


class LocalStore:
    """Files on this machine."""

    def read(self, uri: str) -> bytes:
        """Read a whole file."""
        with _named_errors(uri), _open_file(uri) as file:
            return file.read()

    def read_version(self, uri: str, etag: str, size: int) -> bytes:
        """Read a file that must still be the one that was listed."""
        with _named_errors(uri), _open_file(uri) as file:
            body = file.read(size + 1)  # never more: it may be growing
            found = _etag(os.fstat(file.fileno()))
        if found != etag or len(body) != size:
            raise NotFoundError(uri, "the file changed since it was listed; the next run plans the new one")
        return body

    def open_input(self, uri: str) -> BinaryIO:
        """Open a file for reading."""
        with _named_errors(uri):
            return _open_file(uri)

    def put(self, uri: str, body: bytes) -> None:
        """Write beside the target, then rename over it."""
        path = local_path(uri)
        with _named_errors(uri):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".put-")
            try:
                os.fchmod(descriptor, 0o666 & ~_umask())
                _write_all(descriptor, body)
                os.rename(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
            finally:
                os.close(descriptor)

    def put_if_absent(self, uri: str, body: bytes) -> PutAnswer:
        """Write a file without a name, then link it in."""
        try:
            with self._created(uri) as file:
                file.write(body)
        except ExistsError:
            return PutAnswer.EXISTS
        return PutAnswer.CREATED

    @contextmanager
    def open_output(self, uri: str) -> Iterator[BinaryIO]:
        """Write a file without a name, then link it in."""
        if os.path.lexists(local_path(uri)):
            raise ExistsError(uri, EXISTS)
        with self._created(uri) as file:
            yield file

    @contextmanager
    def _created(self, uri: str) -> Iterator[BinaryIO]:
        """Give a file that is linked in when the block ends: nobody sees a part of it, and a kill leaves nothing."""
        path = local_path(uri)
        folder = os.path.dirname(path)
        with _named_errors(uri):
            os.makedirs(folder, exist_ok=True)
            descriptor, temporary = _open_unseen(folder)
        try:
            with io.BufferedWriter(_NewFile(descriptor, uri)) as file:
                yield file
            with _named_errors(uri):
                os.fsync(descriptor)
                try:
                    if temporary:
                        os.link(temporary, path)
                    else:
                        # The descriptor, unused with an absolute path, makes Python call linkat, which follows links.
                        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)
                except FileExistsError as error:
                    raise ExistsError(uri, EXISTS) from error
        finally:
            os.close(descriptor)
            if temporary:
                os.unlink(temporary)

    def delete(self, uri: str) -> None:
        """Delete a file, and its folder once that is empty: an object store has no empty folders either."""
        path = local_path(uri)
        with _named_errors(uri):
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(path)
            with suppress(OSError):
                os.rmdir(os.path.dirname(path))

    def exists(self, uri: str) -> bool:
        """Say whether a file is there."""
        return os.path.isfile(local_path(uri))

    def stat(self, uri: str) -> ObjectMeta:
        """Give a file's size and mtime."""
        with _named_errors(uri):
            found = os.stat(local_path(uri))
        if not stat_module.S_ISREG(found.st_mode):
            raise NotFoundError(uri, _NO_FILE)
        return _meta(uri, found)

    def list_batches(self, uri: str) -> Iterator[pyarrow.RecordBatch]:
        """Walk a folder in name order, following links but never in a circle."""
        metas: list[ObjectMeta] = []
        for meta in _walk(local_path(uri), set()):
            metas.append(meta)
            if len(metas) == LISTING_BATCH_SIZE:
                yield listing_batch(metas)
                metas = []
        if metas:
            yield listing_batch(metas)


class _NewFile(io.FileIO):
    """A file in which a write that fails is told as a store's failure, whoever writes."""

    def __init__(self, descriptor: int, uri: str) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._uri = uri

    def write(self, body: Any) -> int:
        with _named_errors(self._uri):
            return super().write(body)


def _open_file(uri: str) -> BinaryIO:
    """Open a regular file; anything else might never end, or never begin."""
    descriptor = os.open(local_path(uri), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat_module.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotFoundError(uri, _NO_FILE)
    return open(descriptor, "rb")


def _walk(folder: str, entered: set[tuple[int, int]]) -> Iterator[ObjectMeta]:
    with _named_errors(folder):
        try:
            folder_stat = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
    identity = (folder_stat.st_dev, folder_stat.st_ino)
    if identity in entered:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        with _named_errors(entry.path):
            try:
                found = entry.stat()
            except OSError as error:
                if error.errno in _NO_IMAGE:
                    continue
                raise
        if stat_module.S_ISDIR(found.st_mode):
            yield from _walk(entry.path, entered | {identity})
        elif stat_module.S_ISREG(found.st_mode):
            yield _meta(spell_path(entry.path), found)


def _etag(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}"


def _meta(uri: str, found: os.stat_result) -> ObjectMeta:
    return ObjectMeta(uri, _etag(found), found.st_size, found.st_mtime)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_all(descriptor: int, body: bytes) -> None:
    view = memoryview(body)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def _open_unseen(folder: str) -> tuple[int, str | None]:
    """Open a file without a name; where the file system has none, a hidden one, which a kill can leave behind."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666), None
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _DENIED | _ABSENT:
            raise
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".put-")
    os.fchmod(descriptor, 0o666 & ~_umask())
    return descriptor, temporary


@contextmanager
def _named_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _REMEDIES:
            reason += f"; {_REMEDIES[error.errno]}"
        if error.errno in _ABSENT:
            raise NotFoundError(uri, reason) from error
        if error.errno in _DENIED:
            raise AccessError(uri, reason) from error
        raise StorageError(uri, reason) from error
