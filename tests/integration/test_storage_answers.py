"""What each answer of an S3 server is taken for, as the client passes it on from a real socket."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from maskrcnn import storage
from maskrcnn.errors import AccessError, IntegrityError, MaskrcnnError, NotFoundError, StorageError, UnavailableError
from maskrcnn.storage import PutAnswer, retries
from maskrcnn.storage.object_store import ObjectStore

BODY = b"body"


class AnswerServer(ThreadingHTTPServer):
    """Gives the answers that it is told; where there is none left, it holds one object of four bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, list[tuple[int, str, dict[str, str]]]] = {}
        self.num_requests = 0

    def give(self, method: str, status: int, code: str, times: int = 1, **headers: str) -> None:
        self.answers.setdefault(method, []).extend([(status, code, headers)] * times)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: AnswerServer

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.num_requests += 1
        waiting = self.server.answers.get(self.command)
        if waiting:
            status, code, headers = waiting.pop(0)
            body = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode() if code else BODY
        else:
            status, body, headers = 200, BODY, {"ETag": f'"{hashlib.md5(BODY).hexdigest()}"'}
        if self.command == "PUT" and status == 200:
            body = b""
        self.send_response(status)
        for name, value in {**headers, "Last-Modified": "Thu, 26 Nov 2026 05:00:00 GMT"}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = _answer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[AnswerServer]:
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 0.001)
    with AnswerServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def uri() -> str:
    return f"s3://{uuid.uuid4().hex}/a.jpg"


REFUSED = [
    (403, "RequestTimeTooSkewed", AccessError, "clock is wrong; set it"),
    (400, "ExpiredToken", AccessError, "credentials have expired"),
    (403, "AccessDenied", AccessError, "may not do that"),
    (301, "PermanentRedirect", AccessError, "set AWS_REGION"),
    (400, "AuthorizationHeaderMalformed", AccessError, "set AWS_REGION"),
    (404, "NoSuchKey", NotFoundError, "no such object"),
    (404, "NoSuchBucket", NotFoundError, "no such bucket"),
    (416, "InvalidRange", StorageError, "InvalidRange"),
]


@pytest.mark.parametrize(("status", "code", "error", "words"), REFUSED)
def test_a_refusal_is_named_at_once_and_says_what_to_do(
    server: AnswerServer, uri: str, status: int, code: str, error: type[MaskrcnnError], words: str
) -> None:
    server.give("GET", status, code, times=9)
    with pytest.raises(error, match=words) as caught:
        storage.read_bytes(uri)
    assert server.num_requests == 1
    assert not isinstance(caught.value, UnavailableError)


PASSING = [
    (400, "RequestTimeout"),
    (400, "IncompleteBody"),
    (400, "BadDigest"),
    (408, ""),
    (429, "SlowDown"),
    (500, "InternalError"),
    (503, "SlowDown"),
]


@pytest.mark.parametrize(("status", "code"), PASSING)
def test_what_may_pass_is_tried_again(server: AnswerServer, uri: str, status: int, code: str) -> None:
    server.give("PUT", status, code)
    server.give("GET", status, code)
    storage.put(uri, BODY)
    assert storage.read_bytes(uri) == BODY
    assert server.num_requests == 4


def test_a_put_beside_another_is_not_taken_for_one_that_is_there(server: AnswerServer, uri: str) -> None:
    server.give("PUT", 409, "ConditionalRequestConflict", times=2)
    assert storage.put_if_absent(uri, BODY) is PutAnswer.CREATED
    server.give("PUT", 412, "PreconditionFailed")
    assert storage.put_if_absent(uri, BODY) is PutAnswer.EXISTS


def test_a_store_without_create_only_puts_is_asked_first(
    server: AnswerServer, uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.give("PUT", 501, "NotImplemented")
    assert storage.put_if_absent(uri, BODY) is PutAnswer.EXISTS
    server.give("PUT", 501, "NotImplemented")
    server.give("HEAD", 404, "")
    assert storage.put_if_absent(uri, BODY) is PutAnswer.CREATED
    assert "no create-only put" in caplog.text


def test_a_body_is_not_called_damaged_before_its_encryption_is_known(server: AnswerServer, uri: str) -> None:
    wrong = {"ETag": '"0cc175b9c0f1b6a831c399e269772661"'}
    server.give("GET", 200, "", times=4, **wrong)
    server.give("HEAD", 503, "SlowDown")
    server.give("HEAD", 200, "", x_amz_server_side_encryption="aws:kms", **wrong)
    assert storage.read_bytes(uri) == BODY
    server.give("HEAD", 404, "", times=2)
    with pytest.raises(IntegrityError):
        storage.read_bytes(uri)


def test_one_encrypted_object_does_not_end_the_checks_of_the_others(server: AnswerServer, uri: str) -> None:
    store = ObjectStore(uri.rsplit("/", 1)[0])
    encrypted = {"ETag": '"0cc175b9c0f1b6a831c399e269772661"', "x_amz_server_side_encryption": "aws:kms"}
    for _ in range(30):
        server.give("HEAD", 200, "", **encrypted)
        server.give("GET", 200, "", **encrypted)
        assert store.read(uri) == BODY
        assert store.read(uri) == BODY  # one that is not
    server.give("GET", 200, "", times=2, ETag='"0cc175b9c0f1b6a831c399e269772661"')
    with pytest.raises(IntegrityError):
        store.read(uri)


@pytest.mark.parametrize("etag", ["", hashlib.md5(BODY).hexdigest(), f'W/"{hashlib.md5(BODY).hexdigest()}"'])
def test_what_a_listing_does_not_tell_is_not_checked(server: AnswerServer, uri: str, etag: str) -> None:
    assert storage.read_object(uri, etag, storage.UNKNOWN_SIZE) == BODY
