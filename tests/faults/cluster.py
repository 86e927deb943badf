"""A Ray cluster of several nodes on this machine, whose nodes are killed, or cut off as by a broken link."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.cluster import LOCAL_RAY_ENVIRONMENT
from tests.conftest import PROJECT_ROOT
from tests.faults.labelling import STUB_PATH

KEEPALIVE_MS = 2000
"""Shorter than a real network's, so that a cut is noticed within seconds."""
NOTICED_QUICKLY = {
    "RAY_grpc_client_keepalive_time_ms": str(KEEPALIVE_MS),
    "RAY_grpc_client_keepalive_timeout_ms": str(KEEPALIVE_MS),
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


class NodesOnThisMachine:
    """A head without work, and nodes of one CPU each."""

    def __init__(self, num_nodes: int) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self._nodes = [self._add() for _ in range(num_nodes)]
        self._stopped: list[int] = []

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=80 << 20)

    def replace(self) -> None:
        """Start a node in the place of one that is lost, as an autoscaler does; a lost one never comes back."""
        self._nodes.append(self._add())

    def kill(self, place: int) -> None:
        """Kill -9 a node with all its processes."""
        for pid in _tree(self._nodes.pop(place)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def cut_off(self, place: int) -> None:
        """Stop all of a node's processes where they are: its connections stay open, and nobody answers on them."""
        pids = _tree(self._nodes.pop(place))
        self._stopped += pids
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def mend_links(self) -> None:
        """Let the nodes that were cut off go on, with whatever they were about to write."""
        for pid in self._stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._stopped = []

    def shut_down(self) -> None:
        self.mend_links()
        self._cluster.shutdown()


def _tree(node: Any) -> list[int]:
    """Give a node's raylet, and all that it started."""
    (raylet,) = node.all_processes["raylet"]
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found = [raylet.process.pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


@contextmanager
def nodes_on_this_machine(num_nodes: int, *, stub_s: float) -> Iterator[NodesOnThisMachine]:
    """Start nodes whose workers have the stub network, and lead the jobs that start meanwhile to them."""
    environment = {
        **LOCAL_RAY_ENVIRONMENT,
        **NOTICED_QUICKLY,
        "PYTHONPATH": os.pathsep.join([str(STUB_PATH), str(PROJECT_ROOT)]),
        "MASKRCNN_STUB_S": str(stub_s),
        "OMP_NUM_THREADS": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)  # loopback only
        nodes = NodesOnThisMachine(num_nodes)
        try:
            patch.setenv("RAY_ADDRESS", nodes.address)
            yield nodes
        finally:
            nodes.shut_down()
