"""Many reads at once: bounded in number and in bytes, each with the answer that one read alone would have."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.errors import NotFoundError
from maskrcnn.storage import UNKNOWN_SIZE, ObjectMeta, ReadAnswer
from maskrcnn.storage.reads import read_in_threads


def versions(sizes: Sequence[int]) -> list[ObjectMeta]:
    return [ObjectMeta(f"s3://b/{place}", "etag", size, 0.0) for place, size in enumerate(sizes)]


class WatchedStore:
    """Answers with bodies of the asked size, and remembers the most that was asked for and not taken."""

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.lock = threading.Lock()
        self.num_held = self.held_bytes = self.most_held = self.most_bytes = self.num_read = 0

    def read(self, uri: str, etag: str, size: int) -> bytes:
        with self.lock:
            self.num_read += 1
            self.num_held += 1
            self.held_bytes += size
            self.most_held = max(self.most_held, self.num_held)
            self.most_bytes = max(self.most_bytes, self.held_bytes)
        time.sleep(self.delay_s)
        return bytes(size)

    def take(self, answer: ReadAnswer) -> None:
        assert isinstance(answer.outcome, bytes)
        with self.lock:
            self.num_held -= 1
            self.held_bytes -= len(answer.outcome)


@given(
    st.lists(st.integers(0, 100), max_size=40),
    st.integers(1, 8),
    st.integers(1, 300),
)
def test_every_object_has_one_answer_and_both_limits_hold(sizes: list[int], max_in_flight: int, max_bytes: int) -> None:
    store, places = WatchedStore(), []
    for answer in read_in_threads(store.read, versions(sizes), max_in_flight, max_bytes):
        assert answer.outcome == bytes(sizes[answer.place])
        store.take(answer)
        places.append(answer.place)
    assert sorted(places) == list(range(len(sizes)))
    assert store.most_held <= max_in_flight
    assert store.most_bytes <= max(max_bytes, *sizes, 0)


def test_objects_of_unknown_size_count_too() -> None:
    num_reading, most_reading, lock = 0, 0, threading.Lock()

    def read(uri: str, etag: str, size: int) -> bytes:
        nonlocal num_reading, most_reading
        with lock:
            num_reading += 1
            most_reading = max(most_reading, num_reading)
        time.sleep(0.01)
        with lock:
            num_reading -= 1
        return b"body"

    answers = list(read_in_threads(read, versions([UNKNOWN_SIZE] * 8), max_in_flight=8, max_bytes=9 << 20))
    assert len(answers) == 8
    assert most_reading == 2


def test_reads_overlap() -> None:
    store = WatchedStore(delay_s=0.05)
    begin = time.perf_counter()
    answers = list(read_in_threads(store.read, versions([1] * 40), 20))
    assert time.perf_counter() - begin < 40 * 0.05 / 2
    assert all(answer.seconds >= 0.05 for answer in answers)


def test_reads_run_ahead_of_who_takes_them_and_no_further() -> None:
    store = WatchedStore()
    reads = read_in_threads(store.read, versions([10] * 100), 8, 50)
    next(reads)
    deadline = time.monotonic() + 5
    while store.num_read < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert store.num_read == 5
    reads.close()
    assert store.num_read == 5


def test_a_failure_is_an_answer_and_the_others_are_read() -> None:
    def read(uri: str, etag: str, size: int) -> bytes:
        if uri.endswith("/1"):
            raise NotFoundError(uri, "gone")
        if uri.endswith("/2"):
            raise ValueError("unforeseen")
        return b"x"

    outcomes = {answer.place: answer.outcome for answer in read_in_threads(read, versions([1] * 4), 2)}
    assert (outcomes[0], outcomes[3]) == (b"x", b"x")
    assert isinstance(outcomes[1], NotFoundError)
    assert isinstance(outcomes[2], ValueError)


def test_fewer_reads_are_in_flight_where_a_process_may_open_few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 16))
    store = WatchedStore(delay_s=0.01)
    for answer in read_in_threads(store.read, versions([1] * 20), 256):
        store.take(answer)
    assert store.most_held == 4
