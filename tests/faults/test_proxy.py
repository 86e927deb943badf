"""Each fault is what it says, as a plain HTTP client sees it."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from maskrcnn import storage
from maskrcnn.storage import PutAnswer
from tests.conftest import s3_client
from tests.faults.proxy import Fault, FaultProxy, Rule

BODY = bytes(range(256)) * 40


class _Shelf(BaseHTTPRequestHandler):
    """A server that keeps what is put, and speaks HTTP/1.1."""

    protocol_version = "HTTP/1.1"
    port: ClassVar[int]
    objects: ClassVar[dict[str, bytes]]
    connections: ClassVar[set[tuple[str, int]]]

    def do_GET(self) -> None:
        self.connections.add(self.client_address)
        body = self.objects.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("ETag", '"etag"')
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body or b"")

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.objects["/host"] = self.headers["Host"].encode()
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True
    block_on_close = False


@pytest.fixture
def shelf() -> Iterator[type[_Shelf]]:
    class Shelf(_Shelf):
        objects: ClassVar = {"/a.jpg": BODY, "/b.jpg": BODY, "/chunked": b""}
        connections: ClassVar = set()

    server = _Server(("127.0.0.1", 0), Shelf)
    Shelf.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Shelf
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def proxy(shelf: type[_Shelf]) -> Iterator[FaultProxy]:
    with FaultProxy(shelf.port, seed=7) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=2)
    yield connection
    connection.close()


def ask(client: http.client.HTTPConnection, path: str = "/a.jpg", method: str = "GET") -> tuple[int, bytes]:
    client.request(method, path)
    answer = client.getresponse()
    return answer.status, answer.read()


def test_without_rules_everything_passes_over_one_connection_each_way(
    client: http.client.HTTPConnection, shelf: type[_Shelf]
) -> None:
    for _ in range(3):
        assert ask(client) == (200, BODY)
    assert ask(client, method="HEAD") == (200, b"")
    assert ask(client, "/chunked") == (200, b"abcde")
    assert ask(client, "/nothing") == (404, b"")
    assert len(shelf.connections) == 1


def test_bodies_go_up_whole_with_a_length_in_chunks_or_after_a_100(
    client: http.client.HTTPConnection, proxy: FaultProxy, shelf: type[_Shelf]
) -> None:
    client.request("PUT", "/up", BODY, {"Host": "signed.example"})
    answer = client.getresponse()
    assert (answer.status, answer.read(), shelf.objects["/up"]) == (204, b"", BODY)
    assert shelf.objects["/host"] == b"signed.example"
    client.request("PUT", "/chunks", iter([b"one", b"two"]), encode_chunked=True)
    assert (client.getresponse().read(), shelf.objects["/chunks"]) == (b"", b"onetwo")
    with socket.create_connection(("127.0.0.1", int(proxy.endpoint.rsplit(":", 1)[1])), 2) as raw:
        raw.sendall(b"PUT /later HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert raw.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b"later")
        assert raw.recv(1000).startswith(b"HTTP/1.1 204")
    assert shelf.objects["/later"] == b"later"


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (Fault.SLOW_DOWN, 503, b"<Code>SlowDown</Code>"),
        (Fault.SERVER_ERROR, 500, b"<Code>InternalError</Code>"),
        (Fault.ERROR_PAGE, 200, b"<Code>InternalError</Code>"),
        (Fault.EMPTY_503, 503, b""),
    ],
)
def test_an_answer_of_an_ill_store_never_reaches_it_and_keeps_the_connection(
    client: http.client.HTTPConnection, proxy: FaultProxy, shelf: type[_Shelf], fault: Fault, status: int, text: bytes
) -> None:
    proxy.add(Rule(fault, times=1))
    client.request("GET", "/a.jpg")
    answer = client.getresponse()
    body = answer.read()
    assert (answer.status, answer.headers["ETag"]) == (status, None)
    assert text in body
    assert bool(body) == bool(text)
    assert not shelf.connections
    assert ask(client) == (200, BODY)


def test_a_reset_comes_before_any_answer(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.add(Rule(Fault.RESET_BEFORE, times=1))
    with pytest.raises(ConnectionResetError):
        ask(client)


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Fault.RESET_IN_BODY, ConnectionResetError), (Fault.CLOSE_IN_BODY, http.client.IncompleteRead)],
)
def test_a_body_breaks_off(
    client: http.client.HTTPConnection, proxy: FaultProxy, fault: Fault, error: type[Exception]
) -> None:
    proxy.add(Rule(fault))
    client.request("GET", "/a.jpg")
    with pytest.raises(error):
        client.getresponse().read()


def test_a_body_is_short_or_has_one_other_bit_and_says_nothing_of_it(
    client: http.client.HTTPConnection, proxy: FaultProxy
) -> None:
    proxy.add(Rule(Fault.SHORT_BODY, times=1))
    assert ask(client) == (200, BODY[: len(BODY) // 2])
    proxy.clear()
    proxy.add(Rule(Fault.FLIPPED_BIT, times=1))
    status, body = ask(client)
    assert (status, len(body)) == (200, len(BODY))
    assert sum((one ^ other).bit_count() for one, other in zip(body, BODY, strict=True)) == 1


@pytest.mark.parametrize(("fault", "num_bytes"), [(Fault.STALLED, len(BODY) // 2), (Fault.SLOW, 4)])
def test_a_body_stalls_or_trickles(
    proxy: FaultProxy, client: http.client.HTTPConnection, fault: Fault, num_bytes: int
) -> None:
    proxy.add(Rule(fault))
    client.timeout = 0.3
    client.request("GET", "/a.jpg")
    answer = client.getresponse()
    assert answer.headers["Content-Length"] == str(len(BODY))
    assert answer.read(num_bytes) == BODY[:num_bytes]
    with pytest.raises(TimeoutError):
        answer.read(1)


def test_a_hung_request_gets_no_answer_at_all(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    proxy.add(Rule(Fault.HUNG))
    client.timeout = 0.3
    with pytest.raises(TimeoutError):
        ask(client)


def test_a_lost_answer_is_to_a_request_that_was_done(
    client: http.client.HTTPConnection, proxy: FaultProxy, shelf: type[_Shelf]
) -> None:
    proxy.add(Rule(Fault.LOST_ANSWER, "PUT"))
    client.request("PUT", "/up", b"done")
    with pytest.raises(http.client.RemoteDisconnected):
        client.getresponse()
    assert shelf.objects["/up"] == b"done"


def test_rules_strike_where_and_as_often_as_they_say(client: http.client.HTTPConnection, proxy: FaultProxy) -> None:
    rule = proxy.add(Rule(Fault.EMPTY_503, key=r"b\.jpg$", query="^part=", times=2))
    for path in ("/a.jpg", "/b.jpg", "/b.jpg?part=1", "/b.jpg?part=2", "/b.jpg?part=3"):
        ask(client, path)
    assert [one.fault for one in proxy.requests] == [None, None, Fault.EMPTY_503, Fault.EMPTY_503, None]
    assert (rule.num_applied, proxy.count("GET", "/b"), proxy.count(fault=Fault.EMPTY_503)) == (2, 4, 2)
    later = proxy.add(Rule(Fault.EMPTY_503, None))
    assert ask(client, method="HEAD")[0] == 503
    proxy.remove(later)
    assert ask(client, method="HEAD")[0] == 200


def test_the_same_seed_strikes_the_same_requests_in_whatever_order_they_come(shelf: type[_Shelf]) -> None:
    def struck(paths: list[str]) -> set[str]:
        with FaultProxy(shelf.port, seed=3) as proxy:
            proxy.add(Rule(Fault.EMPTY_503, rate=0.2))
            with ThreadPoolExecutor(8) as pool:
                statuses = pool.map(lambda path: get(proxy, path), paths)
                return {path for path, status in zip(paths, statuses, strict=True) if status == 503}

    paths = [f"/{place}.jpg" for place in range(200)]
    assert struck(paths) == struck(paths[::-1])
    assert 20 < len(struck(paths)) < 60


def get(proxy: FaultProxy, path: str) -> int:
    connection = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=20)
    try:
        return ask(connection, path)[0]
    finally:
        connection.close()


def test_two_hundred_connections_at_once_are_served(proxy: FaultProxy, shelf: type[_Shelf]) -> None:
    proxy.add(Rule(Fault.HUNG, key="hung"))
    hung = [http.client.HTTPConnection(proxy.endpoint.removeprefix("http://")) for _ in range(100)]
    for one in hung:
        one.request("GET", "/hung")
    begin = time.monotonic()
    with ThreadPoolExecutor(100) as pool:
        assert set(pool.map(lambda _: get(proxy, "/a.jpg"), range(400))) == {200}
    assert time.monotonic() - begin < 10
    for one in hung:
        one.close()


def test_the_code_reaches_the_s3_server_through_it(faulty_s3: FaultProxy, bucket: str) -> None:
    uri = f"{bucket}/a b.bin"
    faulty_s3.add(Rule(Fault.SLOW_DOWN, None, key="a%20b", times=1))
    assert storage.put_if_absent(uri, b"first") is PutAnswer.CREATED
    assert storage.put_if_absent(uri, b"second") is PutAnswer.EXISTS
    assert storage.read_object(uri, storage.stat(uri).etag, 5) == b"first"
    assert storage.list_uris(bucket) == [uri]
    direct = s3_client(faulty_s3.upstream_endpoint)
    assert direct.get_object(Bucket=bucket.removeprefix("s3://"), Key="a b.bin")["Body"].read() == b"first"
    assert faulty_s3.count(fault=Fault.SLOW_DOWN) == 1
