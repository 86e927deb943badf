"""The Ray that a job runs on: joining it, starting one on this machine alone, and what it has. Knows no job."""

from __future__ import annotations

import ipaddress
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import ray
import ray._private.ray_constants
import ray._private.worker
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from maskrcnn.errors import ClusterError

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES = 256 << 20
"""Of a local Ray: only keys, summaries and annotations pass through it."""
KEEPALIVE_ENVIRONMENT = {
    "RAY_grpc_client_keepalive_time_ms": "10000",
    "RAY_grpc_client_keepalive_timeout_ms": "20000",
}
"""How soon a call over a cut link fails: after 30 s, where Ray's own values are 5 minutes and 2 more.

The same as Ray's servers use the other way. Shorter ones would take a node that is merely busy for one that is gone.
For where Ray is started, never for joining: its servers allow pings as often as their own setting has it, and cut off
who pings more often, so that a call that is quiet, as a whole training is, would fail after 50 s.
"""
AUTH_MODE, LISTENS_ELSEWHERE = "RAY_AUTH_MODE", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
LOCAL_RAY_ENVIRONMENT = {
    AUTH_MODE: "disabled",  # loopback only; and a token left by another tool would turn it on
    LISTENS_ELSEWHERE: "0",  # on every system: listen on loopback only
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait starve the workers beside them
    **KEEPALIVE_ENVIRONMENT,
}


VITAL_PROCESSES = ("raylet", "gcs_server")
LOOK_AFTER_RAY_EVERY_S = 1.0

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


class ClusterExecutor(Executor):
    """Runs functions as tasks of the cluster that was joined, each on a CPU."""

    def __init__(self) -> None:
        self._tasks: dict[Callable[..., Any], Any] = {}
        """Made once a function: each is sent to the cluster anew."""

    def submit(self, fn: Callable[_Args, _Result], /, *args: _Args.args, **kwargs: _Args.kwargs) -> Future[_Result]:
        """Start a task; its failures are the future's."""
        if fn not in self._tasks:
            self._tasks[fn] = ray.remote(num_cpus=1)(fn)
        future: Future[_Result] = self._tasks[fn].remote(*args, **kwargs).future()
        return future


def is_on_cluster() -> bool:
    """Say whether the job runs on a cluster that was there before it."""
    return bool(ray.is_initialized() or _cluster_address())


def connect() -> None:
    """Join the cluster of RAY_ADDRESS, else start Ray on this machine alone.

    Raises:
        ClusterError: when it cannot be reached or started, or would take work from strangers.
    """
    if ray.is_initialized():
        return
    address = _cluster_address()
    try:
        if address:
            _join()
        else:
            start_local_ray()
    except (ConnectionError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        reason = str(error).splitlines()[0]
        raise ClusterError("Ray", f"could not be reached or started: {reason}", address or "this machine") from error


def _cluster_address() -> str:
    """Give RAY_ADDRESS; nothing where it says, as Ray would have it, to start one here."""
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == "local" else address


def _join() -> None:
    ray.init(logging_level=logging.WARNING)
    if not _asks_for_token() and (reachable := reachable_addresses(ray.nodes())):  # type: ignore[no-untyped-call]
        logger.warning(
            "the Ray cluster at %s runs code for anyone who reaches it, with the rights of its machines; start it with "
            "RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) on every node, as cluster.yaml does",
            ", ".join(reachable),
        )


def reachable_addresses(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name where other machines can reach a cluster: its nodes' addresses that are not of the loopback."""
    up = {str(node["NodeManagerAddress"]) for node in nodes if node["Alive"]}
    return sorted(address for address in up if not _is_loopback(address))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def start_local_ray(**options: Any) -> None:
    """Start Ray on this machine alone: quietly, without a dashboard, and reachable from nowhere else.

    Args:
        options: of ``ray.init``, for tests and benchmarks.

    Raises:
        ClusterError: when the environment opens it to other machines, and asks them for no token.
    """
    address = options.get("_node_ip_address", "127.0.0.1")
    if not _is_loopback(address):
        raise ClusterError("_node_ip_address", f"must be of the loopback, got {address}")
    for name, value in LOCAL_RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Read once when Ray is imported; without it, Ray listens on every interface, whatever address it is given.
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = _listens_elsewhere()
    keep_ray_data_off_the_terminal()
    with _without_native_chatter():
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **options,
        )
    _end_with_local_ray()


def _end_with_local_ray() -> None:
    """End this process, with one line, when its own Ray dies: calls then hang, or end it after a while without a word.

    What Ray started ends with this process.
    """
    node: Any = ray._private.worker._global_node
    vital = [(kind, info.process) for kind in VITAL_PROCESSES for info in node.all_processes[kind]]

    def watch() -> None:
        while True:
            time.sleep(LOOK_AFTER_RAY_EVERY_S)
            dead = [kind for kind, process in vital if process.poll() is not None]
            # Asked last, since an orderly end begins with leaving.
            if not ray.is_initialized() or ray._private.worker._global_node is not node:
                return
            if dead:
                logger.critical(
                    "Ray has ended on this machine: its %s was killed, or crashed; what is written stays, and the same "
                    "command goes on from there (a training with --resume)",
                    " and ".join(dead),
                )
                os._exit(1)

    threading.Thread(target=watch, name="ray-watch", daemon=True).start()


def _asks_for_token() -> bool:
    return os.environ.get(AUTH_MODE, "").lower() == "token"


def _listens_elsewhere() -> bool:
    """Say whether the environment opens a local Ray to other machines; refuse it where it asks them for no token."""
    value = os.environ[LISTENS_ELSEWHERE]
    if value.lower() not in ("1", "true"):
        return False
    if not _asks_for_token():
        rule = f"must not open this job's Ray to other machines unless {AUTH_MODE} is token, got {value}"
        raise ClusterError(LISTENS_ELSEWHERE, rule, remedy="unset it, or set RAY_ADDRESS to join a cluster")
    return True


def keep_ray_data_off_the_terminal() -> None:
    """Leave what Ray Data reports to its log file: it is plumbing to whoever runs a job on one machine.

    A lost task is told by the job itself, in one line. Ray Data borrows the root logger's handlers, through which our
    own warnings go, so that they are taken from its logger and not muted.
    """
    ray_data = logging.getLogger("ray.data")
    for handler in list(ray_data.handlers):
        if isinstance(handler, logging.StreamHandler):
            ray_data.removeHandler(handler)


@contextmanager
def _without_native_chatter() -> Iterator[None]:
    """Keep what Ray's native code prints at its start off the terminal; its failures are exceptions as well."""
    terminal = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def beside_driver() -> NodeAffinitySchedulingStrategy:
    """Place an actor on the driver's node: what the driver must be able to ask lives as long as the driver does."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def nodes() -> list[dict[str, float]]:
    """Give the CPU and GPU of every node that is up."""
    return [
        node["Resources"]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"]
    ]


def growth() -> dict[str, float]:
    """Ask what the autoscaler may reach; empty where there is none."""
    from ray._private.state import state

    return dict(state.get_max_resources_from_cluster_config() or {})
