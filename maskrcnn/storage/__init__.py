"""Every byte in or out, by URI: a path, ``s3://``, ``gs://``, ``az://`` or any fsspec URL.

Three backends behind one set of functions: the local file system, the object stores through obstore (several times
less CPU a GET than the alternatives, and a create-only put), and fsspec for the rest. Owns retries, deadlines,
integrity and the names of failures; knows nothing of images, plans or tables.
"""

from __future__ import annotations

import os
import posixpath
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote, urlsplit

from maskrcnn.errors import InputError
from maskrcnn.storage.base import UNKNOWN_SIZE, ObjectMeta, PutAnswer, Store
from maskrcnn.storage.outages import OutageNotice, expect_outages, reached_stores, tell_of_outages
from maskrcnn.storage.outside import check_no_credentials
from maskrcnn.storage.paths import local_path, spell_path
from maskrcnn.storage.reads import MAX_READ_BYTES, READS_IN_FLIGHT, ReadAnswer, Version, read_in_threads

if TYPE_CHECKING:
    import pyarrow

__all__ = [
    "READS_IN_FLIGHT",
    "UNKNOWN_SIZE",
    "ObjectMeta",
    "OutageNotice",
    "PutAnswer",
    "ReadAnswer",
    "Version",
    "delete",
    "exists",
    "expect_outages",
    "is_local",
    "join",
    "list_batches",
    "list_uris",
    "local_path",
    "normalise",
    "open_input",
    "open_output",
    "put",
    "put_if_absent",
    "reached_stores",
    "read_bytes",
    "read_object",
    "read_objects",
    "stat",
    "tell_of_outages",
]

OBJECT_STORE_SCHEMES = frozenset({"s3", "gs", "az", "abfs", "abfss"})

_stores: dict[str, Store] = {}
_stores_lock = threading.Lock()


def is_local(uri: str) -> bool:
    """Say whether ``uri`` is a path on this machine (``file://`` included)."""
    return "://" not in uri or uri.startswith("file://")


def normalise(uri: str) -> str:
    """Give the one spelling of ``uri`` that tables and plans hold: absolute for paths, no slash at the end.

    A ``file://`` URI becomes a path, unless the name is not UTF-8, which a table cannot hold.

    Raises:
        InputError: when it is empty, or holds a NUL or credentials.
    """
    if not uri or "\0" in uri:
        raise InputError(repr(uri), "is not a path or URI")
    check_no_credentials(uri, "the URI")
    if is_local(uri):
        if uri.startswith("file://"):
            return spell_path(posixpath.abspath(local_path(f"file://{urlsplit(uri).path}")))
        return posixpath.abspath(posixpath.expanduser(uri))
    scheme, rest = uri.split("://", 1)
    return f"{scheme.lower()}://{rest.rstrip('/')}"


def join(base_uri: str, *names: str) -> str:
    """Append path segments to a URI."""
    if base_uri.startswith("file://"):
        names = tuple(quote(os.fsencode(name)) for name in names)
    return "/".join([base_uri.rstrip("/"), *names])


def _store(uri: str) -> Store:
    """Find the backend of ``uri``, made once a process and bucket."""
    if is_local(uri):
        root = "file"
    else:
        parts = urlsplit(uri)
        root = f"{parts.scheme}://{parts.netloc}"
    with _stores_lock:
        if root not in _stores:
            _stores[root] = _build_store(root)
        return _stores[root]


def _build_store(root: str) -> Store:
    # Imported here, so that a machine without the object store's client still reads its disk.
    if root == "file":
        from maskrcnn.storage.local import LocalStore

        return LocalStore()
    if root.split("://", 1)[0] in OBJECT_STORE_SCHEMES:
        from maskrcnn.storage.object_store import ObjectStore

        return ObjectStore(root)
    from maskrcnn.storage.other import FsspecStore

    return FsspecStore(root)


def read_bytes(uri: str) -> bytes:
    """Read a whole object.

    Raises:
        NotFoundError, AccessError, StorageTimeout, UnavailableError: as the store answers.
    """
    return _store(uri).read(uri)


