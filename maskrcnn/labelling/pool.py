"""How many actors a cluster has room for, as pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from maskrcnn.errors import ClusterError

CPUS_PER_ACTOR = 4
"""At most: more threads than this make one network little faster, more networks do."""

CPU = "CPU"
_ACCELERATOR = "accelerator_type:"


@dataclass(frozen=True)
class Pool:
    """The size of an actor pool."""

    min_actors: int
    max_actors: int
    num_gpus: int
    """An actor."""
    num_cpus: int
    """An actor, of Ray's logical CPUs; torch gets as many threads."""


def size_pool(
    nodes: Sequence[Mapping[str, float]],
    growth: Mapping[str, float],
    *,
    wants_gpu: bool,
    num_actors: tuple[int, int] | None,
    num_parts: int,
) -> Pool:
    """Fit an actor pool into a cluster.

    Args:
        nodes: the CPU and GPU of every node that is there now.
        growth: the most CPU and GPU that the autoscaler may reach; empty where there is none.
        wants_gpu: one GPU an actor, or CPUs only.
        num_actors: the user's minimum and maximum; None for as many as fit.
        num_parts: there is no use in more actors than parts.

    Raises:
        ClusterError: with the numbers, when the cluster can never hold the minimum.
    """
    unit = "GPU" if wants_gpu else "CPU"
    total = sum(int(node.get(unit, 0)) for node in nodes)
    can_grow_to = max(total, int(growth.get(unit, 0)))
    largest_node = max([int(node.get("CPU", 0)) for node in nodes] or [0])
    if wants_gpu:
        per_actor, num_cpus = 1, 1
    else:
        wanted = num_actors[1] if num_actors else 0
        fair_share = can_grow_to // wanted if wanted else CPUS_PER_ACTOR
        num_cpus = per_actor = max(1, min(CPUS_PER_ACTOR, fair_share, largest_node or CPUS_PER_ACTOR))
    now = _fitting(nodes, unit, per_actor)
    capacity = max(now, can_grow_to // per_actor if can_grow_to > total else 0)
    least, most = num_actors if num_actors else (1, capacity)
    if capacity < least:
        need = f"{least * per_actor} {unit}s for {least} actor{'s' if least > 1 else ''}"
        rule = f"needs {need}, and the cluster has {can_grow_to}"
        remedy = "take fewer actors" if least > 1 else "take --device cpu" if wants_gpu else "give Ray a CPU"
        raise ClusterError("--num-actors" if num_actors else "the job", rule, remedy=remedy)
    most = max(1, min(most, capacity, num_parts))
    # Without an autoscaler there is nothing to wait for: start them all.
    start = max(least, min(most, now)) if num_actors is None else least
    return Pool(min(start, most), most, int(wants_gpu), num_cpus)


def _fitting(nodes: Sequence[Mapping[str, float]], unit: str, per_actor: int) -> int:
    return sum(int(node.get(unit, 0)) // per_actor for node in nodes)


def name_device(nodes: Sequence[Mapping[str, float]], *, has_gpu: bool) -> str:
    """Name what actors run on: CPU, or the cluster's kinds of GPU, such as H200."""
    if not has_gpu:
        return CPU
    kinds = {name.removeprefix(_ACCELERATOR) for node in nodes for name in node if name.startswith(_ACCELERATOR)}
    return " or ".join(sorted(kinds)) or "GPU"
