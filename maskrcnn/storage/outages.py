"""Tells an object that cannot be read from a store that is away, and has everybody wait for the store together.

Without this an outage of minutes turns everything that is read meanwhile into error rows, and hundreds of threads
hammer a store that tries to get up again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from maskrcnn.errors import (
    AccessError,
    MaskrcnnError,
    NoBucketError,
    NotFoundError,
    OutageError,
    StorageError,
    StorageTimeout,
    UnavailableError,
)
from maskrcnn.storage.retries import READ_TRIES, Tries, try_several

logger = logging.getLogger(__name__)

PATIENCE_S = 15 * 60.0
"""How long an outage is waited for."""
FIRST_PAUSE_S = 2.0
MOST_PAUSE_S = 15.0
FRESH_S = 1.0
"""An answer so young says that the store is there, without asking it."""
MANY_OBJECTS = 8
"""So many that all fail, and none that does not, are no accident."""

_Answer = TypeVar("_Answer")

_reached: set[str] = set()
"""The stores that have answered, here or elsewhere. Others are not waited for: their name or endpoint is wrong."""


def reached_stores() -> tuple[str, ...]:
    """Name the stores that have answered this process, for the processes that it sends for."""
    return tuple(sorted(_reached))


def expect_outages(reached: Iterable[str]) -> None:
    """Wait for these stores even before their first answer here, since another process has reached them.

    Args:
        reached: its `reached_stores`.
    """
    _reached.update(reached)


@dataclass(frozen=True)
class OutageNotice:
    """A store has gone away, or is back."""

    root: str
    is_away: bool
    text: str


_listeners: list[Callable[[OutageNotice], None]] = []


def tell_of_outages(listener: Callable[[OutageNotice], None]) -> None:
    """Have somebody told, besides the log, when a store of this process goes away, and when it is back."""
    _listeners.append(listener)


class Probe(Protocol):
    """How to ask a store whether it is there, in a single request."""

    def read(self, uri: str) -> None:
        """Read a little of an object, or raise as a read does."""

    def list(self, uri: str) -> None:
        """List a little of what lies beside an object, or raise as a listing does."""


class StoreWatch:
    """Makes the requests of one store, and waits for it while it is away; for all threads of a process.

    A request that fails all its tries has the store probed: by the object that was read last, which is known to be
    good. If that is answered, the fault is the object's own, and its error is raised. If not, the store is away: one
    thread goes on probing it, everybody else waits, and then tries anew.

    Args:
        root: the store, for messages.
        probe: asks it.
        clock, sleep: for tests.
    """

    def __init__(
        self,
        root: str,
        probe: Probe,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._root = root
        self._probe = probe
        self._clock, self._sleep = clock, sleep
        self._changed = threading.Condition()
        self._good_uri: str | None = None
        self._answered_at: float | None = None
        self._failing: set[str] = set()
        """Since the last object that could be read."""
        self._away_since: float | None = None
        self._found_there_at: float | None = None
        """By a probe."""
        self._pause_s = FIRST_PAUSE_S
        """Until the next probe of a store that is away."""
        self._probed_at = 0.0
        self._num_probes = 0
        self._is_probing = False

    def ask(
        self, uri: str, request: Callable[[], _Answer], tries: Tries = READ_TRIES, *, reads: bool = False
    ) -> _Answer:
        """Make a request until it is answered, through an outage if need be.

        Args:
            uri: what it is about.
            request: one request, which may be made more than once.
            tries: how often, before the store is suspected.
            reads: whether it reads an object: one that can be read probes the store well, and to be refused all of a
                sudden is an outage too, of credentials or policies.

        Raises:
            OutageError: the store stayed away for `PATIENCE_S`.
            NoBucketError: the bucket was there, and is gone; of one that never was, nothing is found.
            StorageError: as the store answers.
        """
        while True:
            self._wait_until_there(uri)
            try:
                answer = try_several(request, tries, sleep=self._sleep, clock=self._clock)
            except (StorageTimeout, UnavailableError) as error:
                if not self._is_away(uri, error):
                    raise
            except AccessError as error:
                if not (reads and self._good_uri and self._is_away(uri, error)):
                    raise
            except NoBucketError as error:
                if self._root not in _reached:
                    raise NotFoundError(uri, error.reason) from error
                raise
            except MaskrcnnError:
                self._note_answer()
                raise
            else:
                self._note_answer()
                if reads and answer:  # of an empty object there is nothing to ask for
                    self._good_uri = uri
                    self._failing.clear()
                return answer

    def _note_answer(self) -> None:
        self._answered_at = self._clock()
        _reached.add(self._root)

    def _is_away(self, uri: str, error: StorageError) -> bool:
        """Find out whether the store as a whole is away; the first who asks probes it for all."""
        with self._changed:
            self._failing.add(uri)
            while self._is_probing:
                self._changed.wait()
            if self._away_since is not None:
                return True
            if self._root not in _reached or self._was_there_just_now(error):
                return False
            self._is_probing = True
        is_there = False
        try:
            is_there = self._ask_probe(uri)
        finally:
            with self._changed:
                self._is_probing = False
                if is_there:
                    self._found_there_at = self._clock()
                else:
                    self._away_since = self._clock()
                    self._pause_s = FIRST_PAUSE_S
                self._changed.notify_all()
        if not is_there:
            self._tell(f"is away, waiting for up to {PATIENCE_S / 60:.0f} min: {error.reason}", is_away=True)
        return not is_there

    def _was_there_just_now(self, error: StorageError) -> bool:
        # A refusal comes at once, so that answers before it say nothing of what is allowed now.
        times = (self._found_there_at, None if isinstance(error, AccessError) else self._answered_at)
        return any(time is not None and self._clock() - time < FRESH_S for time in times)

    def _tell(self, what: str, *, is_away: bool) -> None:
        text = f"{self._root} {what}"
        logger.warning(text)
        for listener in _listeners:
            listener(OutageNotice(self._root, is_away, text))

    def _wait_until_there(self, uri: str) -> None:
        """Return at once while the store is there; else probe it, or wait for whoever does."""
        if self._away_since is None:
            return
        while self._begin_probing():
            is_there = False
            try:
                if self._clock() - self._probed_at < self._pause_s:
                    self._sleep(self._pause_s)
                self._pause_s = min(self._pause_s * 2, MOST_PAUSE_S)
                is_there = self._ask_probe(uri)
            finally:
                self._end_probing(is_there)

    def _begin_probing(self) -> bool:
        """Say whether this thread is to probe; False once the store is there."""
        with self._changed:
            while self._away_since is not None:
                away_s = self._clock() - self._away_since
                # After that a probe now and then goes through, so that a later job of this process may find it back.
                if away_s > PATIENCE_S and self._clock() - self._probed_at < MOST_PAUSE_S:
                    raise OutageError(self._root, f"did not answer for {away_s / 60:.0f} min")
                if not self._is_probing:
                    self._is_probing = True
                    return True
                self._changed.wait()
            return False

    def _end_probing(self, is_there: bool) -> None:
        away_since = self._away_since
        with self._changed:
            self._is_probing = False
            if is_there:
                self._away_since = None
                self._failing.clear()
            self._changed.notify_all()
        if is_there and away_since is not None:
            self._tell(f"is back after {self._clock() - away_since:.0f} s", is_away=False)

    def _ask_probe(self, uri: str) -> bool:
        """Ask the store in one request whether it is there."""
        self._probed_at = self._clock()
        self._num_probes += 1
        uri_to_read = self._good_uri or (uri if len(self._failing) >= MANY_OBJECTS else None)
        # An object that was good may be bad by now: in an outage the one that waits is asked for in turn.
        if self._away_since is not None and uri_to_read is not None and self._num_probes % 2:
            uri_to_read = uri
        try:
            if uri_to_read is not None:
                self._probe.read(uri_to_read)
            else:
                self._probe.list(uri)
        except (StorageTimeout, UnavailableError):
            return False
        except AccessError:
            return uri_to_read is None  # who may read and write need not be allowed to list
        except MaskrcnnError:
            pass
        return True
