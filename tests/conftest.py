"""Fixtures for every test: where the shared samples lie, and which tests this machine can run."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from maskrcnn import log_lines
from tests.browser import chromium as chromium
from tests.faults.proxy import FaultProxy

PROJECT_ROOT = Path(__file__).resolve().parents[1]

# The networks of the tests are too small to gain from threads, and threads that fight over cores cost seconds.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def no_style_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the run that a command within this process named: a process runs one command, and the tests many."""
    monkeypatch.setattr(log_lines, "_style", log_lines.LogStyle())


@pytest.fixture(scope="session")
def shared_path() -> Path:
    """The folder of real images and expected numbers: ``MASKRCNN_SHARED``, or beside the checkout."""
    place = Path(os.environ.get("MASKRCNN_SHARED", PROJECT_ROOT.parent / "shared"))
    if not (place / "data").is_dir():
        if os.environ.get("MASKRCNN_REQUIRE_SHARED") == "1":
            pytest.fail(f"the sample data is required here, and is not at {place}")
        pytest.skip(f"no sample data at {place}; set MASKRCNN_SHARED")
    return place


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 server over HTTP for the whole session, found by the environment as users' jobs find theirs."""
    port = free_port()
    log_path = tempfile.mkstemp(prefix="moto-", suffix=".log")[1]
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    with open(log_path, "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        endpoint = f"http://127.0.0.1:{port}"
        os.environ.update(
            AWS_ENDPOINT_URL=endpoint, AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_REGION="us-east-1"
        )
        wait_until_listening(port)
        yield endpoint
        server.terminate()


@pytest.fixture
def bucket(s3_endpoint: str) -> str:
    """The URI of a fresh bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3_client().create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def faulty_s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy between the code and the S3 server, which does nothing until it is given rules.

    A store is opened once a process and bucket, so that a test takes a bucket of its own (``bucket``).
    """
    port = urlsplit(s3_endpoint).port
    assert port is not None
    with FaultProxy(port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def s3_client(endpoint: str | None = None) -> Any:
    """Give a plain boto3 client to the test server, to arrange and to look behind the code's back.

    Args:
        endpoint: where; of a ``FaultProxy``, its ``upstream_endpoint`` leads around the faults.
    """
    import boto3

    return boto3.client("s3", endpoint_url=endpoint or os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")


def without_page(line: str) -> str:
    """Leave out the page of the documentation that an error's line ends with, which must be there."""
    page = re.search(r" \((docs/[A-Z-]+\.md)\)$", line)
    assert page is None or (PROJECT_ROOT / page[1]).is_file(), line
    return line[: page.start()] if page else line


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_listening(port: int) -> None:
    """Wait for a server of this machine's."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"nothing listens on port {port}")


@pytest.fixture(scope="session")
def local_ray(s3_endpoint: str) -> Iterator[None]:
    """One Ray for the whole session: starting one takes seconds."""
    import ray

    from maskrcnn import cluster

    cluster.start_local_ray(
        num_cpus=4,
        runtime_env={
            "env_vars": {"PYTHONPATH": str(PROJECT_ROOT)},
            "worker_process_setup_hook": "tests.integration.deadly_image.install",
        },
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle with a small random network that finds something in every picture."""
    from maskrcnn.config import ModelConfig, PreprocessConfig, ThresholdConfig
    from maskrcnn.model.bundle import Category, save_bundle
    from maskrcnn.model.network import build_network

    torch.manual_seed(0)
    model = ModelConfig(backbone="resnet18", num_labels=4, max_proposals=24)
    preprocess = PreprocessConfig(min_size_px=32, max_size_px=64)
    thresholds = ThresholdConfig(score_threshold=0.3, max_detections=8)
    network = build_network(model, preprocess, thresholds).eval()
    with torch.no_grad():  # spread the scores, so that order and thresholds mean something
        network.roi_heads.box_predictor.cls_score.weight.mul_(20)
    uri = str(tmp_path_factory.mktemp("bundle") / "tiny")
    categories = [Category(2, "can", 1), Category(5, "box", 2), Category(9, "bag", 3)]
    save_bundle(
        uri, network, model=model, preprocess=preprocess, thresholds=thresholds, categories=categories, provenance={}
    )
    return uri
