"""The policies of deploy/iam against a server that enforces them: enough for the jobs, and for nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch

from maskrcnn import storage
from maskrcnn.errors import AccessError
from maskrcnn.training.checkpoint import TrainState, list_checkpoints, prune_checkpoints, save_checkpoint
from tests.conftest import PROJECT_ROOT, free_port, wait_until_listening
from tests.integration.test_labelling_job import write_images

FOLDER = PROJECT_ROOT / "deploy" / "iam"
PREFIXES = {
    "IMAGES_PREFIX": "in/photos",
    "BUNDLE_PREFIX": "in/bundle",
    "OUTPUT_PREFIX": "out/run",
    "REPORT_PREFIX": "out/report",
}

DELETABLE = {
    "training": ["OUTPUT_PREFIX/checkpoints/*", "OUTPUT_PREFIX/bundle*/model.next.safetensors"],
    "reporting": ["REPORT_PREFIX/*"],
}
OBJECTS = re.compile(r"arn:aws:s3:::\w+_BUCKET/\w+_PREFIX/(\*|checkpoints/\*|bundle\*/model\.next\.safetensors)")


@dataclass(frozen=True)
class Account:
    """A server that asks every caller for the right to do what it does."""

    endpoint: str
    admin: dict[str, str]
    bucket: str

    def client(self, service: str, credentials: dict[str, str]) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
        )

    def user(self, *policies: str, **more: str) -> dict[str, str]:
        """Make a user with exactly these policies, and give the environment of its jobs.

        Args:
            policies: names of files.
            more: whole policies.
        """
        iam, name = self.client("iam", self.admin), f"user-{uuid.uuid4().hex[:8]}"
        iam.create_user(UserName=name)
        for policy in policies:
            iam.put_user_policy(UserName=name, PolicyName=policy, PolicyDocument=self.filled_in(policy))
        for policy, document in more.items():
            iam.put_user_policy(UserName=name, PolicyName=policy, PolicyDocument=document)
        return _environment(self.endpoint, iam.create_access_key(UserName=name)["AccessKey"])

    def filled_in(self, policy: str) -> str:
        text = (FOLDER / f"{policy}.json").read_text()
        for word, value in {**PREFIXES, "INPUT_BUCKET": self.bucket, "OUTPUT_BUCKET": self.bucket}.items():
            text = text.replace(word, value)
        assert not re.search(r"[A-Z]_(BUCKET|PREFIX)", text)
        return text


def _environment(endpoint: str, key: dict[str, str]) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    port, log_path = free_port(), tmp_path_factory.mktemp("moto") / "log"
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with log_path.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            wait_until_listening(port)
            yield _open_account(f"http://127.0.0.1:{port}")
        finally:
            server.terminate()


def _open_account(endpoint: str) -> Account:
    """Make a bucket and an administrator, then let the server ask everyone for their rights."""
    nobody = {"AWS_ACCESS_KEY_ID": "nobody-yet", "AWS_SECRET_ACCESS_KEY": "nobody-yet"}
    account = Account(endpoint, nobody, f"iam-{uuid.uuid4().hex[:12]}")
    account.client("s3", nobody).create_bucket(Bucket=account.bucket)
    iam = account.client("iam", nobody)
    iam.create_user(UserName="admin")
    everything = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
    iam.put_user_policy(UserName="admin", PolicyName="everything", PolicyDocument=everything)
    admin = _environment(endpoint, iam.create_access_key(UserName="admin")["AccessKey"])
    request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
    urllib.request.urlopen(request, timeout=10).close()
    return replace(account, admin=admin)


def be(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Let this process speak to the bucket as someone else."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("maskrcnn.storage._stores", {})


def test_who_has_no_policy_may_do_nothing(account: Account) -> None:
    s3 = account.client("s3", account.user())
    with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
        s3.list_objects_v2(Bucket=account.bucket, Prefix="in/photos/")


def test_a_labelling_runs_to_its_end_and_again_with_the_labelling_policies_alone(
    account: Account, tiny_bundle: str, tmp_path: Path
) -> None:
    s3 = account.client("s3", account.admin)
    for path in write_images(tmp_path / "in", 6).iterdir():
        s3.put_object(Bucket=account.bucket, Key=f"in/photos/{path.name}", Body=path.read_bytes())
    for path in Path(tiny_bundle).iterdir():
        s3.put_object(Bucket=account.bucket, Key=f"in/bundle/{path.name}", Body=path.read_bytes())
    root = f"s3://{account.bucket}"
    command = [
        sys.executable, "-m", "jobs.predict", "--bundle", f"{root}/in/bundle", "--images", f"{root}/in/photos/",
        "--output", f"{root}/out/run", "--rows-per-part", "4", "--num-actors", "1",
    ]  # fmt: skip
    environment = {**os.environ, **account.user("labelling-input", "labelling-output")}
    for expected in ("6 ok, 0 failed", "nothing was left to do"):
        run = subprocess.run(
            command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert expected in run.stdout
    listed = s3.list_objects_v2(Bucket=account.bucket, Prefix="out/run/table/")
    assert listed["KeyCount"] == 2


def test_the_labelling_policies_delete_nothing_and_read_and_write_nowhere_else(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = account.client("s3", account.admin)
    for key in ("in/photos/a.png", "in/bundle/model.json", "out/run/table/a.parquet", "out/runaway", "other/secret"):
        s3.put_object(Bucket=account.bucket, Key=key, Body=b"x")
    be(monkeypatch, account.user("labelling-input", "labelling-output"))
    root = f"s3://{account.bucket}"
    for name in ("in/photos/a.png", "in/bundle/model.json", "out/run/table/a.parquet"):
        assert storage.read_bytes(f"{root}/{name}") == b"x"
        with pytest.raises(AccessError):
            storage.delete(f"{root}/{name}")
    for name in ("other/secret", "out/runaway"):
        with pytest.raises(AccessError):
            storage.read_bytes(f"{root}/{name}")
    for name in ("in/photos/b.png", "in/bundle/model.json", "other/b", "out/runaway"):
        with pytest.raises(AccessError):
            storage.put(f"{root}/{name}", b"y")
        with pytest.raises(AccessError):
            storage.put_if_absent(f"{root}/{name}", b"y")
    assert s3.get_object(Bucket=account.bucket, Key="out/run/table/a.parquet")["Body"].read() == b"x"


def test_a_large_upload_and_its_clean_up_need_no_more_than_the_labelling_policies(account: Account) -> None:
    s3 = account.client("s3", account.user("labelling-output"))
    target = {"Bucket": account.bucket, "Key": "out/run/table/large"}
    upload = s3.create_multipart_upload(**target)["UploadId"]
    s3.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"x")
    assert [each["UploadId"] for each in s3.list_multipart_uploads(Bucket=account.bucket)["Uploads"]] == [upload]
    assert len(s3.list_parts(**target, UploadId=upload)["Parts"]) == 1
    s3.abort_multipart_upload(**target, UploadId=upload)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=account.bucket)


def test_the_training_policy_rotates_checkpoints(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    output = f"s3://{account.bucket}/out/run"
    # Deletions are sent as lists. This server asks for the right to delete the bucket's name, S3 for the objects'.
    servers_way = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": {
                "Effect": "Allow",
                "Action": "s3:DeleteObject",
                "Resource": f"arn:aws:s3:::{account.bucket}",
            },
        }
    )
    be(monkeypatch, account.user("training", servers_way=servers_way))
    for step in (1, 2, 3):
        save_checkpoint(output, TrainState(step=step), {"model.weight": torch.zeros(1)})
    prune_checkpoints(output, 1, TrainState(step=3))
    assert sorted(list_checkpoints(output)) == [3]


def test_the_training_policy_deletes_and_writes_nothing_else(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    output, environment = f"s3://{account.bucket}/out/run", account.user("training")
    be(monkeypatch, environment)
    s3 = account.client("s3", environment)
    deletable = ("checkpoints/step-00000009/state.json", "bundle-last/model.next.safetensors")
    for name in (*deletable, "training.json", "metrics.jsonl", "bundle/model.json"):
        storage.put(f"{output}/{name}", b"{}")
    for name in deletable:
        s3.delete_object(Bucket=account.bucket, Key=f"out/run/{name}")
    for name in ("training.json", "metrics.jsonl", "bundle/model.json"):
        with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
            s3.delete_object(Bucket=account.bucket, Key=f"out/run/{name}")
        with pytest.raises(AccessError):
            storage.delete(f"{output}/{name}")
        assert storage.read_bytes(f"{output}/{name}") == b"{}"
    with pytest.raises(AccessError):
        storage.put(f"s3://{account.bucket}/in/photos/a.png", b"y")
    with pytest.raises(AccessError):
        storage.read_bytes(f"s3://{account.bucket}/other/secret")


def test_the_reporting_policy_replaces_reports_and_only_reads_all_else(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin, root = account.client("s3", account.admin), f"s3://{account.bucket}"
    for key in ("in/photos/a.png", "out/run/table/a.parquet", "out/report/old.html", "out/reports", "other/secret"):
        admin.put_object(Bucket=account.bucket, Key=key, Body=b"x")
    environment = account.user("reporting")
    be(monkeypatch, environment)
    s3 = account.client("s3", environment)
    storage.put(f"{root}/out/report/index.html", b"y")
    s3.delete_object(Bucket=account.bucket, Key="out/report/old.html")
    assert storage.list_uris(f"{root}/out/report") == [f"{root}/out/report/index.html"]
    for key in ("in/photos/a.png", "out/run/table/a.parquet"):
        assert storage.read_bytes(f"{root}/{key}") == b"x"
        with pytest.raises(AccessError):
            storage.put(f"{root}/{key}", b"y")
        with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
            s3.delete_object(Bucket=account.bucket, Key=key)
    for key in ("out/reports", "other/secret"):
        with pytest.raises(AccessError):
            storage.read_bytes(f"{root}/{key}")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_every_statement_is_bound_to_its_bucket_and_prefix(path: Path) -> None:
    statements = json.loads(path.read_text())["Statement"]
    for statement in statements:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in actions)
        on_objects = [OBJECTS.fullmatch(each) for each in resources]
        on_buckets = [re.fullmatch(r"arn:aws:s3:::\w+_BUCKET", each) for each in resources]
        assert all(on_objects) or all(on_buckets)
        if "s3:ListBucket" in actions:  # the server of the other tests ignores conditions
            prefixes = statement["Condition"]["StringLikeIfExists"]["s3:prefix"]
            assert all(re.fullmatch(r"\w+_PREFIX(/\*)?", prefix) for prefix in prefixes)
        if any("Delete" in action for action in actions):
            assert resources == [f"arn:aws:s3:::OUTPUT_BUCKET/{each}" for each in DELETABLE[path.stem]]
