"""An HTTP proxy that stands before the tests' S3 server and does to it what networks and stores do.

Runs in a thread of the test's own process. Whether a rule strikes a request is drawn from the seed, the rule, the
request's method and path, and how often that was asked before: the same faults come whatever the order of requests.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.faults.conversation import Conversation, Fault
from tests.faults.messages import MAX_HEAD_BYTES

__all__ = ["Fault", "FaultProxy", "Request", "Rule"]


@dataclass
class Rule:
    """Which requests meet a fault; the first rule that strikes is applied, alone."""

    fault: Fault
    method: str | None = "GET"
    """None: any."""
    key: str = ""
    """A regular expression that is searched in the path."""
    rate: float = 1.0
    times: int | None = None
    """It strikes no more often than this."""
    query: str = ""
    """A regular expression that is searched in the query."""
    num_applied: int = field(default=0, init=False)

    def matches(self, method: str, path: str, query: str) -> bool:
        return (
            (self.method is None or self.method == method)
            and (self.times is None or self.num_applied < self.times)
            and re.search(self.key, path) is not None
            and re.search(self.query, query) is not None
        )


@dataclass(frozen=True)
class Request:
    """A request as it came in."""

    method: str
    path: str
    query: str
    time_s: float
    """Of ``time.monotonic()``."""
    fault: Fault | None


class FaultProxy:
    """A proxy that runs while its ``with`` block does; everything but the block itself may be called by any thread.

    Args:
        upstream_port: of the server on loopback.
        seed: of all that is drawn.
    """

    def __init__(self, upstream_port: int, *, seed: int = 0) -> None:
        self.upstream_endpoint = f"http://127.0.0.1:{upstream_port}"
        self._upstream_port = upstream_port
        self._seed = seed
        self._port = 0
        self._rules: list[tuple[int, Rule]] = []
        self._num_rules = 0
        self._requests: list[Request] = []
        self._asked: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="fault proxy", daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        if not self._is_up.wait(10):
            raise RuntimeError("the proxy does not start")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def requests(self) -> list[Request]:
        """Give all requests so far."""
        with self._lock:
            return list(self._requests)

    def count(self, method: str | None = None, key: str = "", fault: Fault | None = None) -> int:
        """Count the requests so far; ``key`` is searched in the path, ``fault`` is the one that was met."""
        return sum(
            (method is None or one.method == method)
            and (fault is None or one.fault is fault)
            and re.search(key, one.path) is not None
            for one in self.requests
        )

    def add(self, rule: Rule) -> Rule:
        with self._lock:
            self._rules.append((self._num_rules, rule))
            self._num_rules += 1
        return rule

    def remove(self, rule: Rule) -> None:
        with self._lock:
            self._rules = [(number, one) for number, one in self._rules if one is not rule]

    def clear(self) -> None:
        """Take all rules away; what was counted stays."""
        with self._lock:
            self._rules = []

    def _choose(self, method: str, target: str) -> tuple[Fault | None, random.Random]:
        """Note a request, and draw what happens to it."""
        parts = urlsplit(target)
        with self._lock:
            self._asked[method, parts.path] += 1
            request_name = f"{self._seed} {method} {parts.path} {self._asked[method, parts.path]}"
            fault = None
            for number, rule in self._rules:
                if rule.matches(method, parts.path, parts.query) and (
                    rule.rate >= 1 or random.Random(f"{request_name} {number}").random() < rule.rate
                ):
                    rule.num_applied += 1
                    fault = rule.fault
                    break
            self._requests.append(Request(method, parts.path, parts.query, time.monotonic(), fault))
        return fault, random.Random(request_name)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._conversations: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(
            lambda reader, writer: self._keep(Conversation(reader, writer, self._choose, self._upstream_port).run()),
            "127.0.0.1",
            0,
            limit=MAX_HEAD_BYTES,
            backlog=1024,
        )
        self._port = server.sockets[0].getsockname()[1]
        self._is_up.set()
        await self._stop.wait()
        server.close()
        for task in self._conversations:
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    def _keep(self, conversation: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(conversation)
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)
