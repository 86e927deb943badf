"""What there is to label: a folder, a glob, a bucket prefix, a manifest Parquet, an S3 Inventory or a COCO JSON.

Every form ends as a manifest with a row an image: image_uri, etag, size, date, perhaps image_id, and the manifest's
other columns. All but a COCO JSON stream in as Arrow batches, so that neither memory nor Python objects grow with them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from maskrcnn import storage
from maskrcnn.coco.file_names import safe_join
from maskrcnn.coco.records import Records
from maskrcnn.errors import AccessError, InputError, NotFoundError
from maskrcnn.labelling.admission import check_rows
from maskrcnn.labelling.columns import RESERVED_COLUMNS, is_text
from maskrcnn.labelling.dates import with_date
from maskrcnn.labelling.globs import list_glob, looks_like_glob
from maskrcnn.labelling.inventory import is_inventory, read_inventory
from maskrcnn.labelling.manifest import Manifest
from maskrcnn.labelling.row_groups import open_parquet, read_batches
from maskrcnn.labelling.sampling import Choice
from maskrcnn.labelling.versions import LISTED_SCHEMA, VersionFinder


def list_manifest(
    images_uri: str,
    *,
    image_root_uri: str | None = None,
    date_from: str | None = None,
    leave_out_uri: str | None = None,
    sample: float | None = None,
    seed: int = 0,
) -> Manifest:
    """List the images to label.

    Args:
        images_uri: a folder, a glob, a bucket prefix, a manifest Parquet, an S3 Inventory manifest.json, a COCO JSON,
            or one image.
        image_root_uri: where the images of a COCO JSON lie.
        date_from: last-modified, a column of the manifest, or a regular expression with one group over the URI.
        leave_out_uri: a folder whose files are no images: the job's own output, where it lies among them.
        sample: list only this share of the images, as `sampling` says; None: all.
        seed: of the sample.

    Returns:
        Unique images: image_uri, etag (string), size (int64, bytes), date (string, null without ``date_from``),
        image_id (int64) where the input has one, then the user's columns.

    Raises:
        InputError: when nothing is there, or the manifest cannot be used.
    """
    uri = storage.normalise(images_uri)
    choice = Choice(leave_out_uri, sample, seed)
    try:
        source = _list(uri, image_root_uri, choice)
        batches = (
            batch for listed in source.tables for batch in _finish(listed, uri, date_from).to_batches() if len(batch)
        )
        manifest = Manifest(batches, may_repeat=source.may_repeat)
    except (AccessError, NotFoundError) as error:
        raise InputError("--images", f"cannot be listed: {error.reason}", error.uri) from error
    if manifest.num_images == 0 and choice.num_outside_sample:
        rule = f"must hold an image of the sample, and holds none of --sample {sample} with --seed {seed}"
        raise InputError("--images", f"{rule}, of {choice.num_outside_sample:,}", uri, "take a larger --sample")
    if manifest.num_images == 0:
        raise InputError("--images", "holds no images, or does not exist", uri)
    manifest.num_outside_sample = choice.num_outside_sample
    return manifest


@dataclass(frozen=True)
class _Source:
    tables: Iterable[pa.Table]
    """With the columns of LISTED_SCHEMA, as far as they are known, and perhaps more."""
    may_repeat: bool
    """Whether an image can come twice."""


def _finish(listed: pa.Table, uri: str, date_from: str | None) -> pa.Table:
    """Give some listed rows the manifest's columns."""
    manifest = with_date(listed, date_from)
    known = ["image_uri", "etag", "size", "date", *(["image_id"] if "image_id" in manifest.column_names else [])]
    own = [name for name in manifest.column_names if name not in {*known, *LISTED_SCHEMA.names}]
    for name in own:
        if name in RESERVED_COLUMNS:
            rule = "is the name of a column of the predictions table"
            raise InputError(f"manifest column {name}", rule, uri, "rename it")
    return manifest.select([*known, *own])


