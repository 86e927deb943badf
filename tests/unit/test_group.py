"""How many workers with how many threads, and what a training says before it starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from maskrcnn.errors import ClusterError
from maskrcnn.training.arguments import TrainArguments
from maskrcnn.training.banner import describe_batch, describe_rate, describe_training
from maskrcnn.training.counts import DatasetCounts
from maskrcnn.training.group import WorkerGroup, size_group

Nodes = list[dict[str, float]]
LAPTOP: Nodes = [{"CPU": 2.0, "memory": 1e9}]
BIG: Nodes = [{"CPU": 64.0}]
GPUS: Nodes = [{"CPU": 2.0}, {"CPU": 16.0, "GPU": 4.0}, {"CPU": 32.0, "GPU": 4.0}]


def group(
    nodes: Nodes, num_workers: tuple[int, int], *, gpu: bool = False, growth: dict[str, float] | None = None
) -> WorkerGroup:
    return size_group(nodes, growth or {}, wants_gpu=gpu, num_workers=num_workers)


@pytest.mark.parametrize(
    ("nodes", "num_workers", "threads"),
    [
        (LAPTOP, (1, 1), 2),
        (LAPTOP, (2, 2), 1),
        (BIG, (1, 1), 16),
        (BIG, (8, 8), 8),
        (BIG, (3, 3), 16),
        ([{"CPU": 16.0}, {"CPU": 16.0}], (2, 2), 16),
        ([{"CPU": 10.0}], (3, 3), 3),
        ([{"CPU": 3.0}, {"CPU": 3.0}], (3, 3), 1),  # two threads each would leave no node for the third
        ([{"CPU": 2.0}, {"CPU": 8.0}], (2, 2), 4),  # five each would fit into the sum, and onto no two nodes
        (LAPTOP, (1, 4), 1),  # more workers than there are now: elastic ones come later
        ([], (1, 1), 1),
    ],
)
def test_workers_on_cpus_share_what_their_nodes_have(nodes: Nodes, num_workers: tuple[int, int], threads: int) -> None:
    found = group(nodes, num_workers, growth={"CPU": 1} if not nodes else None)
    assert found == WorkerGroup(*num_workers, 0, threads)
    fitting = sum(int(node["CPU"]) // found.num_cpus for node in nodes)
    assert fitting >= min(num_workers[1], sum(int(node["CPU"]) for node in nodes))


@pytest.mark.parametrize(
    ("nodes", "num_workers", "threads"),
    [
        (GPUS, (8, 8), 4),  # a head without GPUs holds no worker, so that its few cores do not count
        (GPUS[1:], (1, 4), 4),
        ([{"CPU": 96.0, "GPU": 2.0}], (2, 2), 16),
        ([{"CPU": 4.0, "GPU": 1.0}], (1, 1), 4),
    ],
)
def test_workers_on_gpus_share_the_cores_beside_them(nodes: Nodes, num_workers: tuple[int, int], threads: int) -> None:
    assert group(nodes, num_workers, gpu=True) == WorkerGroup(*num_workers, 1, threads)


def test_an_autoscaler_may_grow_into_the_group() -> None:
    assert group(LAPTOP, (4, 8), growth={"CPU": 32}) == WorkerGroup(4, 8, 0, 1)
    assert group(LAPTOP, (2, 8), gpu=True, growth={"GPU": 8, "CPU": 64}) == WorkerGroup(2, 8, 1, 1)


@pytest.mark.parametrize(
    ("nodes", "num_workers", "gpu", "growth", "line"),
    [
        (
            LAPTOP,
            (3, 3),
            False,
            {},
            "--num-workers must be at most the cluster's 2 CPUs, one a worker, got 3; "
            "take fewer, with --grad-accum-steps for the same batch",
        ),
        (GPUS, (9, 12), True, {}, "--num-workers must be at most the cluster's 8 GPUs, one a worker, got 9; take"),
        (LAPTOP, (9, 9), False, {"CPU": 8}, "--num-workers must be at most the cluster's 8 CPUs, one a worker, got 9"),
        (LAPTOP, (1, 1), True, {}, "--num-workers must be at most the cluster's 0 GPUs, one a worker, got 1; take --d"),
        ([], (1, 1), False, {}, "--num-workers must be at most the cluster's 0 CPUs, one a worker, got 1"),
    ],
)
def test_too_small_a_cluster_is_refused_with_numbers(
    nodes: Nodes, num_workers: tuple[int, int], gpu: bool, growth: dict[str, float], line: str
) -> None:
    with pytest.raises(ClusterError) as caught:
        group(nodes, num_workers, gpu=gpu, growth=growth)
    assert str(caught.value).startswith(line)


COUNTS = DatasetCounts(
    num_images=1000,
    num_negatives=40,
    num_crowds=1234,
    instances_by_category={f"thing{number:02d}": 10 * number for number in range(1, 16)},
    left_out={"no mask": 1500, "degenerate box": 2},
    first_left_out={"no mask": "annotation 7 (image 3)", "degenerate box": "annotation 9 (image 4)"},
)


def banner(counts: DatasetCounts = COUNTS, num_learnt: int = 1000, **values: Any) -> dict[str, str]:
    """Describe a training, and give its lines by their first words; lines of one word are joined."""
    given = TrainArguments(**{"images": "in", "annotations": "a.json", "output": "s3://b/out"} | values)
    config = given.train_config(num_learnt)
    text = describe_training(
        given, config, WorkerGroup(2, 4, 1, 8), counts, num_learnt=num_learnt, loaded="weights imagenet: loaded much"
    )
    lines: dict[str, str] = {}
    for line in text.splitlines():
        lines[line[:10].strip()] = (lines.get(line[:10].strip(), "") + "|" + line[10:].strip()).lstrip("|")
    return lines


def test_the_banner_says_what_will_happen() -> None:
    lines = banner(num_workers="2,4", batch_size=3, grad_accum_steps=2, epochs=6, compile=True)
    assert list(lines) == [
        "network", "loaded", "frozen", "images", "instances", "left out", "batch", "rate", "schedule", "output",
    ]  # fmt: skip
    assert lines["network"] == "resnet50, heads v1, 800 to 1333 px, precision bf16 if the GPU has it, compiled"
    assert lines["loaded"] == "weights imagenet: loaded much"
    assert lines["frozen"] == "the stem, layer1; norms frozen"
    assert lines["images"] == "1,000 to learn from; 40 without instances (as background), 1,234 crowds (ignored areas)"
    assert lines["left out"] == (
        "1,500 with no mask, the first annotation 7 (image 3)|2 with degenerate box, the first annotation 9 (image 4)"
    )
    assert lines["batch"] == (
        "4 GPU worker(s) x 3 x 2 accumulated = 24 images an update, also while there are only 2 workers"
    )
    assert lines["rate"] == "0.005 x 4 worker(s) = 0.02"
    assert lines["schedule"] == ("252 steps (6.0 epochs of 42), sgd, warm-up 12, multistep, x 0.1 at 168, 224")
    assert lines["output"] == "s3://b/out"


def test_the_banner_names_the_largest_categories_and_counts_the_rest() -> None:
    instances = banner()["instances"]
    assert instances.startswith("1,200: thing15 150, thing14 140, ")
    assert instances.endswith(", thing04 40, 3 more categories with 60")
    few = replace(COUNTS, instances_by_category={"can": 3, "box": 4000})
    assert banner(few)["instances"] == "4,003: box 4,000, can 3"


def test_the_banner_says_what_is_dropped() -> None:
    lines = banner(num_learnt=960, crowds="drop", negatives="drop", weights="none", decay="cosine", max_steps=100)
    assert lines["images"] == "960 to learn from; 40 without instances (left out), 1,234 crowds (left out)"
    assert lines["frozen"] == "nothing; norms batch"
    assert lines["schedule"] == "100 steps (0.2 epochs of 480), sgd, warm-up 5, cosine"
    quiet = replace(COUNTS, num_crowds=0, left_out={}, first_left_out={})
    assert "crowds" not in banner(quiet)["images"]
    assert "left out" not in banner(quiet)


def test_the_banner_gives_the_sizes_that_are_used() -> None:
    assert banner(min_size=2000)["network"].startswith("resnet50, heads v1, 2000 to 2000 px, ")


def test_a_batch_that_other_workers_began_need_not_come_out_even() -> None:
    given = TrainArguments(images="in", annotations="a", output="o", num_workers="4", grad_accum_steps=3)
    config = given.train_config(1000)
    text = describe_batch(config, WorkerGroup(5, 5, 0, 2))
    assert text == "5 2-thread CPU worker(s) x 2 x 3 accumulated >= 24 images an update"
    assert describe_rate(given, config) == "0.005 x 4 worker(s) = 0.02"
    unscaled = replace(given, scale_learning_rate=False)
    assert describe_rate(unscaled, unscaled.train_config(1000)) == "0.005, not scaled by the workers"
