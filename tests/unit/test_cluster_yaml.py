"""The cluster configuration is one that Ray accepts, and lets nobody in; no cloud is asked."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator

from maskrcnn.cluster import KEEPALIVE_ENVIRONMENT
from tests.conftest import PROJECT_ROOT
from tests.unit.test_dockerfile import INSTALL


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
            "PATH=~/venv/bin:$PATH",
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


def test_only_workers_are_spot_machines_and_idle_ones_end(config: dict[str, Any]) -> None:
    nodes = config["available_node_types"]
    assert "InstanceMarketOptions" not in nodes["head"]["node_config"]
    assert nodes["gpu_spot"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert config["provider"]["cache_stopped_nodes"] is False


def test_machines_come_with_everything_and_install_nothing_at_night(
    config: dict[str, Any], machine: dict[str, Any]
) -> None:
    assert machine["ImageId"].startswith("ami-")
    commands = [line for name, lines in config.items() if name.endswith("_commands") for line in lines]
    assert not [line for line in commands if "pip" in line or "apt" in line]
    assert INSTALL in (PROJECT_ROOT / "cluster.yaml").read_text()


def test_ec2_knows_every_field_of_the_machines(machine: dict[str, Any]) -> None:
    """Validated by botocore's own model of RunInstances, as Ray gives it, with a subnet for the list of them."""
    model = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    request = {**machine, "SubnetId": machine["SubnetIds"][0], "MinCount": 1, "MaxCount": 1}
    del request["SubnetIds"]
    validator = ParamValidator()
    assert not validator.validate(request, model).has_errors()
    wrong = {**request, "InstanceMarketOptions": {"Market": "spot"}}
    assert "InstanceMarketOptions" in validator.validate(wrong, model).generate_report()


def test_machines_and_their_disks_are_told_apart_on_the_bill(machine: dict[str, Any]) -> None:
    tags = {each["ResourceType"]: each["Tags"] for each in machine["TagSpecifications"]}
    assert tags == {key: [{"Key": "project", "Value": "maskrcnn"}] for key in ("instance", "volume")}
