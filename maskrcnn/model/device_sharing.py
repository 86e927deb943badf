"""What threads that predict at once share of a device: its memory, and its streams."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Inside:
    """Lets threads in together, or one alone once the others have left; who wants to be alone holds up newcomers."""

    def __init__(self) -> None:
        self._num_inside = 0
        self._num_wanting_alone = 0
        self._changed = threading.Condition()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Be inside, beside others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._num_wanting_alone)
            self._num_inside += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be inside while nobody else is."""
        with self._changed:
            self._num_wanting_alone += 1
            self._changed.wait_for(lambda: not self._num_inside)
            self._num_inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_wanting_alone -= 1
            self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._num_inside -= 1
            self._changed.notify_all()


class Streams:
    """Lets threads that use a GPU at once not wait for each other's work: each has a stream meanwhile.

    Streams are kept, since the allocator keeps memory for every stream that ever was.

    Args:
        device: on any other device than a GPU there are no streams.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._free: list[Any] = []

    @contextmanager
    def own(self) -> Iterator[None]:
        """Work on a stream of one's own, after what the thread has begun before."""
        if self._device.type != "cuda":
            yield
            return
        try:
            stream = self._free.pop()
        except IndexError:
            stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        try:
            stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(stream):
                yield
        finally:
            self._free.append(stream)
