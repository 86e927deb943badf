"""What a person sees while a job runs: a bar in a terminal, a line a minute in job logs."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

LOOK_EVERY_S = 0.5
LINE_EVERY_S = 60.0
BAR_EVERY_S = 0.2
BAR_WIDTH = 28


@contextmanager
def watched(look: Callable[[], None]) -> Iterator[None]:
    """Call something twice a second from another thread, until the work inside is done."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(LOOK_EVERY_S):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


class LiveLine:
    """A line that moves in a terminal, and is written again every minute elsewhere.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._begin = time.monotonic()
        self._next_s = 0.0 if self._is_terminal else LINE_EVERY_S
        self._shown = ""

    def is_due(self) -> bool:
        """Say whether it is time to show something, and count it as shown."""
        elapsed_s = time.monotonic() - self._begin
        if elapsed_s < self._next_s:
            return False
        self._next_s = elapsed_s + (BAR_EVERY_S if self._is_terminal else LINE_EVERY_S)
        return True

    def show(self, line: str, *, is_last: bool = False) -> None:
        """Show the state, if it is time to, or if it is the last one."""
        if line != self._shown and (self.is_due() or is_last):
            self._shown = line
            self._write(line)

    def say(self, text: str) -> None:
        """Write a line for good, above the one that moves."""
        if self._is_terminal and self._shown:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{'':<{width}}\r{text}", file=self._stream, flush=True)
            self._write(self._shown)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """End the line that moves."""
        if self._is_terminal and self._shown:
            print(file=self._stream, flush=True)
            self._shown = ""

    def _write(self, line: str) -> None:
        if not self._is_terminal:
            print(line, file=self._stream, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{line[:width]:<{width}}", end="", file=self._stream, flush=True)


class Progress:
    """Counts images against a total.

    Args:
        num_images: how many there are to do.
        label: what is being done, for the line.
        stream: where to write; a terminal gets a bar.
    """

    def __init__(self, num_images: int, label: str, stream: TextIO | None = None) -> None:
        self._num_images = num_images
        self._label = label
        self._begin = time.monotonic()
        self._live = LiveLine(stream if stream is not None else sys.stdout)

    def update(self, num_done: int, num_failed: int) -> None:
        """Show the state, if it is time to."""
        self._live.show(self._line(num_done, num_failed))

    def say(self, text: str) -> None:
        """Write a line for good."""
        self._live.say(text)

    def finish(self, num_done: int, num_failed: int) -> None:
        """Show the last state, for good."""
        self._live.show(self._line(num_done, num_failed), is_last=True)
        self._live.close()

    def _line(self, num_done: int, num_failed: int) -> str:
        elapsed_s = time.monotonic() - self._begin
        return progress_line(self._label, num_done, num_failed, self._num_images, elapsed_s)


class ProgressOf:
    """Shows progress where the work itself finds out how much there is.

    Args:
        label: what is being done, for the line.
    """

    def __init__(self, label: str) -> None:
        self._label = label
        self._progress: Progress | None = None
        self._is_over = False

    def __call__(self, num_done: int, num_images: int) -> None:
        """Show the images done so far, of all there are."""
        if self._progress is None:
            self._progress = Progress(num_images, self._label)
        if num_done < num_images:
            self._progress.update(num_done, 0)
        elif not self._is_over:
            self._is_over = True
            self._progress.finish(num_done, 0)


def progress_line(label: str, num_done: int, num_failed: int, num_images: int, elapsed_s: float) -> str:
    """Say how far things are: images, rate, failures, and the time that is left at this rate."""
    num_done = min(num_done, num_images)  # parts that are tried again count twice
    share = num_done / num_images if num_images else 1.0
    bar = "━" * round(share * BAR_WIDTH)
    rate = num_done / elapsed_s if elapsed_s > 0 else 0.0
    line = f"{label} {bar:<{BAR_WIDTH}} {num_done:,}/{num_images:,} images  {rate:,.1f}/s  {num_failed:,} failed"
    if num_done < num_images and rate > 0:
        line += f"  ETA {clock((num_images - num_done) / rate)}"
    elif num_done >= num_images:
        line += f"  in {clock(elapsed_s)}"
    return line


def clock(seconds: float) -> str:
    """Give a duration as people write it: 42s, 3m05s, 2h07m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
