"""What there is to label: a folder, a glob, a bucket prefix, a manifest Parquet, an S3 Inventory or a COCO JSON.

Every form ends as one Arrow table with a row an image: image_uri, etag, size, date, perhaps image_id, and the
manifest's other columns. Listings stream in as Arrow batches, so that millions of keys do not become Python objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from maskrcnn import storage
from maskrcnn.coco.file_names import safe_join
from maskrcnn.errors import AccessError, InputError, NotFoundError
from maskrcnn.labelling.columns import RESERVED_COLUMNS
from maskrcnn.labelling.dates import with_date
from maskrcnn.labelling.inventory import is_inventory, read_inventory
from maskrcnn.labelling.plan import drop_repeats

HEADS_IN_FLIGHT = 64

LISTED_SCHEMA = pa.schema(
    [
        ("image_uri", pa.string()),
        ("etag", pa.string()),
        ("size", pa.int64()),
        ("last_modified", pa.timestamp("us", tz="UTC")),
    ]
)

_MAGIC = re.compile(r"[*?\[]")
_GLOB_TOKEN = re.compile(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])")


def list_manifest(
    images_uri: str,
    *,
    image_root_uri: str | None = None,
    date_from: str | None = None,
    leave_out_uri: str | None = None,
) -> pa.Table:
    """List the images to label.

    Args:
        images_uri: a folder, a glob, a bucket prefix, a manifest Parquet, an S3 Inventory manifest.json, a COCO JSON,
            or one image.
        image_root_uri: where the images of a COCO JSON lie.
        date_from: last-modified, a column of the manifest, or a regular expression with one group over the URI.
        leave_out_uri: a folder whose files are no images: the job's own output, where it lies among them.

    Returns:
        Unique images: image_uri, etag (string), size (int64, bytes), date (string, null without ``date_from``),
        image_id (int64) where the input has one, then the user's columns.

    Raises:
        InputError: when nothing is there, or the manifest cannot be used.
    """
    uri = storage.normalise(images_uri)
    try:
        listed = _list(uri, image_root_uri)
    except (AccessError, NotFoundError) as error:
        raise InputError("--images", f"cannot be listed: {error.reason}", error.uri) from error
    if leave_out_uri is not None:
        listed = listed.filter(pc.invert(pc.starts_with(listed["image_uri"], leave_out_uri + "/")))
    if len(listed) == 0:
        raise InputError("--images", "holds no images, or does not exist", uri)
    manifest = with_date(drop_repeats(listed), date_from)
    known = ["image_uri", "etag", "size", "date", *(["image_id"] if "image_id" in manifest.column_names else [])]
    own = [name for name in manifest.column_names if name not in {*known, *LISTED_SCHEMA.names}]
    for name in own:
        if name in RESERVED_COLUMNS:
            rule = "is the name of a column of the predictions table"
            raise InputError(f"manifest column {name}", rule, uri, "rename it")
    return manifest.select([*known, *own])


def _list(uri: str, image_root_uri: str | None) -> pa.Table:
    if _MAGIC.search(uri) and not _is_there(uri):
        return _to_table(_list_glob(uri))
    if uri.endswith(".parquet"):
        return _read_manifest(uri)
    if uri.endswith(".json"):
        return _read_json(uri, image_root_uri)
    listed = _to_table(storage.list_batches(uri))
    if len(listed) == 0 and storage.exists(uri):
        return _stat_all([uri])
    return listed


def _to_table(batches: Iterator[pa.RecordBatch]) -> pa.Table:
    renamed = (batch.rename_columns(LISTED_SCHEMA.names).cast(LISTED_SCHEMA) for batch in batches)
    return pa.Table.from_batches(renamed, schema=LISTED_SCHEMA)


def _is_there(uri: str) -> bool:
    """Say whether a name that looks like a glob is a real one: "[1]" is common in file names."""
    return storage.exists(uri) or next(storage.list_batches(uri), None) is not None


def _list_glob(uri: str) -> Iterator[pa.RecordBatch]:
    """List what matches, and everything under folders that match; ``*`` and ``?`` stop at a slash, ``**`` does not."""
    folder = _GLOB_TOKEN.split(uri)[0].rsplit("/", 1)[0]
    pattern = f"^{_glob_to_regex(uri)}(/.*)?$"
    for batch in storage.list_batches(folder):
        yield batch.filter(pc.match_substring_regex(batch.column("uri"), pattern))


def _glob_to_regex(glob: str) -> str:
    translations = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = [
        translations.get(piece) or (piece.replace("[!", "[^") if piece.startswith("[") else re.escape(piece))
        for piece in _GLOB_TOKEN.split(glob)
    ]
    return "".join(pieces)


def _read_manifest(uri: str) -> pa.Table:
    """Read a manifest Parquet: image_uri (or uri), perhaps etag and size, and any columns of the user's."""
    try:
        with storage.open_input(uri) as file:
            manifest = pq.ParquetFile(file).read().replace_schema_metadata(None)
    except NotFoundError as error:
        raise InputError("--images", "does not exist", uri) from error
    except pa.ArrowInvalid as error:
        raise InputError("--images", f"is not a Parquet file: {error}", uri) from error
    names = manifest.column_names
    if "image_uri" not in names:
        if "uri" not in names:
            raise InputError("the manifest", f"must have a column image_uri, has {', '.join(names)}", uri)
        manifest = manifest.rename_columns(["image_uri" if name == "uri" else name for name in names])
    if manifest["image_uri"].null_count:
        raise InputError("manifest column image_uri", "must have no nulls", uri)
    if not _has_versions(manifest):
        uris = [storage.normalise(one) for one in manifest["image_uri"].cast(pa.string()).to_pylist()]
        versions = _stat_all(uris)
        for name in LISTED_SCHEMA.names:
            if name in manifest.column_names:
                manifest = manifest.drop_columns([name])
            manifest = manifest.append_column(name, versions[name])
    else:
        etags = pc.utf8_trim(manifest["etag"].cast(pa.string()), characters='"')
        manifest = manifest.set_column(manifest.column_names.index("etag"), "etag", etags)
    types = {**{name: LISTED_SCHEMA.field(name).type for name in LISTED_SCHEMA.names}, "image_id": pa.int64()}
    fields = [pa.field(field.name, types.get(field.name, field.type)) for field in manifest.schema]
    return manifest.cast(pa.schema(fields))


