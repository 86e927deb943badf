"""Which rows of a manifest are let in: a manifest comes from outside, and what it holds goes into plans and tables."""

from __future__ import annotations

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
_MAYBE_SECRET = r"[?@=:]|A[KS]IA|(?i:bearer)"


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
        if name != "image_uri" and _is_text(rows[name].type):
            column = rows[name].cast(pa.string())
            for text in column.filter(pc.match_substring_regex(column, _MAYBE_SECRET)).unique().to_pylist():
                check_no_secrets(text, f"manifest column {name}", manifest_uri)


def _is_text(kind: pa.DataType) -> bool:
    return any(is_one(kind) for is_one in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
