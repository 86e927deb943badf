"""S3, Google Cloud Storage and Azure through obstore: checked bodies, create-only puts, deadlines on everything."""

from __future__ import annotations

import hashlib
import io
import logging
import re
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.error import HTTPError

import obstore

from maskrcnn.errors import (
    ExistsError,
    IntegrityError,
    NotFoundError,
    StorageTimeout,
    UnavailableError,
)
from maskrcnn.storage.answers import NotOfferedError, check_is_stores_own, check_length, named_errors
from maskrcnn.storage.base import LISTING_COLUMNS, ObjectMeta, PutAnswer, bare_etag, content_type_of, short_reason
from maskrcnn.storage.bucket_listing import list_chunks
from maskrcnn.storage.buckets import Deadlines, connect
from maskrcnn.storage.outages import StoreWatch
from maskrcnn.storage.range_reader import RangeReader
from maskrcnn.storage.retries import WRITE_TRIES
from maskrcnn.storage.uploads import open_upload

if TYPE_CHECKING:
    import pyarrow

logger = logging.getLogger(__name__)

READ_DEADLINES = Deadlines(idle_s=9, whole_s=60)
"""An object that does not answer is asked twice, and is a row within 30 s; one that comes slowly but surely is read."""
LARGE_READ_DEADLINES = Deadlines(idle_s=9, whole_s=1800)
"""Of bundles and checkpoints, which are read whole."""
PROBE_DEADLINES = Deadlines(idle_s=5, whole_s=5)
WRITE_DEADLINES = Deadlines(idle_s=None, whole_s=60)
LARGE_WRITE_DEADLINES = Deadlines(idle_s=None, whole_s=900)
LARGE_ABOVE_BYTES = 8 << 20
"""What is not larger is also read whole when it is opened: one request, and its checksum can be checked."""
READ_AHEAD_BYTES = 1 << 20
MANY_ENCRYPTED = 20
"""So many objects under keys, and none without, are how the bucket encrypts: others need not be asked for."""

_MD5 = re.compile(r"[0-9a-f]{32}")


