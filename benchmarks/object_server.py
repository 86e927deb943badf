"""A fast stand-in for S3, in a process of its own: GET, HEAD and ListObjectsV2 of objects that lie in memory.

A few bodies serve all keys, so that a large bucket fits. Connections are kept alive; an answer can be held back, as the
10 to 50 ms are that a real store takes to its first byte. No signature is looked at.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

BUCKET = "images"
NUM_BODIES = 16
MODIFIED = "Mon, 02 Nov 2026 00:00:00 GMT"
PAGE_SIZE = 1000
PUMP_AT_BYTES = 1 << 20

_TARGET = re.compile(rb"(GET|HEAD) /" + BUCKET.encode() + rb"/?([^ ?]*)(?:\?([^ ]*))? HTTP/1.1\r\n")
_AFTER = re.compile(rb"continuation-token=(\d+)")


def key_of(place: int, size: int) -> str:
    """Name an object: its place and its size, from which the server knows its body."""
    return f"{size}/{place:06d}"


@dataclass(frozen=True)
class Body:
    """An object's bytes and its ETag, the MD5."""

    content: bytes
    etag: str


def build_bodies(sizes: list[int]) -> dict[str, list[Body]]:
    """Draw some random bodies of each size."""
    contents = {size: [os.urandom(size) for _ in range(NUM_BODIES)] for size in sizes}
    return {
        str(size): [Body(one, hashlib.md5(one, usedforsecurity=False).hexdigest()) for one in bodies]
        for size, bodies in contents.items()
    }


class Connection(asyncio.Protocol):
    """One client; requests are answered in turn, as HTTP/1.1 has them."""

    def __init__(self, bodies: dict[str, list[Body]], num_objects: int, latency_s: float) -> None:
        self._bodies, self._num_objects, self._latency_s = bodies, num_objects, latency_s
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport; large answers go out without a copy."""
        self._transport = transport
        transport.set_write_buffer_limits(high=PUMP_AT_BYTES)

    def data_received(self, data: bytes) -> None:
        """Answer every whole request; GET and HEAD have no body."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            request, self._received = self._received.split(b"\r\n\r\n", 1)
            if self._latency_s:
                asyncio.get_running_loop().call_later(self._latency_s, self._answer, request)
            else:
                self._answer(request)

    def _answer(self, request: bytes) -> None:
        target = _TARGET.match(request + b"\r\n")
        if target is None:
            self._send(405, b"", "")
        elif not target[2]:
            self._list(target[3] or b"")
        else:
            self._send_object(target[2].decode(), with_body=target[1] == b"GET")

    def _send_object(self, key: str, *, with_body: bool) -> None:
        size, _, place = key.partition("/")
        if size not in self._bodies or not place.isdigit() or int(place) >= self._num_objects:
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>", "")
            return
        body = self._bodies[size][int(place) % NUM_BODIES]
        self._send(200, body.content, f'ETag: "{body.etag}"\r\n', with_body=with_body)

    def _list(self, query: bytes) -> None:
        """List the keys under a prefix of one size, a page at a time."""
        size = re.search(rb"prefix=(\d+)", query)
        after = _AFTER.search(query)
        first = int(after[1]) if after else 0
        bodies = self._bodies[size[1].decode()] if size else []
        places = range(first, min(first + PAGE_SIZE, self._num_objects if bodies else 0))
        entries = "".join(
            f'<Contents><Key>{key_of(place, len(body.content))}</Key><ETag>"{body.etag}"</ETag>'
            f"<Size>{len(body.content)}</Size><LastModified>2026-11-02T00:00:00.000Z</LastModified></Contents>"
            for place in places
            for body in [bodies[place % NUM_BODIES]]
        )
        is_more = bool(bodies) and places.stop < self._num_objects
        token = f"<NextContinuationToken>{places.stop}</NextContinuationToken>" if is_more else ""
        page = (
            f"<ListBucketResult><Name>{BUCKET}</Name><KeyCount>{len(places)}</KeyCount>"
            f"<IsTruncated>{str(is_more).lower()}</IsTruncated>{token}{entries}</ListBucketResult>"
        )
        self._send(200, page.encode(), "Content-Type: application/xml\r\n")

    def _send(self, status: int, body: bytes, headers: str, *, with_body: bool = True) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nLast-Modified: {MODIFIED}\r\n{headers}\r\n"
        self._transport.writelines([head.encode(), body] if with_body else [head.encode()])


async def _serve(port_pipe: Any, sizes: list[int], num_objects: int, latency_s: float) -> None:
    bodies = build_bodies(sizes)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(bodies, num_objects, latency_s), "127.0.0.1", 0, backlog=1024)
    port_pipe.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _run(*arguments: Any) -> None:
    asyncio.run(_serve(*arguments))


@contextmanager
def object_server(sizes: list[int], num_objects: int, latency_s: float) -> Iterator[str]:
    """Serve ``num_objects`` objects of each size, and give the endpoint's URL."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=_run, args=(theirs, sizes, num_objects, latency_s), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        server.terminate()
        server.join()
