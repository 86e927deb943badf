"""Remote images kept on the local disk, bounded in bytes, for all processes of a machine.

Every image comes once an epoch, so what was read last is needed last: the cache fills up and stays as it is, rather
than throwing out what the next epoch begins with.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from maskrcnn import storage


class ImageCache:
    """Reads through a folder on the local disk; local files are read as they are.

    Args:
        name: of the training: what is cached for one is not seen by another, whose images may have changed since.
        max_bytes: of all images in it; never more than half of what the disk has free.
        read: gives the bytes of a URI.
    """

    def __init__(self, name: str, max_bytes: int, read: Callable[[str], bytes] = storage.read_bytes) -> None:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        self.folder = Path(tempfile.gettempdir()) / f"maskrcnn-images-{os.getuid()}-{digest}"
        self._read = read
        self._max_bytes = min(max_bytes, shutil.disk_usage(tempfile.gettempdir()).free // 2)

    def read(self, uri: str) -> bytes:
        """Give an image's bytes, from the disk where they are.

        Raises:
            StorageError: when they are not, and cannot be read.
        """
        if storage.is_local(uri) or self._max_bytes == 0:
            return self._read(uri)
        path = self.folder / hashlib.sha256(uri.encode()).hexdigest()
        with suppress(OSError):
            return path.read_bytes()
        body = self._read(uri)
        # A disk that is full or gone, or a count that it damaged, costs time, not the training.
        with suppress(OSError, ValueError):
            self._keep(path, body)
        return body

    def _keep(self, path: Path, body: bytes) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
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
        with open(self.folder / "bytes", "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            total = int(file.read() or 0) + num_bytes
            if total > self._max_bytes:
                return False
            file.truncate(0)
            file.write(str(total))
            return True

    def remove(self) -> None:
        """Delete the folder, at the end of the training."""
        shutil.rmtree(self.folder, ignore_errors=True)
