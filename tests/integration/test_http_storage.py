"""Images behind HTTP: where redirects and names must not lead, what a failing server may cost, and how it is named."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from maskrcnn import storage
from maskrcnn.errors import AccessError, NotFoundError, StorageError, UnavailableError
from maskrcnn.storage import outages, retries
from tests.http_server import BODY, Server, serve_images

MUST_NOT = "must not lead to an address of this network's own services"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve_images() as server:
        yield server


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the hosts to which a connection is tried."""
    hosts: list[str] = []
    connect = asyncio.selector_events.BaseSelectorEventLoop.sock_connect

    async def note(loop: Any, sock: socket.socket, address: tuple[Any, ...]) -> None:
        hosts.append(address[0])
        await connect(loop, sock, address)

    monkeypatch.setattr(asyncio.selector_events.BaseSelectorEventLoop, "sock_connect", note)
    return hosts


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(outages, "FRESH_S", 0.0)


def ways_to_read(uri: str) -> list[Callable[[], object]]:
    return [
        lambda: storage.read_bytes(uri),
        lambda: storage.read_object(uri, "etag", len(BODY)),
        lambda: storage.stat(uri),
        lambda: storage.exists(uri),
        lambda: storage.open_input(uri),
    ]


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/iam/",
        "//169.254.170.2/v2",
        "http://[::ffff:169.254.169.254]/",
        "https://100.100.100.200/",
    ],
)
def test_a_redirect_to_a_machines_own_services_is_not_followed(
    server: Server, connected: list[str], target: str
) -> None:
    server.redirects["/a.jpg"] = target
    for read in ways_to_read(f"{server.root}/a.jpg"):
        with pytest.raises(AccessError, match=MUST_NOT):
            read()
    assert set(connected) == {"127.0.0.1"}


@pytest.mark.parametrize("target", ["http://2852039166/", "http://0xa9.0xfe.0xa9.0xfe/", "file:///etc/passwd"])
def test_a_redirect_to_a_strange_address_is_not_followed(server: Server, connected: list[str], target: str) -> None:
    server.redirects["/a.jpg"] = target
    for read in ways_to_read(f"{server.root}/a.jpg"):
        with pytest.raises(StorageError):
            read()
    assert set(connected) == {"127.0.0.1"}


@pytest.mark.parametrize("address", ["169.254.169.254", "168.63.129.16"])
def test_a_name_that_leads_to_a_machines_own_services_is_not_reached(
    server: Server, connected: list[str], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolve = socket.getaddrinfo

    def rebound(host: str, *more: Any, **options: Any) -> Any:
        return resolve(address if host == "images.example" else host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    server.redirects["/a.jpg"] = "http://images.example/a.jpg"
    for uri in ("http://images.example/a.jpg", f"{server.root}/a.jpg"):
        for read in ways_to_read(uri):
            with pytest.raises(AccessError, match=MUST_NOT):
                read()
    assert set(connected) == {"127.0.0.1"}


def test_other_redirects_are_followed(server: Server) -> None:
    server.redirects["/a.jpg"] = "/b.jpg"
    assert storage.read_bytes(f"{server.root}/a.jpg") == BODY
    assert storage.stat(f"{server.root}/a.jpg").size == len(BODY)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_fails_does_not_say_that_nothing_is_there(server: Server, status: int) -> None:
    server.statuses["HEAD /a.jpg"] = [status]
    with pytest.raises(UnavailableError):
        storage.exists(f"{server.root}/a.jpg")


def test_what_is_there_and_what_is_not_are_told_apart(server: Server) -> None:
    server.statuses["HEAD /none.jpg"] = [404]
    assert storage.exists(f"{server.root}/a.jpg")
    assert not storage.exists(f"{server.root}/none.jpg")
    assert server.requests == [("HEAD", "/a.jpg"), ("HEAD", "/none.jpg")]
    with pytest.raises(NotFoundError):
        storage.stat(f"{server.root}/none.jpg")


def test_a_folder_is_no_object() -> None:
    storage.put("memory://folder/a.txt", b"a")
    assert storage.exists("memory://folder/a.txt")
    assert not storage.exists("memory://folder")
    with storage.open_input("memory://folder/a.txt") as file:
        assert file.read() == b"a"


@pytest.mark.parametrize("failing", [("HEAD",), ("GET",), ("HEAD", "GET")])
def test_an_object_that_is_unavailable_for_ever_costs_eight_requests(server: Server, failing: tuple[str, ...]) -> None:
    good, bad = f"{server.root}/good.jpg", f"{server.root}/a.jpg"
    for method in failing:
        server.statuses[f"{method} /a.jpg"] = [503]
    storage.read_bytes(good)
    with pytest.raises(UnavailableError):
        storage.read_object(bad, f"{len(BODY)}-0", len(BODY))
    assert 5 <= [path for _, path in server.requests].count("/a.jpg") <= 8


@pytest.mark.parametrize("status", [400, 403, 405, 501])
def test_servers_that_refuse_head_are_asked_by_get(server: Server, status: int) -> None:
    server.statuses["HEAD /a.jpg"] = [status]
    assert storage.stat(f"{server.root}/a.jpg").size == len(BODY)


def test_reads_of_an_open_file_are_tried_again(server: Server) -> None:
    with storage.open_input(f"{server.root}/a.jpg") as file:
        server.statuses["GET /a.jpg"] = [503, 503, 200]
        file.seek(-300, io.SEEK_END)
        assert file.read(100) == BODY[-300:-200]
        assert file.read() == BODY[-200:]
        file.seek(0)
        assert file.read() == BODY


@pytest.mark.parametrize(("status", "error"), [(404, StorageError), (403, AccessError), (503, UnavailableError)])
def test_failures_of_an_open_file_have_names(server: Server, status: int, error: type[StorageError]) -> None:
    uri = f"{server.root}/a.jpg"
    with storage.open_input(uri) as file:
        server.statuses["GET /a.jpg"] = [status]
        with pytest.raises(error) as caught:
            file.read(10)
        assert caught.value.uri == uri


def test_a_file_that_became_shorter_does_not_seem_to_end(server: Server) -> None:
    with storage.open_input(f"{server.root}/a.jpg") as file:
        server.statuses["GET /a.jpg"] = [416]
        with pytest.raises(StorageError, match="became shorter"):
            file.read(10)