def _has_versions(manifest: pa.Table) -> bool:
    """Say whether the manifest gives every image's etag and size; those of local files are always asked for."""
    if not {"etag", "size"} <= set(manifest.column_names):
        return False
    if manifest["etag"].null_count or manifest["size"].null_count:
        return False
    return bool(pc.all(pc.match_substring_regex(manifest["image_uri"].cast(pa.string()), "^[a-z0-9]+://")).as_py())


def _read_json(uri: str, image_root_uri: str | None) -> pa.Table:
    try:
        document = json.loads(storage.read_bytes(uri))
    except NotFoundError as error:
        raise InputError("--images", "does not exist", uri) from error
    except ValueError as error:
        raise InputError("--images", f"is not JSON: {error}", uri) from error
    if is_inventory(document):
        return read_inventory(document, uri)
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise InputError("--images", "is neither a COCO file nor an S3 Inventory manifest", uri)
    if image_root_uri is None:
        raise InputError("--image-root", "must say where the images of a COCO file lie", uri)
    return _list_coco(document["images"], uri, storage.normalise(image_root_uri))


def _list_coco(images: list[Any], uri: str, root_uri: str) -> pa.Table:
    """Find the files of a COCO document; one that is missing gets an empty etag, and later a row ``not_found``."""
    for place, image in enumerate(images):
        if not isinstance(image, dict) or not isinstance(image.get("id"), int) or "file_name" not in image:
            raise InputError(f"images[{place}]", "must have an integer id and a file_name", uri)
    uris = pa.array([safe_join(root_uri, str(image["file_name"])) for image in images], pa.string())
    listed = _to_table(storage.list_batches(root_uri))
    found = listed.take(pc.index_in(uris, value_set=listed["image_uri"]))
    return pa.table(
        {
            "image_uri": uris,
            "etag": pc.fill_null(found["etag"], ""),
            "size": pc.fill_null(found["size"], 0),
            "last_modified": found["last_modified"],
            "image_id": pa.array([image["id"] for image in images], pa.int64()),
        }
    )


def _stat_all(uris: list[str]) -> pa.Table:
    """Ask for the version of every image, many at a time; one that is missing gets an empty etag."""

    def version(uri: str) -> dict[str, Any]:
        try:
            meta = storage.stat(uri)
        except NotFoundError:
            return {"image_uri": uri, "etag": "", "size": 0, "last_modified": None}
        micros = int(meta.last_modified_s * 1e6)
        return {"image_uri": uri, "etag": meta.etag, "size": meta.size, "last_modified": micros}

    with ThreadPoolExecutor(HEADS_IN_FLIGHT) as pool:
        rows = list(pool.map(version, uris))
    return pa.Table.from_pylist(rows, schema=LISTED_SCHEMA)
