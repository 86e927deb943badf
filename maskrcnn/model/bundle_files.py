"""The two files of a bundle on any URI, written so that a kill at any moment leaves a whole bundle, or none.

While a bundle is replaced there is a third: stores replace single files, so that for a moment `model.json` is the new
one, and `model.safetensors` still the old. The new weights then lie beside it already, and are found by their sha256.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress

from maskrcnn import storage
from maskrcnn.errors import AccessError, BundleError, NotFoundError

JSON_NAME = "model.json"
WEIGHTS_NAME = "model.safetensors"
NEXT_WEIGHTS_NAME = "model.next.safetensors"


def write_files(uri: str, weights: bytes, document: bytes) -> None:
    """Write a bundle's files, or replace those that are there.

    Args:
        uri: the bundle's folder.
        weights: for `model.safetensors`.
        document: for `model.json`; holds the weights' sha256.
    """
    json_uri, weights_uri, next_uri = (storage.join(uri, n) for n in (JSON_NAME, WEIGHTS_NAME, NEXT_WEIGHTS_NAME))
    is_replaced = storage.exists(json_uri)
    if is_replaced:
        _finish_replacing(json_uri, weights_uri, next_uri)
        storage.put(next_uri, weights)
        storage.put(json_uri, document)
    storage.put(weights_uri, weights)
    if not is_replaced:
        storage.put(json_uri, document)
        return
    with suppress(AccessError):  # where nothing may be deleted it stays, and is not read
        storage.delete(next_uri)


def read_weights_file(uri: str, sha256: str) -> bytes:
    """Read the weights that a bundle's `model.json` was written for.

    Args:
        uri: the bundle's folder.
        sha256: of the weights, as `model.json` says.

    Raises:
        BundleError: they are missing, or others.
    """
    try:
        body = storage.read_bytes(storage.join(uri, WEIGHTS_NAME))
    except NotFoundError:
        raise BundleError(WEIGHTS_NAME, "is missing", uri, "copy the whole folder again") from None
    found = hashlib.sha256(body).hexdigest()
    if found == sha256:
        return body
    with suppress(NotFoundError):
        following = storage.read_bytes(storage.join(uri, NEXT_WEIGHTS_NAME))
        if hashlib.sha256(following).hexdigest() == sha256:
            return following
    rule = f"must have the sha256 {sha256} of {JSON_NAME}, got {found} ({len(body)} bytes)"
    raise BundleError(WEIGHTS_NAME, rule, uri, "the file is cut off or another bundle's; copy both again")


def _finish_replacing(json_uri: str, weights_uri: str, next_uri: str) -> None:
    """Do what a replacement that was cut off left undone, before its weights are overwritten."""
    try:
        following = storage.read_bytes(next_uri)
    except NotFoundError:
        return
    if _sha256_in(storage.read_bytes(json_uri)) == hashlib.sha256(following).hexdigest():
        storage.put(weights_uri, following)


def _sha256_in(document: bytes) -> object:
    """Give the weights' sha256 that a JSON holds; None where it is damaged, and so no bundle's."""
    try:
        found = json.loads(document)
    except (ValueError, RecursionError):
        return None
    return found.get("weights_sha256") if isinstance(found, dict) else None
