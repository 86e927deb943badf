"""A server of images over HTTP that answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BODY = bytes(range(256)) * 40


class Server(ThreadingHTTPServer):
    """Serves `BODY` at every path but those that are told to answer otherwise."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str]] = []
        self.redirects: dict[str, str] = {}
        self.statuses: dict[str, list[int]] = {}
        """By method, or method and path: each is the next request's; the last one stays."""
        self.bodies: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        """By path."""
        self.without_length: set[str] = set()
        """Paths."""

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.server.requests.append((self.command, self.path))
        statuses = self.server.statuses.get(f"{self.command} {self.path}") or [200]
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        target = self.server.redirects.get(self.path)
        whole = self.server.bodies.get(self.path, BODY)
        begin, end = 0, len(whole)
        if target is not None:
            status = 302
        elif status == 200 and (wanted := self.headers.get("Range")):
            status = 206
            begin, end = (int(bound) + one for one, bound in enumerate(wanted.removeprefix("bytes=").split("-")))
        body = whole[begin:end] if status < 300 else b""
        self.send_response(status)
        if self.path not in self.server.without_length:
            self.send_header("Content-Length", str(len(body)))
        if target is not None:
            self.send_header("Location", target)
        for name, value in self.server.headers.get(self.path, {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serve_images() -> Iterator[Server]:
    """Run a server while the block runs."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
