"""Outputs of any size on their way to a bucket: whole or not at all, and no parts of an upload left to pay for."""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import obstore

from maskrcnn.errors import AccessError, ExistsError, NotFoundError, StorageError, UnavailableError
from maskrcnn.storage.answers import named_errors
from maskrcnn.storage.base import EXISTS, PutAnswer, Store

logger = logging.getLogger(__name__)

SINGLE_PUT_BYTES = 64 << 20
"""Larger outputs are uploaded in several parts, of which no store is asked to create only."""
UPLOAD_PART_BYTES = 16 << 20
UPLOADS_IN_FLIGHT = 4


@contextmanager
def open_upload(store: Store, parts_client: Any, key: str, uri: str) -> Iterator[BinaryIO]:
    """Write to a temporary file, then upload it: an error before that leaves nothing.

    Args:
        store: the bucket.
        parts_client: of the same bucket, for uploads in parts; tries each part again by itself.
        key: of the object.
        uri: of the object.

    Raises:
        ExistsError: something is there, before or after the block.
        StorageError: as the store answers.
    """
    if store.exists(uri):
        raise ExistsError(uri, EXISTS)
    # Asked for one object, a store does not say that there is no such bucket; who may not list learns at the end.
    with suppress(AccessError):
        next(store.list_batches(uri), None)
    with tempfile.TemporaryFile() as body:
        yield body
        size = body.seek(0, io.SEEK_END)
        body.seek(0)
        if size <= SINGLE_PUT_BYTES:
            _create(store, uri, body.read())
            return
        if store.exists(uri):
            raise ExistsError(uri, EXISTS)
        try:
            with named_errors(uri):
                obstore.put(
                    parts_client,
                    key,
                    body,
                    use_multipart=True,
                    chunk_size=UPLOAD_PART_BYTES,
                    max_concurrency=UPLOADS_IN_FLIGHT,
                )
        except StorageError:
            if not _holds(store, uri, size):  # else only the last answer was lost
                raise
        abort_unfinished(uri)


def _create(store: Store, uri: str, body: bytes) -> None:
    """Put if absent; what is there may be this very body, of a try whose answer got lost."""
    if store.put_if_absent(uri, body) is PutAnswer.CREATED:
        return
    try:
        is_ours = store.read(uri) == body
    except NotFoundError as error:
        raise UnavailableError(uri, "the answer to the put got lost, and nothing is there") from error
    if not is_ours:
        raise ExistsError(uri, EXISTS)


def _holds(store: Store, uri: str, size: int) -> bool:
    try:
        return store.stat(uri).size == size
    except StorageError:
        return False


def abort_unfinished(uri: str) -> None:
    """Throw away what other uploads to a key have sent, once the object is there: they cost as objects do.

    Most were cut off by a kill. One that still runs would put another object in the place of this one, which nobody
    does here: it fails instead. Only S3 keeps such parts for ever. Whoever may not do that is told of the rule for the
    bucket that does it.
    """
    parts = urlsplit(uri)
    if parts.scheme != "s3":
        return
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, key = parts.netloc, uri.split("/", 3)[3]
    try:
        client = boto3.client("s3", region_name=os.environ.get("AWS_REGION"))
        pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key)
        uploads = [upload for page in pages for upload in page.get("Uploads", []) if upload["Key"] == key]
        for upload in uploads:
            client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload["UploadId"])
    except (BotoCoreError, ClientError) as error:
        logger.warning(
            "unfinished uploads to %s could not be looked for (%s); give the bucket a lifecycle rule "
            "AbortIncompleteMultipartUpload",
            uri,
            type(error).__name__,
        )
