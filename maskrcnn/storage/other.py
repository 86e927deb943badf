"""Every other fsspec URL. What a store cannot promise (an atomic create), the log says."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

import fsspec

from maskrcnn.errors import (
    AccessError,
    ExistsError,
    InputError,
    IntegrityError,
    NotFoundError,
    StorageTimeout,
    UnavailableError,
)
from maskrcnn.storage.base import EXISTS, ObjectMeta, PutAnswer, listing_batch, short_reason

if TYPE_CHECKING:
    import pyarrow

logger = logging.getLogger(__name__)

LISTING_BATCH_SIZE = 10_000


class FsspecStore:
    """One fsspec file system."""

    def __init__(self, root: str) -> None:
        self._scheme = root.split("://", 1)[0]
        try:
            self._fs: Any = fsspec.core.url_to_fs(root)[0]
        except (ImportError, ValueError) as error:
            raise InputError(root, f"cannot be opened: {error}") from error
        self._has_warned = False

    def read(self, uri: str) -> bytes:
        """Read a whole object."""
        with _named_errors(uri):
            return bytes(self._fs.cat_file(uri))

    def read_version(self, uri: str, etag: str, size: int) -> bytes:
        """Read an object that must still be the one that was listed."""
        if self.stat(uri).etag != etag:
            raise NotFoundError(uri, "the object changed since it was listed; the next run plans the new one")
        body = self.read(uri)
        if len(body) != size:
            raise IntegrityError(uri, f"the body has {len(body)} bytes, the listing says {size}")
        return body

    def open_input(self, uri: str) -> BinaryIO:
        """Open an object for reading."""
        with _named_errors(uri):
            file: BinaryIO = self._fs.open(uri, "rb")
            return file

    @contextmanager
    def open_output(self, uri: str) -> Iterator[BinaryIO]:
        """Write to a temporary file, check once more, then copy it."""
        if self.exists(uri):
            raise ExistsError(uri, EXISTS)
        with tempfile.NamedTemporaryFile() as body:
            yield body  # type: ignore[misc]
            body.flush()
            if self.exists(uri):
                raise ExistsError(uri, EXISTS)
            with _named_errors(uri):
                self._make_folder(uri)
                self._fs.put_file(body.name, uri)

    def _make_folder(self, uri: str) -> None:
        self._fs.makedirs(uri.rsplit("/", 1)[0], exist_ok=True)

    def put(self, uri: str, body: bytes) -> None:
        """Write, replacing."""
        with _named_errors(uri):
            self._make_folder(uri)
            self._fs.pipe_file(uri, body)

    def put_if_absent(self, uri: str, body: bytes) -> PutAnswer:
        """Check, then write: not atomic, which the log says once."""
        if not self._has_warned:
            logger.warning("%s:// has no create-only put: run one driver at a time on this output", self._scheme)
            self._has_warned = True
        if self.exists(uri):
            return PutAnswer.EXISTS
        self.put(uri, body)
        return PutAnswer.CREATED

    def delete(self, uri: str) -> None:
        """Delete an object."""
        with suppress(NotFoundError), _named_errors(uri):
            self._fs.rm_file(uri)

    def exists(self, uri: str) -> bool:
        """Say whether an object is there."""
        with _named_errors(uri):
            return bool(self._fs.isfile(uri))

    def stat(self, uri: str) -> ObjectMeta:
        """Give an object's etag, size and time."""
        with _named_errors(uri):
            return self._meta(uri, self._fs.info(uri))

    def list_batches(self, uri: str) -> Iterator[pyarrow.RecordBatch]:
        """Find everything under a folder."""
        with _named_errors(uri):
            found: dict[str, dict[str, Any]] = self._fs.find(uri, detail=True)
        # Not unstrip_protocol: its spelling of a URI differs from the user's in some file systems.
        folder = str(self._fs._strip_protocol(uri))
        metas = [
            self._meta(uri + name.removeprefix(folder), entry)
            for name, entry in sorted(found.items())
            if not name.rsplit("/", 1)[-1].startswith(".")
        ]
        for start in range(0, len(metas), LISTING_BATCH_SIZE):
            yield listing_batch(metas[start : start + LISTING_BATCH_SIZE])

    def _meta(self, uri: str, entry: dict[str, Any]) -> ObjectMeta:
        """Read fsspec's loose description, whose names differ from store to store."""
        modified = entry.get("mtime") or entry.get("LastModified") or entry.get("created") or 0.0
        modified_s = modified.timestamp() if isinstance(modified, datetime) else float(modified)
        size = int(entry.get("size") or 0)
        tag = next((str(entry[name]) for name in ("etag", "ETag", "checksum", "md5Hash") if entry.get(name)), "")
        return ObjectMeta(uri, tag.strip('"') or f"{size}-{int(modified_s * 1e9)}", size, modified_s)


@contextmanager
def _named_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFoundError(uri, short_reason(error)) from error
    except PermissionError as error:
        raise AccessError(uri, short_reason(error)) from error
    except TimeoutError as error:
        raise StorageTimeout(uri, short_reason(error)) from error
    except OSError as error:
        raise UnavailableError(uri, short_reason(error)) from error
