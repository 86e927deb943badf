"""Every other fsspec URL, as https. What a store cannot promise (an atomic create), the log says."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import fsspec

from maskrcnn.errors import (
    AccessError,
    ExistsError,
    InputError,
    IntegrityError,
    NotFoundError,
    StorageError,
    StorageTimeout,
    UnavailableError,
)
from maskrcnn.storage.base import (
    EXISTS,
    UNKNOWN_SIZE,
    ObjectMeta,
    PutAnswer,
    bare_etag,
    listing_batch,
    short_reason,
)
from maskrcnn.storage.outages import StoreWatch
from maskrcnn.storage.retries import READ_TRIES, WRITE_TRIES, Tries
from maskrcnn.storage.watched_file import WatchedFile

if TYPE_CHECKING:
    import pyarrow

logger = logging.getLogger(__name__)

LISTING_BATCH_SIZE = 10_000

_ABSENT = {404, 410}
_DENIED = {401, 403, 407}
_WORTH_A_RETRY = {408, 429}

_TAGS = ("etag", "ETag", "checksum", "md5Hash", "Content-MD5")
_TIMES = ("mtime", "LastModified", "Last-Modified", "created")

_Answer = TypeVar("_Answer")


class FsspecStore:
    """One fsspec file system."""

    def __init__(self, root: str) -> None:
        self._scheme = root.split("://", 1)[0]
        try:
            self._fs = _open_file_system(root, self._scheme)
        except (ImportError, ValueError) as error:
            raise InputError(root, f"cannot be opened: {error}") from error
        self._has_warned = False
        self._watch = StoreWatch(root, _FsspecProbe(self._fs))

    def _ask(
        self, uri: str, request: Callable[[], _Answer], tries: Tries = READ_TRIES, *, reads: bool = False
    ) -> _Answer:
        def named() -> _Answer:
            with _named_errors(uri):
                return request()

        return self._watch.ask(uri, named, tries, reads=reads)

    def read(self, uri: str) -> bytes:
        """Read a whole object."""
        return self._ask(uri, lambda: bytes(self._fs.cat_file(uri)), reads=True)

    def read_version(self, uri: str, etag: str, size: int) -> bytes:
        """Read an object that must still be the one that was listed."""
        if etag and bare_etag(self.stat(uri).etag) != bare_etag(etag):
            raise NotFoundError(uri, "the object changed since it was listed; the next run plans the new one")
        body = self.read(uri)
        if size >= 0 and len(body) != size:
            raise IntegrityError(uri, f"the body has {len(body)} bytes, the listing says {size}")
        return body

    def open_input(self, uri: str) -> BinaryIO:
        """Open an object for reading."""
        file: BinaryIO = self._ask(uri, lambda: self._fs.open(uri, "rb"))
        return io.BufferedReader(WatchedFile(uri, file, lambda request: self._ask(uri, request, reads=True)))

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
            self._make_folder(uri)
            self._ask(uri, lambda: self._fs.put_file(body.name, uri), WRITE_TRIES)

    def _make_folder(self, uri: str) -> None:
        self._ask(uri, lambda: self._fs.makedirs(uri.rsplit("/", 1)[0], exist_ok=True), WRITE_TRIES)

    def put(self, uri: str, body: bytes) -> None:
        """Write, replacing."""
        self._make_folder(uri)
        self._ask(uri, lambda: self._fs.pipe_file(uri, body), WRITE_TRIES)

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
        with suppress(NotFoundError):
            self._ask(uri, lambda: self._fs.rm_file(uri), WRITE_TRIES)

    def exists(self, uri: str) -> bool:
        """Say whether an object is there; not by `isfile`, which takes a store that fails for one that has nothing."""
        try:
            entry = self._ask(uri, lambda: self._fs.info(uri))
        except NotFoundError:
            return False
        return bool(entry.get("type") != "directory")

    def stat(self, uri: str) -> ObjectMeta:
        """Give an object's etag, size and time."""
        return self._meta(uri, self._ask(uri, lambda: self._fs.info(uri), reads=True))

    def list_batches(self, uri: str) -> Iterator[pyarrow.RecordBatch]:
        """Find everything under a folder."""
        found: dict[str, dict[str, Any]] = self._ask(uri, lambda: self._fs.find(uri, detail=True))
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
        modified_s = _parse_time(next((entry[name] for name in _TIMES if entry.get(name)), None))
        size = UNKNOWN_SIZE if entry.get("size") is None else int(entry["size"])
        tag = next((str(entry[name]) for name in _TAGS if entry.get(name)), "").strip('"')
        if not tag and (size, modified_s) != (UNKNOWN_SIZE, None):
            tag = f"{size}-{int((modified_s or 0.0) * 1e9)}"
        return ObjectMeta(uri, tag, size, modified_s)


def _parse_time(told: object) -> float | None:
    """Read a time as any of the file systems tells it; None for none."""
    if isinstance(told, str):
        try:
            told = parsedate_to_datetime(told)
        except ValueError:
            return None
    if isinstance(told, datetime):
        # HTTP's times are of UTC, also where a server writes no zone.
        return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
    return float(told) if isinstance(told, int | float) else None


def _open_file_system(root: str, scheme: str) -> Any:
    if scheme not in ("http", "https"):
        return fsspec.core.url_to_fs(root)[0]
    from maskrcnn.storage.http_files import HttpFiles

    return HttpFiles()


class _FsspecProbe:
    """Asks whether a store is there."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def read(self, uri: str) -> None:
        """Ask for an object's description, which is a request everywhere."""
        with _named_errors(uri):
            self._fs.info(uri)

    def list(self, uri: str) -> None:
        """Ask for the same: few of these stores list."""
        self.read(uri)


@contextmanager
def _named_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        named = _named(uri, error)
        if named is None:
            raise
        raise named from error


def _named(uri: str, error: BaseException) -> StorageError | None:
    """Give an error its name here; None for what is no failure of a store."""
    reason = short_reason(error)
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return NotFoundError(uri, reason)
    if isinstance(error, PermissionError):
        return AccessError(uri, reason)
    if isinstance(error, TimeoutError):
        return StorageTimeout(uri, reason)
    refused = getattr(error, "os_error", None)
    if isinstance(refused, PermissionError):
        return AccessError(uri, str(refused.strerror))
    if _is_of_http(error) and isinstance(error, ValueError):
        return StorageError(uri, reason)  # a redirect to what is no URL, as the next try's would be
    if _is_of_http(error):
        return _named_by_status(uri, getattr(error, "status", 500), reason)
    return UnavailableError(uri, reason) if isinstance(error, OSError) else None


def _is_of_http(error: BaseException) -> bool:
    return type(error).__module__.startswith("aiohttp")  # which need not be installed


def _named_by_status(uri: str, status: int, reason: str) -> StorageError:
    if status in _ABSENT:
        return NotFoundError(uri, reason)
    if status in _DENIED:
        return AccessError(uri, reason)
    if status < 500 and status not in _WORTH_A_RETRY:
        return StorageError(uri, reason)
    return UnavailableError(uri, reason)
