"""The manifests are ones that Kubernetes with KubeRay takes whole, and they let nobody in; no cluster is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from maskrcnn.cluster import KEEPALIVE_ENVIRONMENT
from tests.conftest import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "deploy" / "kubernetes"
Document = dict[str, Any]


def documents(name: str) -> list[Document]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


@pytest.fixture(scope="module")
def job() -> Document:
    (found,) = documents("labelling.yaml")
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


@pytest.fixture(scope="module")
def schema(shared_path: Path) -> Document:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where there is one, is ten times as fast
    crd = yaml.load((shared_path / "reference" / "kuberay" / "ray.io_rayjobs.yaml").read_text(), loader)
    (version,) = (each for each in crd["spec"]["versions"] if each["name"] == "v1")
    spec: Document = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return closed(spec)  # type: ignore[no-any-return]


def test_kuberays_schema_takes_every_field_of_the_job(job: Document, schema: Document) -> None:
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(job["spec"])
    with pytest.raises(jsonschema.ValidationError, match="headless"):
        validator.validate({**job["spec"], "headless": True})


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


def test_pods_have_accounts_of_their_own_and_only_the_head_may_speak_to_kubernetes(
    job: Document, access: list[Document]
) -> None:
    accounts = {each["metadata"]["name"]: each for each in access if each["kind"] == "ServiceAccount"}
    by_pod = dict(pods(job))
    for name in ("head", "gpu"):
        annotations = accounts[by_pod[name]["serviceAccountName"]]["metadata"]["annotations"]
        assert annotations["eks.amazonaws.com/role-arn"].startswith("arn:aws:iam::")
    assert [name for name, pod in by_pod.items() if pod.get("automountServiceAccountToken", True)] == ["head"]


def test_only_the_namespace_and_the_operator_reach_ray(job: Document, access: list[Document]) -> None:
    (policy,) = (each for each in access if each["kind"] == "NetworkPolicy")
    assert policy["spec"]["podSelector"] == {}, "every pod"
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    own, operator = policy["spec"]["ingress"]
    assert own == {"from": [{"podSelector": {}}]}
    assert operator["ports"] == [{"protocol": "TCP", "port": 8265}]
    assert all(peer.keys() == {"namespaceSelector", "podSelector"} for peer in operator["from"])
    assert job["spec"]["rayClusterSpec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert {each["metadata"]["namespace"] for each in [job, *access]} == {"maskrcnn"}
