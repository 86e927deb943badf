from __future__ import annotations

import pytest

from maskrcnn.errors import ClusterError
from maskrcnn.labelling.pool import Pool, size_pool

LAPTOP = [{"CPU": 2.0}]
GPU_NODES = [{"CPU": 8.0}, {"CPU": 16.0, "GPU": 4.0}, {"CPU": 16.0, "GPU": 4.0}]


def pool(
    nodes: list[dict[str, float]],
    num_actors: tuple[int, int] | None = None,
    *,
    gpu: bool = False,
    growth: dict[str, float] | None = None,
    num_parts: int = 100,
) -> Pool:
    return size_pool(nodes, growth or {}, wants_gpu=gpu, num_actors=num_actors, num_parts=num_parts)


def test_one_machine_without_a_gpu_gets_one_actor_with_its_cores() -> None:
    assert pool(LAPTOP) == Pool(1, 1, 0, 2)


def test_actors_share_the_cores_of_a_machine() -> None:
    assert pool(LAPTOP, (2, 2)) == Pool(2, 2, 0, 1)
    assert pool([{"CPU": 16.0}]) == Pool(4, 4, 0, 4)


def test_every_gpu_gets_an_actor() -> None:
    assert pool(GPU_NODES, gpu=True) == Pool(8, 8, 1, 1)
    assert pool(GPU_NODES, (2, 4), gpu=True) == Pool(2, 4, 1, 1)


def test_there_are_never_more_actors_than_parts() -> None:
    assert pool(GPU_NODES, gpu=True, num_parts=3) == Pool(3, 3, 1, 1)
    assert pool(GPU_NODES, (4, 8), gpu=True, num_parts=1) == Pool(1, 1, 1, 1)


def test_a_small_maximum_is_not_exceeded_and_a_large_one_is_cut_to_what_fits() -> None:
    assert pool(GPU_NODES, (1, 100), gpu=True) == Pool(1, 8, 1, 1)


def test_an_autoscaler_may_grow_into_the_pool() -> None:
    assert pool([{"CPU": 4.0}], gpu=True, growth={"GPU": 16}) == Pool(1, 16, 1, 1)
    assert pool([{"CPU": 4.0}], (8, 16), gpu=True, growth={"GPU": 16}) == Pool(8, 16, 1, 1)


def test_actors_fit_onto_nodes_not_only_into_the_sum() -> None:
    assert pool([{"CPU": 6.0}, {"CPU": 6.0}]) == Pool(2, 2, 0, 4)


@pytest.mark.parametrize(
    ("nodes", "num_actors", "gpu", "message"),
    [
        (LAPTOP, (4, 4), False, "--num-actors needs 4 CPUs for 4 actors, and the cluster has 2; take fewer actors"),
        (LAPTOP, None, True, "the job needs 1 GPUs for 1 actor, and the cluster has 0; take --device cpu"),
        (GPU_NODES, (9, 9), True, "--num-actors needs 9 GPUs for 9 actors, and the cluster has 8; take fewer actors"),
        ([], None, False, "the job needs .* and the cluster has 0"),
    ],
)
def test_too_small_a_cluster_is_refused_with_numbers(
    nodes: list[dict[str, float]], num_actors: tuple[int, int] | None, gpu: bool, message: str
) -> None:
    with pytest.raises(ClusterError, match=message):
        pool(nodes, num_actors, gpu=gpu)