def read_object(uri: str, etag: str, size: int) -> bytes:
    """Read the version of an object that was listed, and check that these are its bytes.

    Args:
        uri: the object.
        etag: as listed; where it is an MD5 (not multipart, not KMS), the body is checked against it. Empty: whatever
            version is there, but of local files, whose etag is always known.
        size: as listed, bytes; `UNKNOWN_SIZE`: whatever comes, likewise.

    Raises:
        NotFoundError: also when the object has changed since it was listed.
        IntegrityError: when length or MD5 disagree, twice.
        OutageError: when the store as a whole stays away, after it was waited for.
        AccessError, StorageTimeout, UnavailableError: as the store answers.
    """
    return _store(uri).read_version(uri, etag, size)


def read_objects(
    versions: Iterable[Version], *, max_in_flight: int = READS_IN_FLIGHT, max_bytes: int = MAX_READ_BYTES
) -> Iterator[ReadAnswer]:
    """Read many listed objects at once, each as ``read_object`` does, and give the answers as they come.

    Reads run ahead of whoever takes the answers, within the two limits; a body counts from the moment its read begins
    until its answer is taken. Closing the iterator waits for the reads that have begun.

    Args:
        versions: what to read, in the order in which reads begin.
        max_in_flight: reads at once, and answers that wait to be taken; fewer where the process may open few files.
        max_bytes: of all these bodies together; a larger object is read alone.

    Yields:
        One answer an object; a failure is an answer, with the error that ``read_object`` would raise.
    """
    return read_in_threads(read_object, versions, max_in_flight, max_bytes)


def open_input(uri: str) -> BinaryIO:
    """Open an object for reading at any position; only the ranges that are read travel."""
    return _store(uri).open_input(uri)


def open_output(uri: str) -> AbstractContextManager[BinaryIO]:
    """Open a new object for writing in one go, of any size; it is there once the block ends, whole, or never.

    A block that ends with an error leaves nothing. On disk the last step is an exclusive link. For other stores the
    body waits in a temporary file (`TMPDIR` says where); up to `SINGLE_PUT_BYTES` the last step is `put_if_absent`,
    beyond it an upload in several parts, before which is looked once more whether something is there.

    Raises:
        ExistsError: when something is there, before or after the block.
        AccessError, NotFoundError: when nothing can be written there.
    """
    return _store(uri).open_output(uri)


def put(uri: str, body: bytes) -> None:
    """Write a whole object, replacing what is there; readers see the old or the new one, never a part."""
    _store(uri).put(uri, body)


def put_if_absent(uri: str, body: bytes) -> PutAnswer:
    """Create an object, atomically and only if nothing is there.

    Returns:
        CREATED, EXISTS, or UNKNOWN where the answer was lost: the caller reads back. EXISTS can be the caller's own
        earlier try, when the client repeated a put whose answer it had lost.

    Raises:
        AccessError: when the store refuses.
    """
    return _store(uri).put_if_absent(uri, body)


def delete(uri: str) -> None:
    """Delete an object; one that is gone already is no error. Labelling never does: only old checkpoints and
    reports go.

    Raises:
        AccessError, UnavailableError: as the store answers.
    """
    _store(uri).delete(uri)


def exists(uri: str) -> bool:
    """Say whether an object is there."""
    return _store(uri).exists(uri)


def stat(uri: str) -> ObjectMeta:
    """Give an object's etag, size and time.

    Raises:
        NotFoundError: when nothing is there.
    """
    return _store(uri).stat(uri)


def list_batches(uri: str) -> Iterator[pyarrow.RecordBatch]:
    """List every object under a folder or prefix, in batches.

    Yields:
        Record batches of uri (string), etag (string), size (int64, bytes) and last_modified (timestamp[us, UTC]); what
        the store does not tell is an empty etag, `UNKNOWN_SIZE` and null. Names that start with a dot are left out.
        Nothing there: no batch.

    Raises:
        AccessError, UnavailableError: as the store answers.
    """
    return _store(uri).list_batches(uri)


def list_uris(uri: str) -> list[str]:
    """List the URIs of every object under a folder or prefix; for folders whose listing fits in memory."""
    uris: list[str] = []
    for batch in list_batches(uri):
        column: Any = batch.column("uri")
        uris.extend(column.to_pylist())
    return uris
