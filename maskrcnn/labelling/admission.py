"""Which rows of a manifest are let in: a manifest comes from outside, and what it holds goes into plans and tables."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from maskrcnn import storage
from maskrcnn.storage.outside import check_image_uri, check_no_secrets

# Most rows of most manifests: only the others are looked at one by one.
_PLAINLY_GOOD = r"^(?:(?:s3|gs)://[A-Za-z0-9._-]+|https?://[A-Za-z][A-Za-z0-9.-]*\.[A-Za-z]{2,})/"
_PLAINLY_GOOD_HERE = r"^/[^:]*$"
_NOT_SO_PLAIN = (
    r"[\x00%\\?@]|\.\.|://.*://|metadata|A[KS]IA|(?i:(?:key|token|signature|credential)['\"]?\s?[=:>]|bearer)"
)
_LISTS = (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray, pa.ListViewArray, pa.LargeListViewArray)
_MAYBE_SECRET = r"[?@=:>]|%3[Dd]|A[KS]IA|-----BEGIN|(?i:bearer|authorization)"


def check_rows(rows: pa.Table, manifest_uri: str) -> None:
    """Refuse image URIs that must not be opened, and credentials in any column.

    Args:
        rows: with a column image_uri, and any columns of the user's.
        manifest_uri: where they come from, normalised.

    Raises:
        InputError: naming the first.
    """
    uris = rows["image_uri"].cast(pa.string())
    good = f"{_PLAINLY_GOOD}|{_PLAINLY_GOOD_HERE}" if storage.is_local(manifest_uri) else _PLAINLY_GOOD
    is_plain = pc.and_not(pc.match_substring_regex(uris, good), pc.match_substring_regex(uris, _NOT_SO_PLAIN))
    for uri in uris.filter(pc.invert(is_plain)).to_pylist():
        check_image_uri(uri, manifest_uri)
    for name in rows.column_names:
        if name != "image_uri":
            for chunk in rows[name].chunks:
                _check_texts(chunk, f"manifest column {name}", manifest_uri)


def _check_texts(array: pa.Array, thing: str, manifest_uri: str) -> None:
    for texts in _texts_in(array):
        maybe_secret = texts.filter(pc.match_substring_regex(texts, _MAYBE_SECRET))
        for text in maybe_secret.unique().to_pylist():
            check_no_secrets(text, thing, manifest_uri)


def _texts_in(array: pa.Array) -> Iterator[pa.Array]:
    """Find the strings of an array, however deep they lie in it."""
    if isinstance(array, pa.ExtensionArray):
        yield from _texts_in(array.storage)
    elif isinstance(array, pa.DictionaryArray):
        yield from _texts_in(array.dictionary)
    elif isinstance(array, pa.RunEndEncodedArray):
        yield from _texts_in(array.values)
    elif isinstance(array, pa.MapArray):
        yield from _texts_in(array.keys)
        yield from _texts_in(array.items)
    elif isinstance(array, pa.StructArray | pa.UnionArray):
        for place in range(array.type.num_fields):
            yield from _texts_in(array.field(place))
    elif isinstance(array, _LISTS):
        yield from _texts_in(array.flatten())
    elif isinstance(array, pa.StringArray | pa.LargeStringArray | pa.StringViewArray):
        yield array.cast(pa.string())
