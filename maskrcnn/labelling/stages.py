"""Where the time of a part goes, and whose turn it is: what the threads of one actor share."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

STAGES = ("read", "decode", "predict", "put")


@dataclass(frozen=True)
class Span:
    """One piece of work."""

    stage: str
    begin: float
    """By `time.perf_counter`, s."""
    end: float
    thread: str


class StageSeconds:
    """The seconds of each stage of a part; those of reading and decoding are sums over threads.

    Args:
        keeps_spans: keep every piece of work too, for a picture.
    """

    def __init__(self, *, keeps_spans: bool = False) -> None:
        self.read = self.decode = self.predict = self.put = 0.0
        self.spans: list[Span] = []
        self._keeps_spans = keeps_spans
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float) -> None:
        """Add to one stage what has just ended, from any thread."""
        with self._lock:
            setattr(self, stage, getattr(self, stage) + seconds)
            if self._keeps_spans:
                end = time.perf_counter()
                self.spans.append(Span(stage, end - seconds, end, threading.current_thread().name))

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what happens inside to one stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - begin)


class ByteBudget:
    """Bounds the bytes that are held at once; an item larger than the whole budget goes through alone."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._num_waiting = 0
        self._is_abandoned = False
        self._changed = threading.Condition()

    @property
    def is_starved(self) -> bool:
        """Say whether somebody waits for bytes to be given back."""
        return self._num_waiting > 0

    def abandon(self) -> None:
        """Let everybody go on: who would give bytes back is no more."""
        with self._changed:
            self._is_abandoned = True
            self._changed.notify_all()

    def acquire(self, num_bytes: int) -> None:
        """Take bytes; blocks until there are enough."""
        with self._changed:
            self._num_waiting += 1
            while not self._is_abandoned and self._held_bytes and self._held_bytes + num_bytes > self._limit_bytes:
                self._changed.wait()
            self._num_waiting -= 1
            self._held_bytes += num_bytes

    def release(self, num_bytes: int) -> None:
        """Give bytes back."""
        with self._changed:
            self._held_bytes -= num_bytes
            self._changed.notify_all()


class Turns:
    """A few places for many threads; of those that wait, the one of the oldest part is next.

    So an actor that has two parts in hand ends the first one as soon as it can, and fills the gaps with the second.

    Args:
        num_places: threads that may be inside at once.
    """

    def __init__(self, num_places: int) -> None:
        self.num_places = num_places
        self._num_inside = 0
        self._waiting: list[tuple[int, int]] = []
        self._num_come = 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, part: int) -> Iterator[None]:
        """Wait for a turn.

        Args:
            part: lower numbers go first.
        """
        with self._changed:
            ticket = part, self._num_come
            self._num_come += 1
            heapq.heappush(self._waiting, ticket)
            while self._num_inside == self.num_places or self._waiting[0] != ticket:
                self._changed.wait()
            heapq.heappop(self._waiting)
            self._num_inside += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._num_inside -= 1
                self._changed.notify_all()
