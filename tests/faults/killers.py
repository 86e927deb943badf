"""Kill -9 for the processes of one job: its driver, its raylet, its workers. Reads /proc, so Linux only.

A job that was started in a session of its own keeps all its processes in it, whoever their parents have become: only
these are ever killed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

RAYLET = r"/raylet/raylet "
POOL_WORKER = r"^ray::MapWorker\("


def processes_of(driver: subprocess.Popen[bytes]) -> dict[int, str]:
    """List the living processes of a driver's session, by id, with their command lines."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, _, _, session = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:4]
            if int(session) == driver.pid and state != "Z":
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = words.decode(errors="replace")
    return found


def find(driver: subprocess.Popen[bytes], command: str) -> list[int]:
    """Find a driver's processes by a regular expression of their command lines."""
    return sorted(pid for pid, words in processes_of(driver).items() if re.search(command, words))


def wait_for(driver: subprocess.Popen[bytes], command: str, *, timeout_s: float = 60) -> list[int]:
    """Wait until a driver has such processes; none when it ends before.

    Raises:
        TimeoutError: after ``timeout_s``.
    """
    deadline = time.monotonic() + timeout_s
    while driver.poll() is None:
        if found := find(driver, command):
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"no process {command} in {timeout_s} s")
        time.sleep(0.05)
    return []


def kill_driver(driver: subprocess.Popen[bytes]) -> bool:
    """Kill the driver alone; what it started is left to itself, as after a crash. Says whether it still lived."""
    was_alive = driver.poll() is None
    driver.kill()
    driver.wait()
    return was_alive


def kill_found(driver: subprocess.Popen[bytes], command: str) -> int:
    """Kill a driver's processes by their command lines; gives how many."""
    num_killed = 0
    for pid in find(driver, command):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            num_killed += 1
    return num_killed


def clear_away(driver: subprocess.Popen[bytes]) -> int:
    """End whatever a driver has left; gives how many processes there were."""
    kill_driver(driver)
    return kill_found(driver, "")
