"""The versions of images that are named without them: asked of their stores, many at a time."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from maskrcnn import storage
from maskrcnn.errors import InputError, NoBucketError, NotFoundError, StorageError, StorageTimeout, UnavailableError

logger = logging.getLogger(__name__)

HEADS_IN_FLIGHT = 64
MANY_REFUSED = 1000
"""So many, and not one that is found, are not these images' own fault."""

LISTED_SCHEMA = pa.schema(
    [
        ("image_uri", pa.string()),
        ("etag", pa.string()),
        ("size", pa.int64()),
        ("last_modified", pa.timestamp("us", tz="UTC")),
    ]
)


class VersionFinder:
    """Asks for the versions of images, and tells images that are refused from credentials that are wrong."""

    def __init__(self) -> None:
        self._is_any_found = False
        self._num_refused = 0
        self._first_refusal: StorageError | None = None

    def find(self, uris: list[str]) -> pa.Table:
        """Give the version of every image; one that is missing or refused gets an empty etag, and later an error row.

        Raises:
            InputError: many are refused, and none was ever found.
            NoBucketError, StorageTimeout, UnavailableError: a store is away, which is no image's own fault.
        """
        with ThreadPoolExecutor(HEADS_IN_FLIGHT) as pool:
            answers = list(pool.map(_ask, uris))
        rows = [self._as_row(uri, answer) for uri, answer in zip(uris, answers, strict=True)]
        if self._num_refused >= MANY_REFUSED and not self._is_any_found:
            self.check_refusals()
        return pa.Table.from_pylist(rows, schema=LISTED_SCHEMA)

    def _as_row(self, uri: str, answer: storage.ObjectMeta | StorageError) -> dict[str, Any]:
        if isinstance(answer, storage.ObjectMeta):
            self._is_any_found = True
            known = {"etag": answer.etag, "size": answer.size, "last_modified": answer.last_modified_us}
            return {"image_uri": uri, **known}
        if isinstance(answer, NotFoundError):
            return {"image_uri": uri, "etag": "", "size": 0}
        self._num_refused += 1
        self._first_refusal = self._first_refusal or answer
        return {"image_uri": uri, "etag": "", "size": storage.UNKNOWN_SIZE}

    def check_refusals(self) -> None:
        """Tell of the images that were refused, once all were asked for.

        Raises:
            InputError: none was found beside them.
        """
        first = self._first_refusal
        if first is None:
            return
        if not self._is_any_found:
            rule = f"must hold an image that may be read, and all {self._num_refused:,} are refused: {first.reason}"
            raise InputError("--images", rule, first.uri, "see the credentials and the store's policies")
        logger.warning("images that their store refuses: %s; the first: %s", f"{self._num_refused:,}", first)


def _ask(uri: str) -> storage.ObjectMeta | StorageError:
    try:
        return storage.stat(uri)
    except (NoBucketError, StorageTimeout, UnavailableError):
        raise
    except StorageError as error:
        return error
