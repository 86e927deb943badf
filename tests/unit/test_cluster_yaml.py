"""The cluster configuration is one that Ray accepts; no cloud is asked."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.conftest import PROJECT_ROOT


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((PROJECT_ROOT / "cluster.yaml").read_text())
    return document


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


def test_the_head_has_no_work_and_workers_start_from_zero(config: dict[str, Any]) -> None:
    nodes = config["available_node_types"]
    assert nodes[config["head_node_type"]]["resources"]["CPU"] == 0
    workers = [node for name, node in nodes.items() if name != config["head_node_type"]]
    assert all(node["min_workers"] == 0 and node["resources"]["GPU"] == 1 for node in workers)


def test_ray_starts_with_token_auth_and_no_open_dashboard(config: dict[str, Any]) -> None:
    starts = [
        line for line in config["head_start_ray_commands"] + config["worker_start_ray_commands"] if "start" in line
    ]
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
