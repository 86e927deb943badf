"""`ray job submit` to a cluster with token auth: the training command runs there, and its exit code comes through."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from maskrcnn.synthetic import write_shelves
from tests.conftest import PROJECT_ROOT, free_port
from tests.integration.test_training_job import arguments, words

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::maskrcnn.config.UnusualValueWarning"),
]
TOKEN = "a-token-of-this-test-only-0123456789"
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    """A cluster of one node, on this machine's loopback only."""

    address: str
    environment: dict[str, str]

    def submit(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [RAY, "job", "submit", "--address", self.address, "--working-dir", ".", "--", sys.executable, *words]
        return subprocess.run(
            command, cwd=PROJECT_ROOT, env=self.environment, capture_output=True, text=True, timeout=400, check=False
        )

    def exit_codes(self) -> list[int]:
        """Ask the cluster how its jobs' commands ended."""
        request = urllib.request.Request(f"{self.address}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return [job["driver_exit_code"] for job in json.load(answer)]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("head")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "HOME": str(folder),  # so that no token of another tool is taken, nor one left
    }
    port, dashboard_port, *others = (str(free_port()) for _ in range(6))
    flags = (
        "--dashboard-agent-listen-port",
        "--dashboard-agent-grpc-port",
        "--metrics-export-port",
        "--node-manager-port",
    )
    command = [
        RAY, "start", "--head", "--block", "--disable-usage-stats", "--num-cpus", "2", "--node-ip-address", "127.0.0.1",
        "--port", port, "--include-dashboard", "true", "--dashboard-host", "127.0.0.1",
        "--dashboard-port", dashboard_port, *(word for pair in zip(flags, others, strict=True) for word in pair),
    ]  # fmt: skip
    address = f"http://127.0.0.1:{dashboard_port}"
    log_path = folder / "log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_it_answers(address, process, log_path)
        yield Head(address, environment)
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_it_answers(address: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
    request = urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {TOKEN}"})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log_path.read_text()[-3000:]
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"no answer from the head: {log_path.read_text()[-3000:]}")


def test_a_submitted_training_leaves_a_bundle_and_bad_input_its_exit_code(head: Head, tmp_path: Path) -> None:
    write_shelves(tmp_path / "set", 4, seed=6, width=64, height=64, num_boards=1)
    given = arguments(tmp_path / "set", tmp_path / "out", max_steps=2, save_epochs=0.0, num_workers="2")
    done = head.submit("-m", "jobs.train", *words(given))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "2 1-thread CPU worker(s) x 2 x 1 accumulated = 4 images an update" in done.stdout
    assert "trained: 2 steps" in done.stdout
    assert (tmp_path / "out" / "bundle" / "model.json").exists()

    refused = head.submit("-m", "jobs.train", *words(given))
    assert "--output must be a new one, and holds a training" in refused.stdout + refused.stderr
    assert refused.returncode == 1, "the submitting command knows only success and failure"
    assert sorted(head.exit_codes()) == [0, 2], "the cluster knows the command's own"

    stranger = Head(head.address, {**head.environment, "RAY_AUTH_TOKEN": "another"})
    assert stranger.submit("-c", "pass").returncode != 0