class ObjectStore:
    """One bucket or container."""

    def __init__(self, root: str) -> None:
        self._root = root
        # A part takes longer to write than any image to read, so each has its own deadline.
        self._reads = connect(root, READ_DEADLINES)
        self._large_reads = connect(root, LARGE_READ_DEADLINES)
        self._writes = connect(root, WRITE_DEADLINES)
        self._large_writes = connect(root, LARGE_WRITE_DEADLINES)
        self._parts = connect(root, WRITE_DEADLINES, num_retries=WRITE_TRIES.most)
        self._watch = StoreWatch(root, _BucketProbe(root, connect(root, PROBE_DEADLINES)))
        self._etag_is_md5 = root.startswith("s3://")
        self._num_matches = self._num_encrypted = 0

    def read(self, uri: str) -> bytes:
        """GET a whole object, checked against the answer's own headers."""
        return self._watch.ask(uri, lambda: self._get(self._large_reads, uri, None, None), reads=True)

    def read_version(self, uri: str, etag: str, size: int) -> bytes:
        """GET the listed version; a body that disagrees with the listing is fetched once more before it is refused."""
        return self._watch.ask(uri, lambda: self._get(self._reads, uri, bare_etag(etag), size), reads=True)

    def _get(self, client: Any, uri: str, etag: str | None, size: int | None) -> bytes:
        with named_errors(uri):
            answer = obstore.get(client, self._key(uri))
            found = bare_etag(answer.meta["e_tag"])
            body = bytes(answer.bytes())
        check_is_stores_own(uri, found)
        if etag and found != etag:
            raise NotFoundError(uri, "the object changed since it was listed; the next run plans the new one")
        if size is None or size < 0:
            check_length(uri, body, answer.meta["size"], "the header")
        else:
            check_length(uri, body, size, "the listing")
        self._check_md5(uri, body, etag or found)
        return body

    def _check_md5(self, uri: str, body: bytes, etag: str) -> None:
        if not self._etag_is_md5 or not _MD5.fullmatch(etag):
            return
        digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
        if digest == etag:
            self._num_matches += 1
            return
        if not self._is_encrypted_by_key(uri):
            raise IntegrityError(uri, f"the body's MD5 is {digest}, the store says {etag}")
        self._num_encrypted += 1
        if self._num_encrypted >= MANY_ENCRYPTED and not self._num_matches:
            self._etag_is_md5 = False
            logger.info("%s encrypts with keys: its ETags are no MD5s, so only lengths are checked", self._root)

    def _is_encrypted_by_key(self, uri: str) -> bool:
        """Ask whether the object is under SSE-KMS or SSE-C, whose ETags look like an MD5 and are none."""
        with named_errors(uri):
            signed = obstore.sign(self._reads, "HEAD", self._key(uri), timedelta(seconds=60))
        try:
            request = urllib.request.Request(signed, method="HEAD")
            with urllib.request.urlopen(request, timeout=PROBE_DEADLINES.whole_s) as answer:
                headers = answer.headers
        except OSError as error:
            if isinstance(error, HTTPError) and error.code < 500:
                return False
            raise UnavailableError(uri, f"could not be asked for its encryption: {short_reason(error)}") from error
        encryption = headers.get("x-amz-server-side-encryption", "")
        return encryption.startswith("aws:kms") or "x-amz-server-side-encryption-customer-algorithm" in headers

    def open_input(self, uri: str) -> BinaryIO:
        """Open an object for range reads; a small one is read whole."""
        meta = self.stat(uri)
        if meta.size <= LARGE_ABOVE_BYTES:
            return io.BytesIO(self.read_version(uri, meta.etag, meta.size))
        return io.BufferedReader(RangeReader(self._reads, self._key(uri), meta, self._watch), READ_AHEAD_BYTES)

    def open_output(self, uri: str) -> AbstractContextManager[BinaryIO]:
        """Write to a temporary file, then upload it."""
        return open_upload(self, self._parts, self._key(uri), uri)

    def put(self, uri: str, body: bytes) -> None:
        """PUT, replacing."""
        client = self._writer_of(body)
        told = {"Content-Type": content_type} if (content_type := content_type_of(uri)) else None
        self._write(uri, lambda: obstore.put(client, self._key(uri), body, attributes=told, use_multipart=False))

    def _writer_of(self, body: bytes) -> Any:
        return self._writes if len(body) <= LARGE_ABOVE_BYTES else self._large_writes

    def put_if_absent(self, uri: str, body: bytes) -> PutAnswer:
        """PUT with ``If-None-Match: *``."""

        client = self._writer_of(body)

        def create() -> None:
            # Not multipart: only a single put is conditional.
            obstore.put(client, self._key(uri), body, mode="create", use_multipart=False)

        try:
            self._write(uri, create)
        except ExistsError:
            return PutAnswer.EXISTS
        except NotOfferedError:
            logger.warning("%s has no create-only put: run one driver at a time on this output", self._root)
            if self.exists(uri):
                return PutAnswer.EXISTS
            self.put(uri, body)
        except (StorageTimeout, UnavailableError) as error:
            logger.warning("lost the answer to a put: %s", error)
            return PutAnswer.UNKNOWN
        return PutAnswer.CREATED

    def delete(self, uri: str) -> None:
        """DELETE an object."""
        with suppress(NotFoundError):
            self._write(uri, lambda: obstore.delete(self._writes, self._key(uri)))

    def _write(self, uri: str, request: Callable[[], object]) -> None:
        def write() -> None:
            with named_errors(uri):
                request()

        self._watch.ask(uri, write, WRITE_TRIES)

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

        def head() -> ObjectMeta:
            with named_errors(uri):
                meta = obstore.head(self._reads, self._key(uri))
            check_is_stores_own(uri, meta["e_tag"])
            return ObjectMeta(uri, bare_etag(meta["e_tag"]), meta["size"], meta["last_modified"].timestamp())

        return self._watch.ask(uri, head)

    def list_batches(self, uri: str) -> Iterator[pyarrow.RecordBatch]:
        """List a prefix as Arrow, without a Python object a key."""
        import pyarrow as pa
        import pyarrow.compute as pc

        for listed in list_chunks(self._reads, self._watch, self._key(uri), uri):
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


class _BucketProbe:
    """Asks whether a bucket is there, in one short request."""

    def __init__(self, root: str, client: Any) -> None:
        self._root, self._client = root, client

    def read(self, uri: str) -> None:
        """GET an object's first byte."""
        with named_errors(uri):
            obstore.get(self._client, uri.removeprefix(self._root).lstrip("/"), options={"range": (0, 1)}).bytes()

    def list(self, uri: str) -> None:
        """List the first few keys beside an object."""
        folder = uri.removeprefix(self._root).lstrip("/").rpartition("/")[0]
        with named_errors(uri):
            next(obstore.list(self._client, folder or None, chunk_size=1), None)
