"""S3, Google Cloud Storage and Azure through obstore: one retry layer, deadlines, checked bodies, create-only puts."""

from __future__ import annotations

import hashlib
import io
import logging
import re
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from maskrcnn.errors import (
    AccessError,
    ExistsError,
    IntegrityError,
    NotFoundError,
    StorageError,
    StorageTimeout,
    UnavailableError,
)
from maskrcnn.storage.base import EXISTS, LISTING_COLUMNS, ObjectMeta, PutAnswer, short_reason
from maskrcnn.storage.buckets import connect

if TYPE_CHECKING:
    import pyarrow

logger = logging.getLogger(__name__)

READ_DEADLINE_S = 25
WRITE_DEADLINE_S = 300
LISTING_BATCH_SIZE = 10_000
READ_AHEAD_BYTES = 1 << 20
SINGLE_PUT_BYTES = 64 << 20
"""Larger outputs are uploaded in several parts, of which no store is asked to create only."""
UPLOAD_PART_BYTES = 16 << 20
UPLOADS_IN_FLIGHT = 4

_MD5 = re.compile(r"[0-9a-f]{32}")


class ObjectStore:
    """One bucket or container."""

    def __init__(self, root: str) -> None:
        self._root = root
        # A part takes longer to write than any image to read, so each has its own deadline.
        self._reads = connect(root, READ_DEADLINE_S)
        self._writes = connect(root, WRITE_DEADLINE_S)
        self._etag_is_md5 = root.startswith("s3://")

    def read(self, uri: str) -> bytes:
        """GET a whole object."""
        with _named_errors(uri):
            return bytes(obstore.get(self._reads, self._key(uri)).bytes())

    def read_version(self, uri: str, etag: str, size: int) -> bytes:
        """GET the listed version; a body that disagrees with the listing is fetched once more before it is refused."""
        fault = ""
        for _ in range(2):
            with _named_errors(uri):
                answer = obstore.get(self._reads, self._key(uri))
                found = _bare_etag(answer.meta["e_tag"])
                body = bytes(answer.bytes())
            if etag and found and found != etag:
                raise NotFoundError(uri, "the object changed since it was listed; the next run plans the new one")
            fault = self._fault(uri, body, etag, size)
            if not fault:
                return body
        raise IntegrityError(uri, fault)

    def _fault(self, uri: str, body: bytes, etag: str, size: int) -> str:
        if len(body) != size:
            return f"the body has {len(body)} bytes, the listing says {size}; it starts with {body[:20]!r}"
        if not self._etag_is_md5 or not _MD5.fullmatch(etag):
            return ""
        digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
        if digest == etag:
            return ""
        if self._is_encrypted_by_key(uri):
            self._etag_is_md5 = False
            logger.info(
                "%s encrypts with keys of its own: its ETags are no MD5s, so only lengths are checked", self._root
            )
            return ""
        return f"the body's MD5 is {digest}, the listing says {etag}"

    def _is_encrypted_by_key(self, uri: str) -> bool:
        """Ask whether the object is under SSE-KMS or SSE-C, whose ETags look like an MD5 and are none."""
        signed = obstore.sign(self._reads, "HEAD", self._key(uri), timedelta(seconds=60))
        try:
            request = urllib.request.Request(signed, method="HEAD")
            with urllib.request.urlopen(request, timeout=READ_DEADLINE_S) as answer:
                headers = answer.headers
        except OSError:
            return False
        encryption = headers.get("x-amz-server-side-encryption", "")
        return encryption.startswith("aws:kms") or "x-amz-server-side-encryption-customer-algorithm" in headers

    def open_input(self, uri: str) -> BinaryIO:
        """Open an object for range reads."""
        size = self.stat(uri).size
        return io.BufferedReader(_RangeReader(self._reads, self._key(uri), size, uri), READ_AHEAD_BYTES)

    @contextmanager
    def open_output(self, uri: str) -> Iterator[BinaryIO]:
        """Write to a temporary file, then upload it: an error before that leaves nothing, not even parts to pay for."""
        if self.exists(uri):
            raise ExistsError(uri, EXISTS)
        # Asked for one object, a store does not say that there is no such bucket; who may not list learns at the end.
        with suppress(AccessError):
            next(self.list_batches(uri), None)
        with tempfile.TemporaryFile() as body:
            yield body
            size = body.seek(0, io.SEEK_END)
            body.seek(0)
            if size <= SINGLE_PUT_BYTES:
                self._create(uri, body.read())
                return
            if self.exists(uri):
                raise ExistsError(uri, EXISTS)
            with _named_errors(uri):
                obstore.put(
                    self._writes,
                    self._key(uri),
                    body,
                    use_multipart=True,
                    chunk_size=UPLOAD_PART_BYTES,
                    max_concurrency=UPLOADS_IN_FLIGHT,
                )

    def _create(self, uri: str, body: bytes) -> None:
        """Put if absent; what is there may be this very body, of a try whose answer got lost."""
        if self.put_if_absent(uri, body) is PutAnswer.CREATED:
            return
        try:
            is_ours = self.read(uri) == body
        except NotFoundError as error:
            raise UnavailableError(uri, "the answer to the put got lost, and nothing is there") from error
        if not is_ours:
            raise ExistsError(uri, EXISTS)

    def put(self, uri: str, body: bytes) -> None:
        """PUT, replacing."""
        with _named_errors(uri):
            obstore.put(self._writes, self._key(uri), body)

    def put_if_absent(self, uri: str, body: bytes) -> PutAnswer:
        """PUT with ``If-None-Match: *``."""
        try:
            with _named_errors(uri):
                # Not multipart: only a single put is conditional.
                obstore.put(self._writes, self._key(uri), body, mode="create", use_multipart=False)
        except _Exists:
            return PutAnswer.EXISTS
        except (StorageTimeout, UnavailableError) as error:
            logger.warning("lost the answer to a put: %s", error)
            return PutAnswer.UNKNOWN
        return PutAnswer.CREATED

    def delete(self, uri: str) -> None:
        """DELETE an object."""
        with suppress(NotFoundError), _named_errors(uri):
            obstore.delete(self._writes, self._key(uri))

    def exists(self, uri: str) -> bool:
        """HEAD an object; a bucket, which answers too, is none."""
        if not self._key(uri):
            return False
        try:
            self.stat(uri)
        except NotFoundError:
            return False
        return True

    def stat(self, uri: str) -> ObjectMeta:
        """HEAD an object."""
        with _named_errors(uri):
            meta = obstore.head(self._reads, self._key(uri))
        return ObjectMeta(uri, _bare_etag(meta["e_tag"]), meta["size"], meta["last_modified"].timestamp())

    def list_batches(self, uri: str) -> Iterator[pyarrow.RecordBatch]:
        """List a prefix as Arrow, without a Python object a key."""
        import pyarrow as pa
        import pyarrow.compute as pc

        stream = obstore.list(self._reads, self._key(uri) or None, chunk_size=LISTING_BATCH_SIZE, return_arrow=True)
        with _named_errors(uri):
            for chunk in stream:
                listed = pa.record_batch(chunk)
                uris = pc.binary_join_element_wise(f"{self._root}/", listed.column("path"), "")
                etags = pc.utf8_trim(pc.fill_null(listed.column("e_tag"), ""), characters='"')
                batch = pa.record_batch(
                    [uris, etags, listed.column("size").cast(pa.int64()), listed.column("last_modified")],
                    names=list(LISTING_COLUMNS),
                )
                batch = batch.filter(pc.invert(pc.match_substring_regex(uris, r"/\.[^/]*$")))
                yield self._without_folder_markers(batch)

    def _without_folder_markers(self, batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
        """Drop the empty objects named "folder/" that consoles make; the listing gives them without their slash."""
        import pyarrow.compute as pc

        empty_uris = batch.column("uri").filter(pc.equal(batch.column("size"), 0)).to_pylist()
        markers = [uri for uri in empty_uris if not self.exists(uri)]
        if not markers:
            return batch
        return batch.filter(pc.invert(pc.is_in(batch.column("uri"), value_set=_strings(markers))))

    def _key(self, uri: str) -> str:
        return uri.removeprefix(self._root).lstrip("/")


def _strings(values: list[str]) -> pyarrow.Array:
    import pyarrow as pa

    return pa.array(values, pa.string())


class _RangeReader(io.RawIOBase):
    """A seekable file over range GETs."""

    def __init__(self, store: Any, key: str, size: int, uri: str) -> None:
        super().__init__()
        self._store, self._key, self._size, self._uri = store, key, size, uri
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = origin + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        length = max(end - self._position, 0)
        if length:
            with _named_errors(self._uri):
                body = obstore.get_range(self._store, self._key, start=self._position, end=end)
            if len(body) != length:
                raise IntegrityError(self._uri, f"asked for {length} bytes at {self._position}, got {len(body)}")
            buffer[:length] = memoryview(body)
            self._position = end
        return length


class _Exists(Exception):
    """A create-only put met an object."""


def _bare_etag(etag: str | None) -> str:
    return (etag or "").removeprefix("W/").strip('"')


@contextmanager
def _named_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(uri, "no such object or bucket") from error
    except AlreadyExistsError as error:
        raise _Exists from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise AccessError(uri, short_reason(error)) from error
    except InvalidPathError as error:
        rule = "a key with an empty, '.' or '..' path segment cannot be read; rename it or name a narrower prefix"
        raise StorageError(uri, f"{rule}: {short_reason(error)}") from error
    except (PreconditionError, NotSupportedError, BaseError, OSError) as error:
        text = str(error)
        if "NoSuchBucket" in text:
            raise NotFoundError(uri, "no such bucket") from error
        if "timed out" in text or "operation timeout" in text.lower() or "TimedOut" in text:
            raise StorageTimeout(uri, short_reason(error)) from error
        raise UnavailableError(uri, short_reason(error)) from error
