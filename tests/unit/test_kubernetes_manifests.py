"""The manifests are ones that Kubernetes with KubeRay takes whole, and they let nobody in; no cluster is asked."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import jsonschema
import pytest
import tyro
import yaml

from maskrcnn.cluster import KEEPALIVE_ENVIRONMENT
from maskrcnn.commands.predict import PredictArguments
from tests.conftest import PROJECT_ROOT

METRICS_PORT = 8080
FOLDER = PROJECT_ROOT / "deploy" / "kubernetes"
Document = dict[str, Any]


def documents(name: str) -> list[Document]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


@pytest.fixture(scope="module")
def job() -> Document:
    (found,) = documents("labelling.yaml")
    return found


@pytest.fixture(scope="module")
def nightly() -> Document:
    (found,) = documents("nightly.yaml")
    return found


@pytest.fixture(scope="module")
def access() -> list[Document]:
    return documents("access.yaml")


def pods(job: Document) -> Iterator[tuple[str, Document]]:
    """Give every pod that the job starts."""
    cluster = job["spec"]["rayClusterSpec"]
    yield "submitter", job["spec"]["submitterPodTemplate"]["spec"]
    yield "head", cluster["headGroupSpec"]["template"]["spec"]
    for group in cluster["workerGroupSpecs"]:
        yield group["groupName"], group["template"]["spec"]


def containers(job: Document) -> list[Document]:
    """Give every container, the autoscaler's among them, which KubeRay puts beside the head."""
    return [each for _, pod in pods(job) for each in pod["containers"]] + [
        job["spec"]["rayClusterSpec"]["autoscalerOptions"]
    ]


def closed(schema: Any) -> Any:
    """Refuse fields that a CRD does not know, which Kubernetes drops without a word."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in schema:
        found["properties"] = {name: closed(each) for name, each in schema["properties"].items()}
        found.setdefault("additionalProperties", False)
    return found


def validator(shared_path: Path, plural: str) -> jsonschema.Draft202012Validator:
    """Give what checks the spec of one of KubeRay's kinds."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where there is one, is ten times as fast
    crd = yaml.load((shared_path / "reference" / "kuberay" / f"ray.io_{plural}.yaml").read_text(), loader)
    (version,) = (each for each in crd["spec"]["versions"] if each["name"] == "v1")
    return jsonschema.Draft202012Validator(closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"]))


def test_kuberays_schemas_take_every_field_of_the_job_and_of_its_nights(
    job: Document, nightly: Document, shared_path: Path
) -> None:
    for document, plural in ((job, "rayjobs"), (nightly, "raycronjobs")):
        schema = validator(shared_path, plural)
        schema.validate(document["spec"])
        with pytest.raises(jsonschema.ValidationError, match="headless"):
            schema.validate({**document["spec"], "headless": True})


def test_every_night_is_the_job_and_is_over_before_the_next(job: Document, nightly: Document) -> None:
    assert nightly["kind"] == "RayCronJob"
    assert nightly["spec"]["jobTemplate"] == job["spec"]
    minute, hour, *days = nightly["spec"]["schedule"].split()
    assert int(minute) < 60
    assert int(hour) < 24
    assert days == ["*", "*", "*"], "once a day"
    ZoneInfo(nightly["spec"]["timeZone"])
    assert nightly["spec"]["suspend"] is False
    assert job["spec"]["activeDeadlineSeconds"] < 23 * 3600, "nothing else keeps two nights apart"


def test_what_jobs_are_told_is_what_the_command_takes(job: Document) -> None:
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "jobs.predict"]
    assert words[-2:] == ["--log-format", "json"], "of every command"
    given = tyro.cli(PredictArguments, args=words[3:-2], config=(tyro.conf.OmitArgPrefixes,))
    given.to_config()


def test_the_image_names_the_ray_that_the_cluster_names(job: Document) -> None:
    pinned = re.search(r"^ray==(.*)$", (PROJECT_ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]


def test_ray_asks_everyone_for_the_secrets_token_and_notices_cut_links(job: Document) -> None:
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token", "secretName": "maskrcnn-ray-token"}
    for container in containers(job):
        environment = {each["name"]: each.get("value") for each in container["env"]}
        assert environment.items() >= {"RAY_AUTH_MODE": "token", **KEEPALIVE_ENVIRONMENT}.items()
        assert "RAY_AUTH_TOKEN" not in environment


def test_no_container_is_root_or_can_become_it_or_write_into_its_image(job: Document) -> None:
    for container in containers(job):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    for name, pod in pods(job):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}, name
        assert all("emptyDir" in volume for volume in pod["volumes"]), name


def test_the_head_has_no_work_and_workers_start_from_zero(job: Document) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["enableInTreeAutoscaling"] is True
    for group in cluster["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
    for _, pod in pods(job):
        for container in pod["containers"]:
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_every_ray_shows_its_figures_where_prometheus_may_ask(job: Document) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        assert group["rayStartParams"]["metrics-export-port"] == str(METRICS_PORT)
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "metrics", "containerPort": METRICS_PORT} in container["ports"]


def test_pods_have_accounts_of_their_own_and_only_the_head_may_speak_to_kubernetes(
    job: Document, access: list[Document]
) -> None:
    accounts = {each["metadata"]["name"]: each for each in access if each["kind"] == "ServiceAccount"}
    by_pod = dict(pods(job))
    for name in ("head", "gpu"):
        annotations = accounts[by_pod[name]["serviceAccountName"]]["metadata"]["annotations"]
        assert annotations["eks.amazonaws.com/role-arn"].startswith("arn:aws:iam::")
    assert [name for name, pod in by_pod.items() if pod.get("automountServiceAccountToken", True)] == ["head"]


def test_only_the_namespace_reaches_ray_the_operator_its_dashboard_and_prometheus_its_figures(
    job: Document, nightly: Document, access: list[Document]
) -> None:
    (policy,) = (each for each in access if each["kind"] == "NetworkPolicy")
    assert policy["spec"]["podSelector"] == {}, "every pod"
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    own, operator, prometheus = policy["spec"]["ingress"]
    assert own == {"from": [{"podSelector": {}}]}
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert prometheus["ports"] == [{"protocol": "TCP", "port": METRICS_PORT}]
    for visitor in (operator, prometheus):
        assert all(peer.keys() == {"namespaceSelector", "podSelector"} for peer in visitor["from"])
    assert job["spec"]["rayClusterSpec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert {each["metadata"]["namespace"] for each in [job, nightly, *access]} == {"maskrcnn"}
