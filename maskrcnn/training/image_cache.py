"""Remote images kept on the local disk, bounded in bytes, for all processes of a machine.

Every image comes once an epoch, so what was read last is needed last: the cache fills up and stays as it is, rather
than throwing out what the next epoch begins with.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from maskrcnn import storage

_LOCK, _COUNT = "in-use", "bytes"


class ImageCache:
    """Reads through a folder on the local disk; local files are read as they are.

    What is cached for one run is not seen by another, for which the images may have changed. Folders that earlier
    runs of the same training left are removed, unless a process is still at work in them.

    Args:
        output_uri: of the training.
        run_id: of this run of it, the same in all its processes, and told to nobody else.
        max_bytes: of all images in it; never more than half of what the disk has free.
        read: gives the bytes of a URI.
    """

    def __init__(
        self, output_uri: str, run_id: str, max_bytes: int, read: Callable[[str], bytes] = storage.read_bytes
    ) -> None:
        digest = hashlib.sha256(output_uri.encode()).hexdigest()[:16]
        name, root = f"maskrcnn-images-{os.getuid()}-{digest}", Path(tempfile.gettempdir())
        self.folder = root / f"{name}-{run_id}"
        self._read = read
        self._release: Callable[[], object] | None = None
        for older in root.glob(f"{name}*"):
            if older != self.folder:
                _remove_unused(older)
        self._max_bytes = min(max_bytes, shutil.disk_usage(root).free // 2)

    def read(self, uri: str) -> bytes:
        """Give an image's bytes, from the disk where they are.

        Raises:
            StorageError: when they are not, and cannot be read.
        """
        if storage.is_local(uri) or self._max_bytes == 0 or not self._is_open():
            return self._read(uri)
        path = self.folder / hashlib.sha256(uri.encode()).hexdigest()
        with suppress(OSError):
            return path.read_bytes()
        body = self._read(uri)
        # A disk that is full or gone, or a count that it damaged, costs time, not the training.
        with suppress(OSError, ValueError):
            self._keep(path, body)
        return body

    def _is_open(self) -> bool:
        """Make the folder, once, and mark it as in use for as long as this process lives; say whether that went."""
        if self._release is None:
            with suppress(OSError):
                self.folder.mkdir(mode=0o700, exist_ok=True)
                if _is_private(self.folder):
                    self._release = weakref.finalize(self, os.close, _locked(self.folder, fcntl.LOCK_SH))
        return self._release is not None

    def _keep(self, path: Path, body: bytes) -> None:
        if not self._reserve(len(body)):
            return
        descriptor, temporary = tempfile.mkstemp(dir=self.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(body)
            os.rename(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise

    def _reserve(self, num_bytes: int) -> bool:
        """Count bytes in, if there is room for them; the count is shared by all processes."""
        with open(self.folder / _COUNT, "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            total = int(file.read() or 0) + num_bytes
            if total > self._max_bytes:
                return False
            file.truncate(0)
            file.write(str(total))
            return True

    def remove(self) -> None:
        """Delete the folder, at the end of the training; whoever still reads gets the images from where they are."""
        if self._release is not None:
            self._release()
        shutil.rmtree(self.folder, ignore_errors=True)


def _remove_unused(folder: Path) -> None:
    with suppress(OSError):
        if _is_private(folder):
            descriptor = _locked(folder, fcntl.LOCK_EX)
            try:
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def _is_private(folder: Path) -> bool:
    """Say whether it is a folder, no link, of this user, and closed to all others."""
    found = os.lstat(folder)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def _locked(folder: Path, kind: int) -> int:
    """Take a folder's lock, shared or alone, without waiting; give the descriptor that holds it.

    Raises:
        OSError: when others hold it.
    """
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
