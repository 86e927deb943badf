"""How many workers a training has, and what each has, as pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from maskrcnn.errors import ClusterError

MAX_THREADS = 16
"""A worker on CPUs; more make one network little faster."""


@dataclass(frozen=True)
class WorkerGroup:
    """How many workers, and what each has."""

    min_workers: int
    max_workers: int
    num_gpus: int
    num_cpus: int


def size_group(
    nodes: Sequence[Mapping[str, float]], growth: Mapping[str, float], *, wants_gpu: bool, num_workers: tuple[int, int]
) -> WorkerGroup:
    """Fit a group of workers into a cluster.

    Args:
        nodes: the CPU and GPU of every node that is there now.
        growth: the most CPU and GPU that the autoscaler may reach; empty where there is none.
        wants_gpu: one GPU a worker, or CPUs only.
        num_workers: the fewest and the most.

    Raises:
        ClusterError: with the numbers, when the cluster can never hold the fewest.
    """
    least, most = num_workers
    unit = "GPU" if wants_gpu else "CPU"
    total = sum(int(node.get(unit, 0)) for node in nodes)
    can_grow_to = max(total, int(growth.get(unit, 0)))
    if can_grow_to < least:
        rule = f"must be at most the cluster's {can_grow_to} {unit}s, one a worker, got {least}"
        remedy = "take fewer, with --grad-accum-steps for the same batch" if can_grow_to else "take --device cpu"
        raise ClusterError("--num-workers", rule, remedy=remedy)
    threads = _threads_beside_a_gpu(nodes) if wants_gpu else _threads_that_fit(nodes, most)
    return WorkerGroup(least, most, int(wants_gpu), threads)


def _threads_beside_a_gpu(nodes: Sequence[Mapping[str, float]]) -> int:
    shares = [int(node.get("CPU", 0)) // int(node["GPU"]) for node in nodes if node.get("GPU", 0) >= 1]
    return max(1, min(MAX_THREADS, *shares, MAX_THREADS if shares else 1))


def _threads_that_fit(nodes: Sequence[Mapping[str, float]], num_workers: int) -> int:
    """Give the most threads of which all workers find room, each on one node; one where not all do."""
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    fitting = (each for each in range(MAX_THREADS, 1, -1) if sum(count // each for count in cpus) >= num_workers)
    return next(fitting, 1)
