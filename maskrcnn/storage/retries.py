"""The one retry layer: a few tries with growing pauses, and no try after a deadline. Clients retry nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from maskrcnn.errors import IntegrityError, StorageTimeout, UnavailableError

FIRST_PAUSE_S = 0.2
MOST_PAUSE_S = 15.0
_GROWTH = 3.0
MOST_WRONG_BODIES = 2
"""Bytes that were wrong on the wire are right the next time; those that lie wrong in the store are not."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Tries:
    """How hard to try one kind of request.

    Args:
        most: requests.
        last_begin_s: seconds after the first one's begin from which on no other begins.
    """

    most: int
    last_begin_s: float


READ_TRIES = Tries(most=5, last_begin_s=15)
"""Pauses of 4 to 8 s in all; or two tries of an object that does not answer."""
WRITE_TRIES = Tries(most=24, last_begin_s=300)
"""What is written has cost much to make."""


def try_several(
    request: Callable[[], _Answer],
    tries: Tries,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> _Answer:
    """Repeat a request until it is answered.

    Args:
        request: one request, which may be made more than once.
        tries: how often.
        sleep, clock: for tests.

    Raises:
        StorageTimeout, UnavailableError: the last try's.
        IntegrityError: when `MOST_WRONG_BODIES` bodies were wrong.
        MaskrcnnError: any other answer, at once.
    """
    begin, pause_s = clock(), FIRST_PAUSE_S
    num_tries = num_wrong_bodies = 0
    while True:
        num_tries += 1
        try:
            return request()
        except IntegrityError:
            num_wrong_bodies += 1
            if num_wrong_bodies == MOST_WRONG_BODIES or num_tries >= tries.most:
                raise
        except (StorageTimeout, UnavailableError):
            if num_tries >= tries.most or clock() - begin + pause_s > tries.last_begin_s:
                raise
        # Never all at once: those who failed together would come back together.
        sleep(random.uniform(pause_s / 2, pause_s))
        pause_s = min(pause_s * _GROWTH, MOST_PAUSE_S)
