"""Digests: 128 bits that stand for a text, where there are too many texts to hold them.

Multilinear hashing with multipliers that are drawn anew in every process: whatever the texts are, and whoever chose
them, two that differ have the same digest with a probability of 2**-128 at most. Ten million keys against ten million
others meet by chance once in 2**81 runs, and the next run draws anew. Digests mean nothing outside their process.

Source: Lemire and Kaser, "Strongly universal string hashing is fast", The Computer Journal 57 (2014), MULTILINEAR with
words of 32 bits, four times.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

DIGEST = np.dtype("V16")
RECORD = np.dtype([("digest", DIGEST), ("number", np.int64)])
"""A digest, and what is to be known of it: its row, or an attempt."""

Digests: TypeAlias = np.ndarray[Any, np.dtype[np.void]]
Records: TypeAlias = np.ndarray[Any, np.dtype[np.void]]

_SECRET = secrets.token_bytes(32)
_WORD_BYTES, _NUM_HASHES = 4, 4
_ROWS_AT_ONCE = 8192
"""Their words fit a processor's cache: four times as fast as 65,536."""
_BYTES_AT_ONCE = 1 << 22


def digest(*columns: pa.Array) -> Digests:
    """Digest the rows of some columns of text.

    Args:
        columns: strings without nulls, equally many.

    Returns:
        (num_rows,) DIGEST: equal where all columns are equal.
    """
    num_rows = len(columns[0])
    if num_rows > _ROWS_AT_ONCE:
        return _digest_slices(columns, _ROWS_AT_ONCE)
    if num_rows == 0:
        return np.zeros(0, DIGEST)
    lengths = np.stack([pc.binary_length(column).to_numpy() for column in columns], axis=1)
    width = max(-(-int(lengths.sum(axis=1).max()) // _WORD_BYTES), 1) * _WORD_BYTES
    if num_rows > 1 and num_rows * width > _BYTES_AT_ONCE:  # one long text would widen all others
        return _digest_slices(columns, num_rows // 2)
    text = pc.ascii_rpad(pc.binary_join_element_wise(*columns, ""), width, "\0")
    letters = np.frombuffer(text.buffers()[2], np.uint32, num_rows * width // _WORD_BYTES).reshape(num_rows, -1)
    # The lengths tell where a column ends, so that neither joining nor padding makes two rows alike.
    words = np.concatenate([np.ones((num_rows, 1)), lengths, letters], axis=1, dtype=np.uint64, casting="unsafe")
    sums = words @ _multipliers(words.shape[1])
    return (sums >> np.uint64(32)).astype(np.uint32).view(DIGEST).reshape(num_rows)


def _digest_slices(columns: tuple[pa.Array, ...], num_rows: int) -> Digests:
    starts = range(0, len(columns[0]), num_rows)
    return np.concatenate([digest(*(column.slice(start, num_rows) for column in columns)) for start in starts])


def _multipliers(num_words: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    # An extendable stream: a longer text has the same multipliers and more.
    stream = hashlib.shake_256(_SECRET).digest(num_words * _NUM_HASHES * 8)
    return np.frombuffer(stream, np.uint64).reshape(num_words, _NUM_HASHES)


def build_records(digests: Digests, numbers: np.ndarray[Any, Any]) -> Records:
    """Put digests and numbers together."""
    records = np.empty(len(digests), RECORD)
    records["digest"], records["number"] = digests, numbers
    return records


def digest_attempts(rows: pa.Table) -> Records:
    """Digest keys, each with its attempt.

    Args:
        rows: image_uri, etag, attempt.
    """
    digested = [
        build_records(digest(batch["image_uri"], batch["etag"]), batch["attempt"].to_numpy())
        for batch in rows.select(["image_uri", "etag", "attempt"]).to_batches()
    ]
    return np.concatenate([np.zeros(0, RECORD), *digested])


def places_in(digests: Digests, known: Digests) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Find digests among others.

    Returns:
        (num_digests,): the first place in ``known``, -1 where it is not there.
    """
    places: np.ndarray[Any, np.dtype[np.int64]] = (
        pc.fill_null(pc.index_in(_to_arrow(digests), value_set=_to_arrow(known)), -1).to_numpy().astype(np.int64)
    )
    return places


def _to_arrow(digests: Digests) -> pa.Array:
    buffers = [None, pa.py_buffer(np.ascontiguousarray(digests).view(np.uint8))]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST.itemsize), len(digests), buffers)
