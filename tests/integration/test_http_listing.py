"""Images behind HTTP as a manifest lists them: which version there is, what is not told, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maskrcnn import read_predictions, storage
from maskrcnn.config import LabelConfig
from maskrcnn.errors import (
    AccessError,
    InputError,
    NoBucketError,
    NotFoundError,
    OutageError,
    StorageError,
    StorageTimeout,
    UnavailableError,
)
from maskrcnn.labelling import versions
from maskrcnn.labelling.job import LabellingJob, label_images
from maskrcnn.labelling.listing import list_manifest
from maskrcnn.labelling.plan import NO_DATE
from maskrcnn.storage import ObjectMeta
from tests.http_server import BODY, Server, serve_images
from tests.planning import to_table

SUNDAY, MONDAY = "Sun, 22 Nov 2026 23:30:00 GMT", "Mon, 23 Nov 2026 10:00:00 GMT"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve_images() as server:
        yield server


@pytest.fixture
def list_uris(tmp_path: Path) -> Any:
    def list_uris(uris: list[str], columns: dict[str, Any] | None = None, **options: Any) -> list[dict[str, Any]]:
        pq.write_table(pa.table({"image_uri": uris, **(columns or {})}), tmp_path / "m.parquet")
        rows: list[dict[str, Any]] = to_table(list_manifest(str(tmp_path / "m.parquet"), **options)).to_pylist()
        return rows

    return list_uris


def read(row: dict[str, Any]) -> bytes:
    return storage.read_object(row["image_uri"], row["etag"], row["size"])


def test_another_body_of_the_same_length_is_another_version(server: Server, list_uris: Any) -> None:
    server.headers["/a.jpg"] = {"Last-Modified": SUNDAY}
    (first,) = list_uris([f"{server.root}/a.jpg"], date_from="last-modified")
    assert read(first) == BODY
    server.headers["/a.jpg"] = {"Last-Modified": MONDAY}
    server.bodies["/a.jpg"] = BODY[::-1]
    (second,) = list_uris([f"{server.root}/a.jpg"], date_from="last-modified")
    assert first["etag"] != second["etag"]
    assert (first["date"], second["date"]) == ("2026-11-22", "2026-11-23")
    with pytest.raises(NotFoundError, match="changed since it was listed"):
        read(first)


@pytest.mark.parametrize("headers", [{}, {"Last-Modified": "yesterday"}, {"Last-Modified": "Mon, 99 Nov 2026"}])
def test_an_image_whose_time_is_not_told_has_no_date(server: Server, list_uris: Any, headers: dict[str, str]) -> None:
    server.headers["/a.jpg"] = headers
    (row,) = list_uris([f"{server.root}/a.jpg"], date_from="last-modified")
    assert (row["date"], row["etag"]) == (NO_DATE, f"{len(BODY)}-0")
    assert read(row) == BODY


@pytest.mark.parametrize(
    ("headers", "etag"),
    [({}, ""), ({"ETag": '"v1"'}, "v1"), ({"Last-Modified": MONDAY}, "-1-1795428000000000000")],
)
def test_an_image_whose_length_is_not_told_is_read(
    server: Server, list_uris: Any, headers: dict[str, str], etag: str
) -> None:
    server.without_length.add("/a.jpg")
    server.headers["/a.jpg"] = headers
    server.headers["/b.jpg"] = {"ETag": '"b"'}
    unknown, known = list_uris([f"{server.root}/a.jpg", f"{server.root}/b.jpg"])
    assert (unknown["etag"], unknown["size"]) == (etag, storage.UNKNOWN_SIZE)
    assert read(unknown) == BODY
    assert read(known) == BODY


def test_sizes_that_are_not_told_count_nothing(server: Server, tmp_path: Path) -> None:
    server.without_length.add("/a.jpg")
    pq.write_table(pa.table({"image_uri": [f"{server.root}/a.jpg", f"{server.root}/b.jpg"]}), tmp_path / "m.parquet")
    assert list_manifest(str(tmp_path / "m.parquet")).num_bytes == len(BODY)


@pytest.mark.parametrize(
    ("served", "listed"), [('"v1"', ""), ('"v1"', "v1"), ('"v1"', 'W/"v1"'), ('W/"v1"', "v1"), ('W/"v1"', 'W/"v1"')]
)
def test_versions_that_a_manifest_gives_get_through(server: Server, list_uris: Any, served: str, listed: str) -> None:
    server.headers["/a.jpg"] = {"ETag": served}
    (row,) = list_uris([f"{server.root}/a.jpg"], {"etag": [listed], "size": [len(BODY)]})
    assert read(row) == BODY


def test_another_version_than_a_manifest_gives_does_not(server: Server, list_uris: Any) -> None:
    server.headers["/a.jpg"] = {"ETag": '"v2"'}
    (row,) = list_uris([f"{server.root}/a.jpg"], {"etag": ["v1"], "size": [len(BODY)]})
    with pytest.raises(NotFoundError, match="changed since it was listed"):
        read(row)


def test_a_folders_page_of_links_is_listed_without_versions_and_read(server: Server) -> None:
    server.bodies["/photos"] = b'<html><a href="a.jpg">a</a> <a href="b.jpg">b</a></html>'
    server.headers["/photos"] = {"Content-Type": "text/html"}
    listed = to_table(list_manifest(f"{server.root}/photos/")).to_pylist()
    assert [row["image_uri"] for row in listed] == [f"{server.root}/photos/{name}.jpg" for name in "ab"]
    assert [read(row) for row in listed] == [BODY, BODY]


@pytest.mark.parametrize(("status", "error"), [(403, AccessError), (418, StorageError)])
def test_an_image_that_is_refused_is_listed_without_a_version(
    server: Server, list_uris: Any, status: int, error: type[StorageError]
) -> None:
    server.statuses["HEAD /b.jpg"] = server.statuses["GET /b.jpg"] = [status]
    good, refused = list_uris([f"{server.root}/a.jpg", f"{server.root}/b.jpg"])
    assert read(good) == BODY
    assert (refused["etag"], refused["size"]) == ("", storage.UNKNOWN_SIZE)
    with pytest.raises(error):
        read(refused)


@pytest.mark.parametrize("status", [403, 418])
def test_images_that_are_all_refused_are_one_clear_line(server: Server, list_uris: Any, status: int) -> None:
    for name in "abc":
        server.statuses[f"HEAD /{name}.jpg"] = server.statuses[f"GET /{name}.jpg"] = [status]
    server.statuses["HEAD /c.jpg"] = [404]
    with pytest.raises(InputError, match=f"all 2 are refused: .*{status}.*; see the credentials"):
        list_uris([f"{server.root}/{name}.jpg" for name in "abc"])


def test_many_refusals_end_a_listing_early(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "MANY_REFUSED", 2)
    uris = [f"{server.root}/{place}.jpg" for place in range(8)]
    for uri in uris:
        server.statuses[f"HEAD /{uri.rsplit('/', 1)[1]}"] = server.statuses[f"GET /{uri.rsplit('/', 1)[1]}"] = [403]
    pq.write_table(pa.table({"image_uri": uris}), tmp_path / "m.parquet", row_group_size=1)
    with pytest.raises(InputError, match="all 2 are refused"):
        list_manifest(str(tmp_path / "m.parquet"))
    assert {path for _, path in server.requests} == {"/0.jpg", "/1.jpg"}


@pytest.mark.parametrize("error", [OutageError, UnavailableError, StorageTimeout, NoBucketError])
def test_a_store_that_is_away_still_ends_a_listing(
    list_uris: Any, monkeypatch: pytest.MonkeyPatch, error: type[StorageError]
) -> None:
    def stat(uri: str) -> ObjectMeta:
        if uri.endswith("b.jpg"):
            raise error(uri, "gone fishing")
        return ObjectMeta(uri, "etag", 5, None)

    monkeypatch.setattr(storage, "stat", stat)
    with pytest.raises((StorageError, InputError), match="gone fishing"):
        list_uris(["s3://bucket/a.jpg", "s3://bucket/b.jpg"])


def test_a_job_has_a_row_for_every_image_that_a_server_gives_or_refuses(
    server: Server, tiny_bundle: str, local_ray: None, tmp_path: Path
) -> None:
    with io.BytesIO() as file:
        Image.new("RGB", (40, 30), "red").save(file, "PNG")
        body = file.getvalue()
    names = ("plain", "streamed", "refused", "missing")
    for name in names:
        server.bodies[f"/{name}.png"] = body
    server.headers["/plain.png"] = {"Last-Modified": SUNDAY}
    server.without_length.add("/streamed.png")
    for name, status in (("refused", 403), ("missing", 404)):
        server.statuses[f"HEAD /{name}.png"] = server.statuses[f"GET /{name}.png"] = [status]
    pq.write_table(pa.table({"image_uri": [f"{server.root}/{name}.png" for name in names]}), tmp_path / "m.parquet")
    config = LabelConfig(
        tiny_bundle, str(tmp_path / "m.parquet"), str(tmp_path / "out"), num_actors=(1, 1), date_from="last-modified"
    )
    assert label_images(config).is_reconciled
    rows = {row["image_uri"].rsplit("/", 1)[1]: row for row in read_predictions(config.output_uri).to_pylist()}
    assert {name: (row["status"], row["error_kind"], row["width"]) for name, row in rows.items()} == {
        "plain.png": ("ok", None, 40),
        "streamed.png": ("ok", None, 40),
        "refused.png": ("error", "unavailable", None),
        "missing.png": ("error", "not_found", None),
    }
    assert "403" in rows["refused.png"]["error_message"]
    assert len(read_predictions(config.output_uri, dates=["2026-11-22"])) == 1
    # The next night: only the refused image, whose refusal may pass, is tried again.
    assert LabellingJob(config).dry_run().num_to_plan == 1