def _list(uri: str, image_root_uri: str | None, choice: Choice) -> _Source:
    if looks_like_glob(uri) and not _is_there(uri):
        return _Source(map(choice, _to_tables(list_glob(uri))), may_repeat=False)
    if uri.endswith(".parquet"):
        return _Source(_read_manifest(uri, choice), may_repeat=True)
    if uri.endswith(".json"):
        return _Source(map(choice, _read_json(uri, image_root_uri)), may_repeat=True)
    return _Source(map(choice, _list_folder(uri)), may_repeat=False)


def _list_folder(uri: str) -> Iterator[pa.Table]:
    num_listed = 0
    for listed in _to_tables(storage.list_batches(uri)):
        num_listed += len(listed)
        yield listed
    if num_listed == 0 and storage.exists(uri):
        finder = VersionFinder()
        yield finder.find([uri])
        finder.check_refusals()


def _to_tables(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    for batch in batches:
        yield pa.Table.from_batches([batch.rename_columns(LISTED_SCHEMA.names).cast(LISTED_SCHEMA)])


def _is_there(uri: str) -> bool:
    """Say whether a name that looks like a glob is a real one: "[1]" is common in file names."""
    return storage.exists(uri) or next(storage.list_batches(uri), None) is not None


def _read_manifest(uri: str, choice: Choice) -> Iterator[pa.Table]:
    """Read a manifest Parquet: image_uri (or uri), perhaps etag and size, and any columns of the user's."""
    try:
        file = storage.open_input(uri)
    except NotFoundError as error:
        raise InputError("--images", "does not exist", uri) from error
    finder = VersionFinder()
    try:
        with file:
            manifest = open_parquet(file)
            image_uri = _check_columns(manifest.schema_arrow, uri)
            is_believed = _has_versions(manifest, image_uri, uri)
            for batch in read_batches(manifest):
                rows = pa.Table.from_batches([batch]).replace_schema_metadata(None)
                place = rows.column_names.index(image_uri)
                rows = rows.set_column(place, "image_uri", _texts(rows[image_uri], uri))
                if rows["image_uri"].null_count:
                    raise InputError("manifest column image_uri", "must have no nulls", uri)
                check_rows(rows, uri)
                # Chosen first: the store is asked for the versions of the others.
                chosen = choice(_with_spelling(rows, is_believed))
                yield _with_types(chosen if is_believed else _with_versions(chosen, finder), uri)
        finder.check_refusals()
    except pa.ArrowInvalid as error:
        raise InputError("--images", f"is not a Parquet file: {error}", uri) from error


def _check_columns(schema: pa.Schema, uri: str) -> str:
    """Refuse a manifest whose columns cannot be used, and name the one that holds the images' URIs."""
    names = schema.names
    if not {"image_uri", "uri"} & set(names):
        raise InputError("the manifest", f"must have a column image_uri, has {', '.join(names)}", uri)
    if repeated := [name for place, name in enumerate(names) if name in names[:place]]:
        raise InputError(f"manifest column {repeated[0]}", "must be there once, and is there twice", uri, "rename one")
    image_uri = "image_uri" if "image_uri" in names else "uri"
    if not is_text(schema.field(image_uri).type):
        raise InputError(f"manifest column {image_uri}", f"must be text, is {schema.field(image_uri).type}", uri)
    return image_uri


def _texts(image_uris: pa.Array | pa.ChunkedArray, manifest_uri: str) -> pa.Array | pa.ChunkedArray:
    try:
        # By way of bytes: what a file calls text is looked at only when it is cast from there.
        return image_uris.cast(pa.string()).cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid as error:
        raise InputError("manifest column image_uri", "must be UTF-8", manifest_uri) from error


def _has_versions(manifest: pq.ParquetFile, image_uri: str, manifest_uri: str) -> bool:
    """Say whether the manifest gives every image's etag and size; those of local files are always asked for."""
    if not {"etag", "size"} <= set(manifest.schema_arrow.names):
        return False
    for batch in read_batches(manifest, [image_uri, "etag", "size"]):
        uris = _texts(batch[image_uri], manifest_uri)
        is_remote = pc.and_not(pc.match_substring_regex(uris, "^[a-z0-9]+://"), pc.starts_with(uris, "file://"))
        if batch["etag"].null_count or batch["size"].null_count or pc.all(is_remote).as_py() is False:
            return False
    return True


def _with_spelling(rows: pa.Table, is_believed: bool) -> pa.Table:
    """Give rows of a manifest the spelling of URIs that tables have; those with versions come from a listing."""
    if is_believed:
        return rows
    uris = pa.array([storage.normalise(one) for one in rows["image_uri"].to_pylist()], pa.string())
    return rows.set_column(rows.column_names.index("image_uri"), "image_uri", uris)


def _with_versions(rows: pa.Table, finder: VersionFinder) -> pa.Table:
    """Give rows of a manifest the versions that the store has, whatever they say."""
    versions = finder.find(rows["image_uri"].to_pylist())
    for name in LISTED_SCHEMA.names:
        if name in rows.column_names:
            rows = rows.drop_columns([name])
        rows = rows.append_column(name, versions[name])
    return rows


def _with_types(rows: pa.Table, uri: str) -> pa.Table:
    """Give rows of a manifest the types of a listing."""
    types = {**{field.name: field.type for field in LISTED_SCHEMA}, "image_id": pa.int64()}
    for place, name in enumerate(rows.column_names):
        if name in types:
            try:
                # Times of other writers are of nanoseconds.
                column = pc.cast(rows[name], options=pc.CastOptions(types[name], allow_time_truncate=True))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                rule = f"needs a text etag, an integer size, a time last_modified and an integer image_id: {error}"
                raise InputError("the manifest", rule, uri) from error
            rows = rows.set_column(place, name, pc.utf8_trim(column, characters='"') if name == "etag" else column)
    return rows


def _read_json(uri: str, image_root_uri: str | None) -> Iterable[pa.Table]:
    try:
        document = json.loads(storage.read_bytes(uri))
    except NotFoundError as error:
        raise InputError("--images", "does not exist", uri) from error
    except (ValueError, RecursionError) as error:
        raise InputError("--images", f"is not JSON: {error}", uri) from error
    if is_inventory(document):
        return read_inventory(document, uri)
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise InputError("--images", "is neither a COCO file nor an S3 Inventory manifest", uri)
    if image_root_uri is None:
        raise InputError("--image-root", "must say where the images of a COCO file lie", uri)
    return [_list_coco(document["images"], uri, storage.normalise(image_root_uri))]


def _list_coco(images: list[Any], uri: str, root_uri: str) -> pa.Table:
    """Find the files of a COCO document; one that is missing gets an empty etag, and later a row ``not_found``."""
    records = Records(images, "images", "image", uri)
    image_ids = records.whole_numbers("id")
    names = records.texts("file_name")
    for place, name in enumerate(names):
        if not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name):
            records.refuse(place, "file_name", f"must be Unicode text, got {name!r:.200}")
    uris = pa.array([safe_join(root_uri, name) for name in names], pa.string())
    listed = _list_only(root_uri, uris)
    found = listed.take(pc.index_in(uris, value_set=listed["image_uri"]))
    return pa.table(
        {
            "image_uri": uris,
            "etag": pc.fill_null(found["etag"], ""),
            "size": pc.fill_null(found["size"], 0),
            "last_modified": found["last_modified"],
            "image_id": pa.array(image_ids),
        }
    )


def _list_only(root_uri: str, uris: pa.Array) -> pa.Table:
    """List a folder, and keep what is among ``uris``: it may hold far more."""
    kept: list[pa.Table] = []
    waiting: list[pa.Table] = []
    num_waiting = 0
    for listed in _to_tables(storage.list_batches(root_uri)):
        waiting.append(listed)
        num_waiting += len(listed)
        if num_waiting > len(uris):  # looked up together: each time costs a table of all ``uris``
            kept.append(_among(waiting, uris))
            waiting, num_waiting = [], 0
    return pa.concat_tables([*kept, _among(waiting, uris)])


def _among(tables: list[pa.Table], uris: pa.Array) -> pa.Table:
    listed = pa.concat_tables([LISTED_SCHEMA.empty_table(), *tables])
    return listed.filter(pc.is_in(listed["image_uri"], value_set=uris))
