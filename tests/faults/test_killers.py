"""The killers hit the processes of the job that they are given, and no others."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults import killers

PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)  # {name}"])
time.sleep(60)
"""


def start(name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PARENT.format(name=name)], start_new_session=True)


def test_a_process_is_found_by_its_command_also_when_its_parent_is_dead_and_only_in_its_session() -> None:
    one, other = start("worker"), start("worker")
    try:
        (child,) = killers.wait_for(one, "^[^ ]+ -c import time.*worker")
        assert set(killers.processes_of(one)) == {one.pid, child}
        assert killers.kill_driver(one)
        assert not killers.kill_driver(one)
        assert set(killers.processes_of(one)) == {child}
        assert killers.kill_found(one, "worker") == 1
        assert killers.wait_for(one, "worker") == []
        assert len(killers.wait_for(other, "-c import time")) == 1
    finally:
        killers.clear_away(one)
        assert killers.clear_away(other) == 1


def test_waiting_for_what_does_not_come_has_an_end() -> None:
    driver = start("worker")
    try:
        with pytest.raises(TimeoutError, match="raylet"):
            killers.wait_for(driver, "raylet", timeout_s=0.1)
    finally:
        killers.clear_away(driver)
