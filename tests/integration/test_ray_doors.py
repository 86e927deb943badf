"""A Ray of this machine's own: nobody else reaches it, and it leaves nothing in the user's home."""

from __future__ import annotations

import ipaddress
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT_ROOT
from tests.integration.test_labelling_job import write_images

_LISTENING = "0A"
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address_of(text: str) -> Address:
    """Read an address as /proc/net writes it: hexadecimal, each four bytes the wrong way round."""
    words = [int(text[place : place + 8], 16) for place in range(0, len(text), 8)]
    packed = struct.pack(f"<{len(words)}I", *words)
    if len(packed) == 4:
        return ipaddress.IPv4Address(packed)
    found = ipaddress.IPv6Address(packed)
    return found.ipv4_mapped or found


def listening_sockets() -> dict[str, Address]:
    """Give the address of every listening TCP socket of this machine, by the name of its inode."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING:
                found[f"socket:[{fields[9]}]"] = address_of(fields[1].split(":")[0])
    return found


def descendants(pid: int) -> list[int]:
    """Give a process and all that it started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def listening_addresses(pids: list[int]) -> dict[int, set[Address]]:
    """Say where processes listen."""
    sockets, found = listening_sockets(), {}
    for pid in pids:
        try:
            names = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:
            continue
        if mine := {sockets[name] for name in names & sockets.keys()}:
            found[pid] = mine
    return found


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F", "127.0.0.1"),
        ("00000000", "0.0.0.0"),
        ("0000000000000000FFFF00000100007F", "127.0.0.1"),
        ("00000000000000000000000001000000", "::1"),
        ("00000000000000000000000000000000", "::"),
    ],
)
def test_addresses_are_read_as_the_kernel_writes_them(text: str, address: str) -> None:
    assert address_of(text) == ipaddress.ip_address(address)


def test_every_process_of_a_local_ray_listens_on_loopback_only(local_ray: None) -> None:
    import ray

    @ray.remote(num_cpus=1)
    def where_this_worker_is() -> int:
        return os.getpid()

    worker = ray.get(where_this_worker_is.remote())
    assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}
    found = listening_addresses(descendants(os.getpid()))
    node = ray._private.worker._global_node
    servers = {node.all_processes[kind][0].process.pid for kind in ("raylet", "gcs_server")}
    assert {worker, *servers} <= found.keys(), "they do listen"
    open_to_others = {pid: places for pid, places in found.items() if not all(each.is_loopback for each in places)}
    assert open_to_others == {}


def test_a_local_ray_notices_cut_links_as_soon_as_a_cluster_does(local_ray: None) -> None:
    from ray._raylet import Config

    from maskrcnn.cluster import KEEPALIVE_ENVIRONMENT

    found = (Config.grpc_client_keepalive_time_ms(), Config.grpc_client_keepalive_timeout_ms())
    assert found == tuple(map(int, KEEPALIVE_ENVIRONMENT.values()))


def run_in_home(bundle: str, tmp_path: Path, **variables: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Label two images with an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    images = write_images(tmp_path / "in", 2)
    command = [
        sys.executable, "-m", "jobs.predict", "--bundle", bundle, "--images", str(images),
        "--output", str(tmp_path / "out"), "--num-actors", "1",
    ]  # fmt: skip
    run = subprocess.run(
        command,
        cwd=PROJECT_ROOT,
        env={**environment, "HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return run, home


def test_a_labelling_leaves_nothing_in_the_users_home(tiny_bundle: str, tmp_path: Path) -> None:
    run, home = run_in_home(tiny_bundle, tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert list(home.rglob("*")) == [], "no token, no cache, no settings"


def test_a_command_that_would_open_ray_to_others_ends_with_one_line(tiny_bundle: str, tmp_path: Path) -> None:
    run, home = run_in_home(tiny_bundle, tmp_path, RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="1")
    assert run.returncode == 2, run.stdout + run.stderr
    assert run.stderr.splitlines() == [
        "jobs.predict: RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER must not open this job's Ray to other machines unless "
        "RAY_AUTH_MODE is token, got 1; unset it, or set RAY_ADDRESS to join a cluster (docs/CLUSTER.md)"
    ]
    assert run.stdout == ""
    assert not (tmp_path / "out" / "plans").exists(), "refused before anything is planned"
    assert list(home.rglob("*")) == []
