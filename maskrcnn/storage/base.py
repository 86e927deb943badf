"""What every backend offers, and the shapes of the answers."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from maskrcnn.redaction import redact

if TYPE_CHECKING:
    import pyarrow

LISTING_COLUMNS = ("uri", "etag", "size", "last_modified")

EXISTS = "something is there already"

UNKNOWN_SIZE = -1
"""Of an object whose store does not tell its length before the whole body has come."""


class PutAnswer(enum.Enum):
    """What became of a create-if-absent put."""

    CREATED = "created"
    EXISTS = "exists"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ObjectMeta:
    """One object as its store describes it."""

    uri: str
    etag: str
    """Empty where the store tells nothing by which two versions could be told apart."""
    size: int
    """Bytes, or `UNKNOWN_SIZE`."""
    last_modified_s: float | None
    """Seconds since the epoch; None where the store does not tell."""

    @property
    def last_modified_us(self) -> int | None:
        """Microseconds since the epoch, as listings have it."""
        return None if self.last_modified_s is None else int(self.last_modified_s * 1e6)


_CONTENT_TYPES = {
    "css": "text/css",
    "html": "text/html; charset=utf-8",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "json": "application/json",
    "png": "image/png",
}


def content_type_of(uri: str) -> str | None:
    """Give the type that a browser must be told to show a file rather than save it; None for any other file."""
    return _CONTENT_TYPES.get(uri.rsplit("/", 1)[-1].rpartition(".")[2])


class Store(Protocol):
    """One backend; every method takes the whole URI. The functions of ``maskrcnn.storage`` say what each does."""

    def read(self, uri: str) -> bytes: ...
    def read_version(self, uri: str, etag: str, size: int) -> bytes: ...
    def open_input(self, uri: str) -> BinaryIO: ...
    def open_output(self, uri: str) -> AbstractContextManager[BinaryIO]: ...
    def put(self, uri: str, body: bytes) -> None: ...
    def put_if_absent(self, uri: str, body: bytes) -> PutAnswer: ...
    def delete(self, uri: str) -> None: ...
    def exists(self, uri: str) -> bool: ...
    def stat(self, uri: str) -> ObjectMeta: ...
    def list_batches(self, uri: str) -> Iterator[pyarrow.RecordBatch]: ...


def listing_batch(metas: list[ObjectMeta]) -> pyarrow.RecordBatch:
    """Give some objects as one batch of a listing."""
    import pyarrow as pa

    return pa.record_batch(
        [
            pa.array([meta.uri for meta in metas], pa.string()),
            pa.array([meta.etag for meta in metas], pa.string()),
            pa.array([meta.size for meta in metas], pa.int64()),
            pa.array([meta.last_modified_us for meta in metas], pa.timestamp("us", tz="UTC")),
        ],
        names=list(LISTING_COLUMNS),
    )


def bare_etag(etag: str | None) -> str:
    """Give an ETag without its quotes."""
    return (etag or "").removeprefix("W/").strip('"')


def short_reason(error: BaseException) -> str:
    """Give an error's first line without secrets: stores' errors name signed URLs."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return redact(lines[0])[:300]
