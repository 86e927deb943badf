"""How often a store is asked, and who waits for whom while it is away; time is counted, not spent."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from maskrcnn.errors import (
    AccessError,
    IntegrityError,
    MaskrcnnError,
    NoBucketError,
    NotFoundError,
    OutageError,
    StorageTimeout,
    UnavailableError,
)
from maskrcnn.storage import outages
from maskrcnn.storage.outages import PATIENCE_S, StoreWatch
from maskrcnn.storage.retries import READ_TRIES, WRITE_TRIES, Tries, try_several


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now_s += seconds


class Store:
    """A store that fails as it is told."""

    def __init__(self, clock: Clock, back_at_s: float = 0.0) -> None:
        self.clock, self.back_at_s = clock, back_at_s
        self.faulty: dict[str, Exception] = {}
        self.mended_at_s = float("inf")
        self.cost_s = 0.0
        self.num_requests = 0
        self.num_probes = 0
        self.may_list = True

    def request(self, uri: str) -> Callable[[], bytes]:
        def read() -> bytes:
            self.num_requests += 1
            self.clock.sleep(self.cost_s)
            if uri in self.faulty and self.clock() < self.mended_at_s:
                raise self.faulty[uri]
            if self.clock() < self.back_at_s:
                raise UnavailableError(uri, "503")
            return uri.encode()

        return read

    def read(self, uri: str) -> None:
        self.num_probes += 1
        self.request(uri)()

    def list(self, uri: str) -> None:
        self.num_probes += 1
        if not self.may_list:
            raise AccessError(uri, "denied")
        if self.clock() < self.back_at_s:
            raise UnavailableError(uri, "503")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def nothing_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "_reached", set())


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock)


@pytest.fixture
def watch(store: Store, clock: Clock) -> StoreWatch:
    return StoreWatch("s3://photos", store, clock=clock, sleep=clock.sleep)


def failing(*errors: Exception) -> Callable[[], str]:
    left = list(errors)

    def request() -> str:
        if left:
            raise left.pop(0)
        return "answer"

    return request


def ask_all(request: Callable[[], object], clock: Clock, tries: Tries = READ_TRIES) -> object:
    return try_several(request, tries, sleep=clock.sleep, clock=clock)


def test_a_request_is_tried_again_with_pauses_that_grow(clock: Clock) -> None:
    assert ask_all(failing(*[UnavailableError("x", "503")] * 4), clock) == "answer"
    assert 4.0 <= clock() - 1000 <= 8.0
    with pytest.raises(UnavailableError):
        ask_all(failing(*[UnavailableError("x", "503")] * 5), clock)


def test_no_try_begins_after_the_deadline(clock: Clock) -> None:
    num_tries = 0

    def hung() -> None:
        nonlocal num_tries
        num_tries += 1
        clock.sleep(9)
        raise StorageTimeout("x", "hung")

    with pytest.raises(StorageTimeout):
        ask_all(hung, clock)
    assert num_tries == 2
    assert clock() - 1000 <= 20


def test_wrong_bytes_are_asked_for_once_more_only(clock: Clock) -> None:
    assert ask_all(failing(IntegrityError("x", "MD5")), clock) == "answer"
    with pytest.raises(IntegrityError):
        ask_all(failing(*[IntegrityError("x", "MD5")] * 2), clock)


@pytest.mark.parametrize("answer", [NotFoundError("x", "404"), AccessError("x", "403")])
def test_an_answer_is_an_answer(clock: Clock, answer: MaskrcnnError) -> None:
    with pytest.raises(type(answer)):
        ask_all(failing(answer), clock)
    assert clock() == 1000


def test_writes_are_tried_through_two_minutes(clock: Clock) -> None:
    begin = clock()

    def put() -> str:
        if clock() - begin < 100:
            raise UnavailableError("x", "503")
        return "there"

    assert ask_all(put, clock, WRITE_TRIES) == "there"


def test_an_object_that_fails_among_good_ones_is_its_own_fault(watch: StoreWatch, store: Store) -> None:
    watch.ask("good", store.request("good"), reads=True)
    store.faulty["bad"] = UnavailableError("bad", "503")
    store.num_requests = 0
    with pytest.raises(UnavailableError) as caught:
        watch.ask("bad", store.request("bad"), reads=True)
    assert not isinstance(caught.value, OutageError)
    assert store.num_requests <= 8
    assert store.num_probes == 1
    assert watch.ask("good", store.request("good"), reads=True) == b"good"


def test_an_outage_is_waited_for_and_ends_without_an_error(watch: StoreWatch, store: Store, clock: Clock) -> None:
    watch.ask("good", store.request("good"), reads=True)
    store.back_at_s = clock() + 120
    assert watch.ask("next", store.request("next"), reads=True) == b"next"
    assert 120 <= clock() - 1000 <= 150


def test_an_outage_that_does_not_end_is_an_error_of_its_own(watch: StoreWatch, store: Store, clock: Clock) -> None:
    watch.ask("good", store.request("good"), reads=True)
    store.back_at_s = clock() + 10 * PATIENCE_S
    with pytest.raises(OutageError, match="s3://photos: did not answer for 15 min"):
        watch.ask("next", store.request("next"), reads=True)
    store.num_requests = store.num_probes = 0
    for _ in range(100):
        with pytest.raises(OutageError):
            watch.ask("after", store.request("after"), reads=True)
    assert store.num_requests == 0, "whoever comes later does not wait as long again"
    store.back_at_s = 0
    clock.sleep(20)
    assert watch.ask("again", store.request("again"), reads=True) == b"again"


def test_many_threads_share_one_probe(watch: StoreWatch, store: Store, clock: Clock) -> None:
    watch.ask("good", store.request("good"), reads=True)
    store.back_at_s = clock() + 120
    outcomes: list[bytes] = []

    def read(place: int) -> None:
        outcomes.append(watch.ask(f"{place}", store.request(f"{place}"), reads=True))

    threads = [threading.Thread(target=read, args=(place,)) for place in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(outcomes) == 64
    assert store.num_probes <= 20


def test_a_store_that_never_answered_is_not_waited_for(watch: StoreWatch, store: Store, clock: Clock) -> None:
    store.back_at_s = clock() + 1e6
    with pytest.raises(UnavailableError):
        watch.ask("x", store.request("x"), reads=True)
    assert clock() - 1000 < 10


def test_unless_somebody_else_has_reached_it(
    watch: StoreWatch, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    outages.expect_outages(["s3://photos"])
    store.back_at_s = clock() + 60
    assert watch.ask("x", store.request("x"), reads=True) == b"x"


def test_many_that_fail_though_the_store_lists_are_an_outage(
    watch: StoreWatch, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    outages.expect_outages(["s3://photos"])
    store.faulty = {f"{place}": UnavailableError("x", "503 SlowDown") for place in range(20)}
    for place in range(outages.MANY_OBJECTS - 1):
        with pytest.raises(UnavailableError):
            watch.ask(f"{place}", store.request(f"{place}"), reads=True)
    store.mended_at_s = clock() + 60
    assert watch.ask("19", store.request("19"), reads=True) == b"19"


def test_to_be_refused_all_of_a_sudden_is_an_outage(watch: StoreWatch, store: Store, clock: Clock) -> None:
    watch.ask("good", store.request("good"), reads=True)
    store.faulty = {name: AccessError(name, "ExpiredToken") for name in ("good", "next")}
    with pytest.raises(OutageError):
        watch.ask("next", store.request("next"), reads=True)


def test_to_be_refused_one_object_is_not(watch: StoreWatch, store: Store, clock: Clock) -> None:
    watch.ask("good", store.request("good"), reads=True)
    store.faulty = {"secret": AccessError("secret", "AccessDenied")}
    for _ in range(10):
        with pytest.raises(AccessError):
            watch.ask("secret", store.request("secret"), reads=True)
    assert store.num_probes == 1, "what was found a moment ago is not asked again"


def test_a_bucket_that_never_was_is_nothing_found_and_one_that_was_is_gone(watch: StoreWatch, store: Store) -> None:
    store.faulty = {"x": NoBucketError("x", "no such bucket")}
    with pytest.raises(NotFoundError) as caught:
        watch.ask("x", store.request("x"), reads=True)
    assert not isinstance(caught.value, NoBucketError)
    watch.ask("good", store.request("good"), reads=True)
    with pytest.raises(NoBucketError):
        watch.ask("x", store.request("x"), reads=True)


def test_an_empty_object_is_no_probe(watch: StoreWatch, store: Store) -> None:
    watch.ask("good", store.request("good"), reads=True)
    watch.ask("empty", lambda: b"", reads=True)
    store.faulty = {"empty": UnavailableError("empty", "416"), "bad": UnavailableError("bad", "503")}
    with pytest.raises(UnavailableError) as caught:
        watch.ask("bad", store.request("bad"), reads=True)
    assert not isinstance(caught.value, OutageError)
