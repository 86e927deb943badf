"""What the network does to a bucket's answers is mended, or named, and never taken for content."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from maskrcnn import storage
from maskrcnn.errors import IntegrityError, NoBucketError, NotFoundError, StorageTimeout, UnavailableError
from maskrcnn.storage import PutAnswer, object_store, uploads
from maskrcnn.storage.buckets import Deadlines
from tests.conftest import s3_client
from tests.faults.proxy import Fault, FaultProxy, Rule

MENDED = [
    Fault.SLOW_DOWN,
    Fault.SERVER_ERROR,
    Fault.EMPTY_503,
    Fault.RESET_BEFORE,
    Fault.RESET_IN_BODY,
    Fault.CLOSE_IN_BODY,
    Fault.SHORT_BODY,
    Fault.FLIPPED_BIT,
    Fault.ERROR_PAGE,
]


@pytest.fixture
def proxy(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(int(os.environ["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]), seed=1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up after a second what is given up after nine."""
    monkeypatch.setattr(object_store, "READ_DEADLINES", Deadlines(idle_s=1, whole_s=60))
    monkeypatch.setattr(object_store, "PROBE_DEADLINES", Deadlines(idle_s=1, whole_s=1))


@pytest.mark.parametrize("fault", MENDED)
def test_a_fault_that_passes_is_not_noticed(proxy: FaultProxy, bucket: str, fault: Fault) -> None:
    uri, body = f"{bucket}/a.jpg", os.urandom(20_000)
    storage.put(uri, body)
    meta = storage.stat(uri)
    rule = proxy.add(Rule(fault, key="a.jpg", times=1))
    assert storage.read_object(uri, meta.etag, meta.size) == body
    proxy.add(Rule(fault, key="a.jpg", times=1))
    assert storage.read_bytes(uri) == body
    assert rule.num_applied == 1


@pytest.mark.parametrize("fault", [Fault.SHORT_BODY, Fault.FLIPPED_BIT])
def test_bytes_that_stay_wrong_are_refused(proxy: FaultProxy, bucket: str, fault: Fault) -> None:
    uri = f"{bucket}/a.jpg"
    storage.put(uri, os.urandom(20_000))
    meta = storage.stat(uri)
    proxy.add(Rule(fault, key="a.jpg"))
    with pytest.raises(IntegrityError):
        storage.read_object(uri, meta.etag, meta.size)
    with pytest.raises(IntegrityError):
        storage.read_bytes(uri)
    assert proxy.count("GET", "a.jpg") == 4


def test_an_object_that_is_never_answered_costs_few_requests(proxy: FaultProxy, bucket: str) -> None:
    for name in ("good.jpg", "bad.jpg"):
        storage.put(f"{bucket}/{name}", b"body")
    good, bad = (storage.stat(f"{bucket}/{name}") for name in ("good.jpg", "bad.jpg"))
    storage.read_object(good.uri, good.etag, good.size)
    proxy.add(Rule(Fault.SLOW_DOWN, key="bad.jpg"))
    begin = time.monotonic()
    with pytest.raises(UnavailableError):
        storage.read_object(bad.uri, bad.etag, bad.size)
    assert time.monotonic() - begin < 30
    assert proxy.count("GET", "bad.jpg") <= 8


@pytest.mark.usefixtures("impatient")
def test_an_object_that_stalls_is_a_timeout(proxy: FaultProxy, bucket: str) -> None:
    for name in ("good.jpg", "bad.jpg"):
        storage.put(f"{bucket}/{name}", os.urandom(20_000))
    good, bad = (storage.stat(f"{bucket}/{name}") for name in ("good.jpg", "bad.jpg"))
    storage.read_object(good.uri, good.etag, good.size)
    proxy.add(Rule(Fault.STALLED, key="bad.jpg"))
    with pytest.raises(StorageTimeout):
        storage.read_object(bad.uri, bad.etag, bad.size)
    assert proxy.count("GET", "bad.jpg") <= 8


def test_a_listing_goes_on_where_it_broke_off(proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"in/{place:04d}.jpg" for place in range(1203)]  # a page is a thousand
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda name: storage.put(f"{bucket}/{name}", b"x"), names))
    for fault in (Fault.SLOW_DOWN, Fault.ERROR_PAGE, Fault.RESET_IN_BODY, Fault.CLOSE_IN_BODY):
        for later in ("start-after|continuation-token", "list-type"):
            proxy.add(Rule(fault, query=later, times=1))
    assert storage.list_uris(f"{bucket}/in") == [f"{bucket}/{name}" for name in names]


