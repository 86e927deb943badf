"""The cluster configuration is one that Ray accepts, and lets nobody in; no cloud is asked."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import yaml

from maskrcnn.cluster import KEEPALIVE_ENVIRONMENT
from tests.conftest import PROJECT_ROOT


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """The configuration as Ray fills it out from its defaults."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(yaml.safe_load((PROJECT_ROOT / "cluster.yaml").read_text()))
    validate_config(deepcopy(prepared))
    return prepared


@pytest.fixture(params=["head", "gpu_spot"])
def machine(request: pytest.FixtureRequest, config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["available_node_types"][request.param]["node_config"]
    return found


def test_the_head_has_no_work_and_workers_start_from_zero(config: dict[str, Any]) -> None:
    nodes = config["available_node_types"]
    assert nodes[config["head_node_type"]]["resources"]["CPU"] == 0
    workers = [node for name, node in nodes.items() if name != config["head_node_type"]]
    assert all(node["min_workers"] == 0 and node["resources"]["GPU"] == 1 for node in workers)


def test_every_ray_starts_with_token_auth_keepalives_and_no_open_dashboard(config: dict[str, Any]) -> None:
    starts = [
        line for line in config["head_start_ray_commands"] + config["worker_start_ray_commands"] if " start " in line
    ]
    assert len(starts) == 2
    for line in starts:
        variables = line.partition("~/venv/bin/ray")[0].split()
        assert variables == [
            "RAY_AUTH_MODE=token",
            *(f"{name}={value}" for name, value in KEEPALIVE_ENVIRONMENT.items()),
        ]
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_the_token_lies_where_ray_looks_for_it_and_is_in_no_command(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in config["head_setup_commands"]
    assert "chmod 600 ~/.ray/auth_token" in config["worker_setup_commands"]
    assert "RAY_AUTH_TOKEN" not in str(config)


def test_machines_have_no_address_outside_and_no_group_of_rays_making(
    config: dict[str, Any], machine: dict[str, Any]
) -> None:
    assert config["provider"]["use_internal_ips"] is True
    zones = config["provider"]["availability_zone"].split(",")
    assert len(zones) == len(set(zones)) == len(machine["SubnetIds"]) == 3
    # Where a node type names none, Ray makes one that lets anyone try SSH.
    assert machine["SecurityGroupIds"]
    assert "security_group" not in config["provider"]
    assert "NetworkInterfaces" not in machine


def test_machines_have_rights_of_their_own_and_give_them_to_no_forged_request(machine: dict[str, Any]) -> None:
    assert machine["IamInstanceProfile"]["Name"]
    assert machine["MetadataOptions"]["HttpTokens"] == "required"
    assert machine["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert all(disk["Ebs"]["Encrypted"] for disk in machine["BlockDeviceMappings"])


def test_only_workers_are_spot_machines(config: dict[str, Any]) -> None:
    nodes = config["available_node_types"]
    assert "InstanceMarketOptions" not in nodes["head"]["node_config"]
    assert nodes["gpu_spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
