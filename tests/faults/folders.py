"""What lies in an output, read straight from the disk or the bucket: nothing that could hide a fault."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import s3_client

UPLOADS_AT_ONCE = 10
"""As many connections as the client keeps."""
OF_THE_RUN = frozenset({"run_id", "labelled_at"})
"""Columns that differ from run to run."""


class Folder(Protocol):
    """A folder on disk or in a bucket; names are relative to it."""

    uri: str

    def names(self, below: str = "") -> list[str]: ...
    def read(self, name: str) -> bytes: ...
    def write(self, bodies: Mapping[str, bytes]) -> None: ...


class DiskFolder:
    """A folder on disk."""

    def __init__(self, path: Path) -> None:
        self.uri = str(path)
        self._path = path

    def names(self, below: str = "") -> list[str]:
        found = (path for path in (self._path / below).rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self._path)) for path in found)

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def write(self, bodies: Mapping[str, bytes]) -> None:
        for name, body in bodies.items():
            (self._path / name).parent.mkdir(parents=True, exist_ok=True)
            (self._path / name).write_bytes(body)


class BucketFolder:
    """A prefix of a bucket, reached around the faults.

    Args:
        uri: s3://bucket/prefix.
        endpoint: of the server itself.
    """

    def __init__(self, uri: str, endpoint: str) -> None:
        self.uri = uri
        self._bucket, self._prefix = uri.removeprefix("s3://").split("/", 1)
        self._client = s3_client(endpoint)

    def names(self, below: str = "") -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}/{below}"
        )
        keys = (one["Key"] for page in pages for one in page.get("Contents", ()))
        return sorted(key.removeprefix(f"{self._prefix}/") for key in keys)

    def read(self, name: str) -> bytes:
        body: bytes = self._client.get_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}")["Body"].read()
        return body

    def write(self, bodies: Mapping[str, bytes]) -> None:
        def upload(name: str) -> None:
            self._client.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}", Body=bodies[name])

        with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
            list(pool.map(upload, bodies))


def read_part(body: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(body))


def read_rows(output: Folder) -> list[dict[str, Any]]:
    """Read every row of every part, older ones and doubles included."""
    names = [name for name in output.names("table/") if name.endswith(".parquet")]
    return [row for name in names for row in read_part(output.read(name)).to_pylist()]


def count_by_image(rows: Iterable[dict[str, Any]], images: Folder) -> Counter[str]:
    """Count the rows of each image, by its name."""
    return Counter(row["image_uri"].removeprefix(f"{images.uri}/") for row in rows)


def comparable(rows: Iterable[dict[str, Any]]) -> list[tuple[tuple[str, str], ...]]:
    """Give rows in one order, without what differs from run to run."""
    return sorted(
        tuple((name, repr(value)) for name, value in sorted(row.items()) if name not in OF_THE_RUN) for row in rows
    )
