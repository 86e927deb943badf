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
    cpus = [int(node.get("CPU", 0)) // max(1, int(node.get("GPU", 0)) if wants_gpu else 1) for node in nodes]
    fair_share = sum(cpus) // most if not wants_gpu and cpus else min([count for count in cpus if count] or [1])
    return WorkerGroup(least, most, int(wants_gpu), max(1, min(MAX_THREADS, fair_share, max(cpus, default=1) or 1)))
