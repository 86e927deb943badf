"""A cluster of one node with token auth, on this machine's loopback, to which jobs are submitted as users do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.cluster import KEEPALIVE_ENVIRONMENT
from tests.conftest import PROJECT_ROOT, free_port

TOKEN = "a-token-of-this-test-only-0123456789"
RAY = str(Path(sys.executable).with_name("ray"))
METRICS_EVERY_MS = 500


@dataclass(frozen=True)
class Head:
    """The cluster, as its users reach it."""

    address: str
    metrics_url: str
    environment: dict[str, str]

    def submit(self, *words: str, uploads: bool = True) -> subprocess.CompletedProcess[str]:
        """Submit a Python command, and wait for its end.

        Args:
            words: of the command; options of ``ray job submit`` go before a ``--``.
            uploads: this checkout as the command's folder; else it is there as an installed package would be.
        """
        own, command = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else ((), words)
        environment = json.dumps({"env_vars": {"PYTHONPATH": str(PROJECT_ROOT)}})
        code = ["--working-dir", "."] if uploads else ["--runtime-env-json", environment]
        line = [RAY, "job", "submit", "--address", self.address, *code, *own, "--", sys.executable, *command]
        return subprocess.run(
            line, cwd=PROJECT_ROOT, env=self.environment, capture_output=True, text=True, timeout=400, check=False
        )

    def jobs(self) -> dict[str, dict[str, Any]]:
        """Ask the cluster for its submitted jobs, by submission id."""
        return {job["submission_id"]: job for job in self.ask("/api/jobs/") if job["submission_id"]}

    def exit_codes(self) -> list[int]:
        """Ask the cluster how its jobs' commands ended."""
        return [job["driver_exit_code"] for job in self.ask("/api/jobs/")]

    def driver_lines(self, submission_id: str) -> list[str]:
        """Give what a job's command printed and logged."""
        return list(self.ask(f"/api/jobs/{submission_id}/logs")["logs"].splitlines())

    def stop(self, submission_id: str) -> None:
        """Kill a job's command, and wait until it is gone."""
        self.ask(f"/api/jobs/{submission_id}/stop", method="POST")
        deadline = time.monotonic() + 60
        while self.jobs()[submission_id]["status"] != "STOPPED":
            assert time.monotonic() < deadline, f"{submission_id} goes on"
            time.sleep(0.2)

    def ask(self, path: str, method: str = "GET") -> Any:
        """Ask the dashboard, with the token."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        request = urllib.request.Request(f"{self.address}{path}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def metrics(self) -> str:
        """Read what Prometheus would."""
        with urllib.request.urlopen(self.metrics_url, timeout=30) as answer:
            text: str = answer.read().decode()
        return text


@contextmanager
def running_head(folder: Path) -> Iterator[Head]:
    """Start the cluster, and end it afterwards.

    Args:
        folder: its home, for what Ray leaves behind.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        **KEEPALIVE_ENVIRONMENT,
        "RAY_metrics_report_interval_ms": str(METRICS_EVERY_MS),
        "HOME": str(folder),  # so that no token of another tool is taken, nor one left
    }
    port, dashboard_port, metrics_port, *others = (str(free_port()) for _ in range(6))
    flags = ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port", "--node-manager-port")
    command = [
        RAY, "start", "--head", "--block", "--disable-usage-stats", "--num-cpus", "2", "--node-ip-address", "127.0.0.1",
        "--port", port, "--include-dashboard", "true", "--dashboard-host", "127.0.0.1", "--dashboard-port",
        dashboard_port, "--metrics-export-port", metrics_port,
        *(word for pair in zip(flags, others, strict=True) for word in pair),
    ]  # fmt: skip
    head = Head(f"http://127.0.0.1:{dashboard_port}", f"http://127.0.0.1:{metrics_port}/metrics", environment)
    log_path = folder / "log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_it_answers(head, process, log_path)
        yield head
    finally:
        process.terminate()
        try:
            process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_it_answers(head: Head, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log_path.read_text()[-3000:]
        try:
            head.ask("/api/jobs/")
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"no answer from the head: {log_path.read_text()[-3000:]}")
