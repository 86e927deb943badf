"""What others wrote is judged by its text alone: nothing is opened, not even a socket."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import NoReturn

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn import storage
from maskrcnn.errors import InputError
from maskrcnn.labelling.admission import check_rows
from maskrcnn.storage.outside import check_image_uri, is_metadata_host

REMOTE, LOCAL = "s3://lists/manifest.parquet", "/lists/manifest.parquet"

REFUSED = {
    "another scheme": [
        "ftp://host/a.jpg", "sftp://host/a.jpg", "ssh://host/a.jpg", "smb://host/share/a.jpg", "zip://a.jpg",
        "reference://a", "github://o:r@main/a.jpg", "jupyter://host/a", "hdfs://name/a", "memory://a", "data://x",
        "file:///etc/passwd", "FILE:///etc/passwd", "/etc/passwd", "a.jpg", "hf://datasets/x/a.jpg",
    ],
    "a chain of schemes": [
        "simplecache::s3://bucket/a.jpg", "zip://a.jpg::s3://bucket/a.zip", "blockcache::file:///etc/passwd",
        "http://host::file:///etc/passwd", "://a.jpg",
    ],
    "a folder above": [
        "s3://bucket/a/../b.jpg", "s3://bucket/..", "https://host/%2e%2e/a.jpg", "https://host/a/%2E./b.jpg",
        "s3://bucket/a/..\\b.jpg",
    ],
    "a NUL": ["s3://bucket/a\0.jpg", "https://host/a%00.jpg"],
    "no bucket": ["s3:///a.jpg", "s3://", "s3://evil.com:80/a.jpg", "gs://a b/c.jpg"],
    "credentials": ["s3://key:secret@bucket/a.jpg", "https://b/a.jpg?X-Amz-Signature=abc", "https://u:p4ss@host/a.jpg"],
    "a machine's own services": [
        "http://169.254.169.254/latest/meta-data/iam/", "http://169.254.169.254:80/", "https://169.254.170.2/v2",
        "http://2852039166/", "http://0xA9FEA9FE/", "http://0xa9.0xfe.0xa9.0xfe/", "http://0251.0376.0251.0376/",
        "http://169.254.43518/", "http://169.16689662/", "http://169.254.169.254./", "http://[::ffff:169.254.169.254]/",
        "http://[::ffff:a9fe:a9fe]:80/", "http://[0:0:0:0:0:ffff:a9fe:a9fe]/", "http://[::169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/", "http://[2002:a9fe:a9fe::1]/", "http://[fe80::1]/", "http://[FE80::1%25eth0]/",
        "http://[fd00:ec2::254]/", "http://metadata.google.internal/computeMetadata/v1/", "http://METADATA.google.Internal./",
        "http://metadata/", "http://x@169.254.169.254/a", "http://%31%36%39.254.169.254/",
        "http://①⑥⑨.254.169.254/", "http://169。254。169。254/", "http://100.100.100.200/", "http://168.63.129.16/",
        "abfs://c@169.254.169.254/a.jpg",
    ],
}  # fmt: skip

LET_IN = [
    "s3://bucket/a.jpg", "S3://bucket/2026/a b.jpg", "s3://metadata/a.jpg", "gs://bucket/a..b/..c.jpg",
    "az://container/a.jpg", "abfss://container@account.dfs.core.windows.net/a.jpg", "https://host:8443/a.jpg?b=c&d#e",
    "http://10.1.2.3/a.jpg", "http://169.253.1.1/a.jpg", "s3://bucket/what?#&%41.jpg", "s3://bucket/a::b.jpg",
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_sockets() -> Iterator[None]:
    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail("a socket was opened")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("socket", "create_connection", "getaddrinfo", "gethostbyname"):
            patch.setattr(socket, name, refuse)
        patch.setattr(storage, "_store", refuse)
        yield


@pytest.mark.parametrize(("why", "uri"), [(why, uri) for why, uris in REFUSED.items() for uri in uris])
def test_a_remote_manifest_must_not_name_these(why: str, uri: str) -> None:
    with pytest.raises(InputError, match="must ") as caught:
        check_rows(pa.table({"image_uri": ["s3://bucket/good.jpg", uri]}), REMOTE)
    assert caught.value.place == REMOTE
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", LET_IN)
def test_a_remote_manifest_may_name_these(uri: str) -> None:
    check_rows(pa.table({"image_uri": [uri]}), REMOTE)
    check_image_uri(uri, REMOTE)


def test_a_manifest_may_name_images_where_it_lies_itself() -> None:
    for uri in ("/photos/a.jpg", "photos/a.jpg", "file:///photos/a.jpg", "file://localhost/photos/a.jpg"):
        check_image_uri(uri, LOCAL)
    check_image_uri("hdfs://name/a.jpg", "hdfs://name/manifest.parquet")
    for uri in ("/photos/../secret", "../secret", "a\0.jpg", "file://other-host/a.jpg", "hdfs://name/a.jpg"):
        with pytest.raises(InputError, match="must "):
            check_image_uri(uri, LOCAL)


def test_credentials_are_refused_in_every_column_and_not_repeated() -> None:
    rows = pa.table({"image_uri": ["s3://b/a.jpg"], "link": ["https://b/a.jpg?X-Amz-Signature=0123abcd"], "n": [1]})
    with pytest.raises(InputError, match="manifest column link must hold no credentials") as caught:
        check_rows(rows, REMOTE)
    assert "0123abcd" not in str(caught.value)
    check_rows(
        pa.table({"image_uri": ["s3://b/a.jpg"], "shelf": ["a=b?c@d:e"], "none": pa.nulls(1, pa.string())}), REMOTE
    )


SECRET = "https://b/a.jpg?X-Amz-Signature=0123abcd"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([SECRET], pa.large_string()),
        pa.array([SECRET], pa.string_view()),
        pa.array([SECRET]).dictionary_encode(),
        pa.array([{"inner": {"link": SECRET}}]),
        pa.array([["fine", SECRET]]),
        pa.array([[SECRET]], pa.large_list(pa.string())),
        pa.array([[SECRET]], pa.list_(pa.string(), 1)),
        pa.array([[SECRET]], pa.list_view(pa.large_string())),
        pa.array([[("link", SECRET)]], pa.map_(pa.string(), pa.string())),
        pa.array([[(SECRET, 1)]], pa.map_(pa.string(), pa.int64())),
        pa.array([[{"link": SECRET}]]).slice(0, 1),
        pa.RunEndEncodedArray.from_arrays([1], [SECRET]),
        pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([SECRET])]),
        pa.array([json.dumps({"link": SECRET})], pa.json_()),
    ],
    ids=lambda column: str(column.type),
)
def test_credentials_are_refused_however_deep_they_lie(column: pa.Array) -> None:
    rows = pa.table({"image_uri": ["s3://b/a.jpg"], "extra": column})
    with pytest.raises(InputError, match="manifest column extra must hold no credentials") as caught:
        check_rows(rows, REMOTE)
    assert "0123abcd" not in str(caught.value)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["shelf=12/b"]).dictionary_encode(),
        pa.array([{"folder": "/photos/session_token=20240101xx/a.jpg", "n": 1}, None]),
        pa.array([[], None, ["a", None]]),
        pa.array([b"\xff=\x00"]),
        pa.array([1.5]),
        pa.nulls(1),
    ],
    ids=lambda column: str(column.type),
)
def test_columns_of_every_kind_are_let_in(column: pa.Array) -> None:
    check_rows(pa.table({"image_uri": ["s3://b/a.jpg"] * len(column), "extra": column}), REMOTE)


@pytest.mark.parametrize(
    "text",
    [
        "<SecretAccessKey>0123abcd</SecretAccessKey>",
        "X-Amz-Security-Token%3D0123abcd",
        "-----BEGIN PRIVATE KEY-----\n0123abcd",
        "authorization/basic 0123abcd0123abcd",
        "Bearer 0123abcd0123abcd",
        "the key AKIAIOSFODNN7EXAMPLE",
    ],
)
def test_secrets_of_every_kind_are_refused_in_columns(text: str) -> None:
    with pytest.raises(InputError, match="must hold no credentials"):
        check_rows(pa.table({"image_uri": ["s3://b/a.jpg"], "note": [text]}), REMOTE)


def test_no_uri_of_ours_may_hold_credentials() -> None:
    for uri in ("s3://key:secret@bucket/a", "https://b/a?X-Amz-Signature=0123abcd"):
        with pytest.raises(InputError, match="must hold no credentials, got .*…") as caught:
            storage.normalise(uri)
        assert "secret" not in str(caught.value)
        assert "0123abcd" not in str(caught.value)


LINK_LOCAL = st.integers(0xA9FE0000, 0xA9FEFFFF)


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """Spell a link-local address as C libraries and browsers understand it."""
    number = draw(LINK_LOCAL)
    if draw(st.booleans()):
        address = draw(st.sampled_from([0xFFFF << 32, 0x64FF9B << 96, 0])) | number
        return f"[{ipaddress.IPv6Address(address)}]"
    num_parts = draw(st.integers(1, 4))
    parts = [number >> (24 - 8 * place) & 0xFF for place in range(num_parts - 1)]
    parts.append(number & ((1 << (8 * (5 - num_parts))) - 1))
    ways = [lambda n: f"{n}", lambda n: f"{n:#x}", lambda n: f"0{n:o}", lambda n: f"0x{n:08X}"]
    return ".".join(draw(st.sampled_from(ways))(part) for part in parts)


@given(spellings(), st.sampled_from(["", ":80", "."]))
def test_link_local_addresses_are_known_however_they_are_spelt(host: str, end: str) -> None:
    assert is_metadata_host(host + ("" if end == "." and host.endswith("]") else end))


@given(st.integers(0, 2**32 - 1))
def test_other_addresses_are_not_refused(number: int) -> None:
    address = ipaddress.IPv4Address(number)
    if not address.is_link_local and str(address) not in ("100.100.100.200", "168.63.129.16", "192.0.0.192"):
        assert not is_metadata_host(str(address))


@given(st.sampled_from([*LET_IN, *(uri for some in REFUSED.values() for uri in some)]), st.text(max_size=8))
def test_the_quick_look_at_many_rows_lets_in_what_the_close_one_does(uri: str, more: str) -> None:
    def is_let_in(look: Callable[[], None]) -> bool:
        try:
            look()
        except InputError:
            return False
        return True

    for manifest_uri in (REMOTE, LOCAL):
        for one in (uri, uri + more):
            rows = pa.table({"image_uri": [one]})
            quick = is_let_in(partial(check_rows, rows, manifest_uri))
            assert quick == is_let_in(partial(check_image_uri, one, manifest_uri))
