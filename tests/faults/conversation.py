"""One client's connection through the fault proxy: each request answered by the server, by a fault, or by both."""

from __future__ import annotations

import asyncio
import enum
import random
import socket
import struct
from collections.abc import Callable

from tests.faults.messages import MAX_HEAD_BYTES, Message, build_answer, read_answer, read_request

SLOW_BYTES = 4
SLOW_PAUSE_S = 1.0
SLOW_DOWN_XML = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message><RequestId>0</RequestId></Error>"
)
INTERNAL_ERROR_XML = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InternalError</Code>'
    b"<Message>We encountered an internal error. Please try again.</Message><RequestId>0</RequestId></Error>"
)


class Fault(enum.Enum):
    """What can happen to one request."""

    SLOW_DOWN = "503 with S3's SlowDown"
    SERVER_ERROR = "500 with S3's InternalError"
    EMPTY_503 = "503 without a body, as load balancers answer"
    RESET_BEFORE = "a TCP reset before any answer"
    RESET_IN_BODY = "a TCP reset in the middle of the body"
    CLOSE_IN_BODY = "a clean close in the middle of the body"
    SHORT_BODY = "half the body, with a Content-Length that agrees"
    FLIPPED_BIT = "the body with one bit flipped"
    SLOW = "the body at a few bytes a second"
    STALLED = "the headers and half the body, then nothing"
    HUNG = "no answer at all"
    ERROR_PAGE = "200 with an S3 error document, without an ETag"
    LOST_ANSWER = "the server does as asked, and its answer gets lost"


class Conversation:
    """One client's connection, and the proxy's own to the server for it.

    Args:
        reader: from the client.
        writer: to the client.
        choose: given method and target of a request, says what happens to it, and gives the dice for the details.
        upstream_port: of the server on loopback.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        choose: Callable[[str, str], tuple[Fault | None, random.Random]],
        upstream_port: int,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._choose, self._upstream_port = choose, upstream_port
        self._upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self) -> None:
        try:
            while (request := await read_request(self._reader, self._writer)) is not None:
                method, target = request.method_and_target()
                fault, rng = self._choose(method, target)
                if not await self._answer(request, method, fault, rng) or request.wants_to_close():
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the two has gone
        finally:
            self._writer.close()
            self._forget_upstream()

    async def _answer(self, request: Message, method: str, fault: Fault | None, rng: random.Random) -> bool:
        """Answer a request; False when the connection ends with it."""
        match fault:
            case Fault.HUNG:
                await self._wait_for_the_client_to_go()
                return False
            case Fault.RESET_BEFORE:
                self._reset()
                return False
            case Fault.SLOW_DOWN:
                return await self._send(build_answer(503, SLOW_DOWN_XML), method)
            case Fault.SERVER_ERROR:
                return await self._send(build_answer(500, INTERNAL_ERROR_XML), method)
            case Fault.EMPTY_503:
                return await self._send(build_answer(503), method)
            case Fault.ERROR_PAGE:
                return await self._send(build_answer(200, INTERNAL_ERROR_XML), method)
        answer = await self._ask_upstream(request, method)
        if fault is Fault.LOST_ANSWER:
            return False
        if fault is Fault.SHORT_BODY:
            answer = _with_body(answer, answer.body[: len(answer.body) // 2])
        elif fault is Fault.FLIPPED_BIT and answer.body:
            answer = _with_body(answer, _flip_a_bit(answer.body, rng))
        if fault in (Fault.SLOW, Fault.STALLED, Fault.RESET_IN_BODY, Fault.CLOSE_IN_BODY) and answer.body:
            await self._send_in_part(answer, fault)
            return False
        return await self._send(answer, method)

    async def _ask_upstream(self, request: Message, method: str) -> Message:
        if self._upstream is not None and self._upstream[0].at_eof():
            self._forget_upstream()
        if self._upstream is None:
            self._upstream = await asyncio.open_connection("127.0.0.1", self._upstream_port, limit=MAX_HEAD_BYTES)
        reader, writer = self._upstream
        length = str(len(request.body)) if request.body else request.header("content-length") or None
        writer.write(request.head(length=length) + request.body)
        await writer.drain()
        answer = await read_answer(reader, method)
        if answer.wants_to_close():
            self._forget_upstream()
        return answer

    async def _send(self, answer: Message, method: str) -> bool:
        status = int(answer.first_line.split(" ")[1])
        if method == "HEAD":
            length: str | None = answer.header("content-length") or str(len(answer.body))
        else:
            length = None if status in (204, 304) else str(len(answer.body))
        self._writer.write(answer.head(length=length) + (b"" if method == "HEAD" else answer.body))
        await self._writer.drain()
        return True

    async def _send_in_part(self, answer: Message, fault: Fault) -> None:
        self._writer.write(answer.head(length=str(len(answer.body))))
        if fault is Fault.SLOW:
            for start in range(0, len(answer.body), SLOW_BYTES):
                self._writer.write(answer.body[start : start + SLOW_BYTES])
                await self._writer.drain()
                await asyncio.sleep(SLOW_PAUSE_S)
            return
        self._writer.write(answer.body[: len(answer.body) // 2])
        await self._writer.drain()
        if fault is Fault.STALLED:
            await self._wait_for_the_client_to_go()
        elif fault is Fault.RESET_IN_BODY:
            self._reset()

    async def _wait_for_the_client_to_go(self) -> None:
        while await self._reader.read(MAX_HEAD_BYTES):
            pass

    def _reset(self) -> None:
        client = self._writer.get_extra_info("socket")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def _forget_upstream(self) -> None:
        if self._upstream is not None:
            self._upstream[1].close()
            self._upstream = None


def _with_body(answer: Message, body: bytes) -> Message:
    return Message(answer.first_line, answer.headers, body)


def _flip_a_bit(body: bytes, rng: random.Random) -> bytes:
    flipped = bytearray(body)
    flipped[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    return bytes(flipped)
