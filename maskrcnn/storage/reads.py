"""Many reads at once: stores take 10 to 50 ms to their first byte, so that only many in flight keep up with a GPU.

In threads, for every backend alike: the client and the checks let go of the interpreter's lock. An event loop, which
must hand each body to a thread for its check, was a quarter slower.
"""

from __future__ import annotations

import queue
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

READS_IN_FLIGHT = 128
"""More were no faster: the checks are the limit then."""
MAX_READ_BYTES = 256 << 20
_UNKNOWN_COUNTS_AS_BYTES = 4 << 20
"""Of an object whose size its store does not tell; an ample photo."""
_SHARE_OF_FILES = 4
"""Of the files that a process may open, a connection each; the others are for everything else."""


class Version(Protocol):
    """An object as it was listed."""

    @property
    def uri(self) -> str:
        """Where it lies."""

    @property
    def etag(self) -> str:
        """Which version of it."""

    @property
    def size(self) -> int:
        """Of the body, bytes; negative where it is not known."""


@dataclass(frozen=True)
class ReadAnswer:
    """What became of one of many reads."""

    place: int
    """Of the object among those that were asked for."""
    outcome: bytes | Exception
    """The checked body, or why there is none."""
    seconds: float
    """From asking the store to the checked body."""


def read_in_threads(
    read_version: Callable[[str, str, int], bytes],
    versions: Iterable[Version],
    max_in_flight: int = READS_IN_FLIGHT,
    max_bytes: int = MAX_READ_BYTES,
) -> Iterator[ReadAnswer]:
    """Read objects in threads, and give the answers as they come; see ``maskrcnn.storage.read_objects``."""
    num_threads = min(max_in_flight, _max_connections())
    answers: queue.SimpleQueue[ReadAnswer] = queue.SimpleQueue()
    held_bytes = 0
    sizes: dict[int, int] = {}

    def read(place: int, version: Version) -> None:
        begin = time.perf_counter()
        try:
            outcome: bytes | Exception = read_version(version.uri, version.etag, version.size)
        except Exception as error:
            outcome = error
        answers.put(ReadAnswer(place, outcome, time.perf_counter() - begin))

    numbered = enumerate(versions)
    following = next(numbered, None)
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="read")
    try:
        while following is not None or sizes:
            while following is not None and (
                not sizes or (len(sizes) < num_threads and held_bytes + _counted_bytes(following[1]) <= max_bytes)
            ):
                place, version = following
                sizes[place] = _counted_bytes(version)
                held_bytes += sizes[place]
                pool.submit(read, place, version)
                following = next(numbered, None)
            answer = answers.get()
            held_bytes -= sizes.pop(answer.place)
            yield answer
    finally:
        pool.shutdown(cancel_futures=True)


def _counted_bytes(version: Version) -> int:
    return version.size if version.size >= 0 else _UNKNOWN_COUNTS_AS_BYTES


def _max_connections() -> int:
    num_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return READS_IN_FLIGHT if num_files == resource.RLIM_INFINITY else max(1, num_files // _SHARE_OF_FILES)