def test_an_error_page_is_no_empty_folder(proxy: FaultProxy, bucket: str) -> None:
    storage.put(f"{bucket}/in/a.jpg", b"x")
    rule = proxy.add(Rule(Fault.ERROR_PAGE, query="list-type", times=1))
    assert storage.list_uris(f"{bucket}/in") == [f"{bucket}/in/a.jpg"]
    assert rule.num_applied == 1


def test_ranges_are_checked(proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "LARGE_ABOVE_BYTES", -1)
    uri, body = f"{bucket}/big", os.urandom(3_000_000)
    storage.put(uri, body)
    for fault in (Fault.SHORT_BODY, Fault.ERROR_PAGE, Fault.CLOSE_IN_BODY, Fault.SLOW_DOWN):
        with storage.open_input(uri) as file:
            rule = proxy.add(Rule(fault, key="big", times=1))
            file.seek(1_000_000)
            assert file.read(1_500_000) == body[1_000_000:2_500_000]
            assert rule.num_applied == 1
    with storage.open_input(uri) as file:
        storage.put(uri, os.urandom(3_000_000))
        with pytest.raises(IntegrityError, match="changed while it was being read"):
            file.read(10)


def test_puts_whose_answer_is_lost_are_there_once(proxy: FaultProxy, bucket: str) -> None:
    proxy.add(Rule(Fault.LOST_ANSWER, method="PUT", key="lost", times=1))
    assert storage.put_if_absent(f"{bucket}/lost", b"ours") is PutAnswer.EXISTS
    assert storage.read_bytes(f"{bucket}/lost") == b"ours"
    assert proxy.count("PUT", "lost") == 2


def test_an_upload_that_was_cut_off_is_thrown_away_by_the_next(
    proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "SINGLE_PUT_BYTES", 1000)
    client, name = s3_client(), bucket.removeprefix("s3://")
    for key in ("out.json", "out.json.other"):
        client.create_multipart_upload(Bucket=name, Key=key)
    body = os.urandom(17 << 20)
    for fault in (Fault.SLOW_DOWN, Fault.RESET_BEFORE):
        proxy.add(Rule(fault, method="PUT", key="out.json", times=1))
    with storage.open_output(f"{bucket}/out.json") as file:
        file.write(body)
    assert storage.read_bytes(f"{bucket}/out.json") == body
    left = [upload["Key"] for upload in client.list_multipart_uploads(Bucket=name)["Uploads"]]
    assert left == ["out.json.other"], "another's upload is not ours to throw away"


def test_a_bucket_that_disappears_is_named(proxy: FaultProxy, bucket: str) -> None:
    uri = f"{bucket}/a.jpg"
    storage.put(uri, b"body")
    meta = storage.stat(uri)
    client, name = s3_client(), bucket.removeprefix("s3://")
    client.delete_object(Bucket=name, Key="a.jpg")
    client.delete_bucket(Bucket=name)
    with pytest.raises(NoBucketError, match="no such bucket"):
        storage.read_object(uri, meta.etag, meta.size)
    with pytest.raises(NoBucketError, match="no such bucket"):
        storage.put_if_absent(uri, b"body")


def test_images_over_plain_http_are_no_worse_off(proxy: FaultProxy, bucket: str) -> None:
    client, name = s3_client(), bucket.removeprefix("s3://")
    client.put_bucket_acl(Bucket=name, ACL="public-read")
    client.put_object(Bucket=name, Key="a.jpg", Body=b"body", ACL="public-read")
    uri = f"{proxy.endpoint}/{bucket.removeprefix('s3://')}/a.jpg"
    meta = storage.stat(uri)
    for fault in (Fault.SLOW_DOWN, Fault.RESET_BEFORE, Fault.CLOSE_IN_BODY):
        proxy.add(Rule(fault, key="a.jpg", times=1))
        assert storage.read_object(uri, meta.etag, meta.size) == b"body"
    proxy.add(Rule(Fault.SLOW_DOWN, method=None, key="bad.jpg"))
    with pytest.raises(UnavailableError, match="503"):
        storage.stat(uri.replace("a.jpg", "bad.jpg"))
    with pytest.raises(NotFoundError):
        storage.stat(uri.replace("a.jpg", "absent.jpg"))
