"""Reading and writing HTTP/1.1 messages, whole, as a proxy needs them."""

from __future__ import annotations

import asyncio
import http
from dataclasses import dataclass

MAX_HEAD_BYTES = 1 << 20
_OF_ONE_CONNECTION = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "expect"})
"""Headers about the connection that a message came by; they do not travel on."""


@dataclass(frozen=True)
class Message:
    """A request or an answer, its body read to the end and without chunks."""

    first_line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def wants_to_close(self) -> bool:
        return self.header("connection").lower() == "close" or "HTTP/1.0" in self.first_line

    def method_and_target(self) -> tuple[str, str]:
        method, target, _ = self.first_line.split(" ", 2)
        return method, target

    def head(self, *, length: str | None) -> bytes:
        """Give the bytes of the head, for a body of ``length`` bytes; None: without that header."""
        kept = [
            (key, value)
            for key, value in self.headers
            if key.lower() not in _OF_ONE_CONNECTION and key.lower() != "content-length"
        ]
        if length is not None:
            kept.append(("Content-Length", length))
        first_line = self.first_line.replace("HTTP/1.0", "HTTP/1.1")
        return "\r\n".join([first_line, *(f"{key}: {value}" for key, value in kept), "", ""]).encode("latin-1")


def build_answer(status: int, body: bytes = b"", content_type: str = "application/xml") -> Message:
    """Give an answer of the proxy's own."""
    return Message(f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", (("Content-Type", content_type),), body)


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Message | None:
    """Read the next request of a connection; None when there is none left."""
    try:
        head = await _read_head(reader)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    if head.header("expect").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
    return await _with_body(head, reader, ends_with_connection=False)


async def read_answer(reader: asyncio.StreamReader, method: str) -> Message:
    """Read the answer to a request, past any 1xx before it."""
    while (head := await _read_head(reader)) and (status := int(head.first_line.split(" ")[1])) < 200:
        pass
    if method == "HEAD" or status in (204, 304):
        return head
    return await _with_body(head, reader, ends_with_connection=True)


async def _read_head(reader: asyncio.StreamReader) -> Message:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    headers = tuple((key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines[1:]))
    return Message(lines[0], headers, b"")


async def _with_body(head: Message, reader: asyncio.StreamReader, *, ends_with_connection: bool) -> Message:
    length = head.header("content-length")
    if "chunked" in head.header("transfer-encoding").lower():
        body = await _read_chunks(reader)
    elif length:
        body = await reader.readexactly(int(length))
    else:
        body = await reader.read() if ends_with_connection else b""
    return Message(head.first_line, head.headers, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while (await reader.readuntil(b"\r\n")) != b"\r\n":
        pass  # trailers
    return b"".join(chunks)
