"""Secrets in logs, tables, records, bundles and tracebacks: none, whatever runs and however it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from maskrcnn.synthetic import write_shelves
from tests.conftest import PROJECT_ROOT, s3_client
from tests.faults.figures import record
from tests.faults.leaky_jobs import SIGNED, TELLS_A_SECRET, WITNESS

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAQQ3SECRETIDOFTEST",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIzzK7MDENGbPxRfiCYEXAMPLE9q",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEAzzQwErTyUiOpAsDfGh",
    "RAY_AUTH_TOKEN": "0123token4567of89ray0123abcd",
    "DB_PASSWORD": "correct-horse-battery",
}
TRAINING = [
    "--backbone", "resnet18", "--weights", "none", "--norm", "frozen", "--min-size", "64", "--max-size", "64",
    "--anchor-sizes", "8", "16", "24", "32", "48", "--rois-per-image", "16", "--anchors-per-image", "32",
    "--proposals-per-image", "50", "--learning-rate", "0.001", "--num-workers", "1", "--batch-size", "2",
    "--max-steps", "2", "--device", "cpu", "--max-failures", "1",
]  # fmt: skip


@dataclass(frozen=True)
class Aftermath:
    """What the commands left."""

    codes: dict[str, int]
    said: str
    files: dict[str, bytes]
    """Outputs, reports and Ray's logs by name; Parquet as text, since compression would hide what is in it."""
    error_messages: list[str]


@pytest.fixture(scope="module")
def aftermath(s3_endpoint: str, tiny_bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Aftermath:
    folder = tmp_path_factory.mktemp("leaky")
    bucket = "leaky-jobs"
    s3_client().create_bucket(Bucket=bucket)
    with tempfile.TemporaryDirectory(prefix="ray-") as ray_folder:  # a short path: sockets lie in it
        commands = _write_inputs(folder, bucket, tiny_bundle)
        (folder / "plan.json").write_text(json.dumps({"ray": ray_folder, "commands": commands}))
        environment = os.environ | SECRETS | {"PYTHONPATH": str(PROJECT_ROOT), "OMP_NUM_THREADS": "1"}
        environment[WITNESS] = str(folder / "witness")
        run = subprocess.run(
            [sys.executable, "-m", "tests.faults.leaky_jobs", str(folder / "plan.json")],
            env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        said = run.stdout + run.stderr
        assert (folder / "codes.json").exists(), said
        files = {str(path): _text_of(path.read_bytes()) for path in _files_below(Path(ray_folder))}
    client = s3_client()
    for entry in client.list_objects_v2(Bucket=bucket)["Contents"]:
        if not entry["Key"].startswith("in/"):
            files[entry["Key"]] = _text_of(client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read())
    files |= {str(path): _text_of(path.read_bytes()) for path in _files_below(folder / "reports")}
    rows = [
        row
        for entry in client.list_objects_v2(Bucket=bucket, Prefix="labels/table/")["Contents"]
        for row in _rows_of(client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()).to_pylist()
    ]
    codes = json.loads((folder / "codes.json").read_text())
    return Aftermath(codes, said, files, [row["error_message"] for row in rows if row["error_message"]])


def _write_inputs(folder: Path, bucket: str, bundle: str) -> dict[str, list[str]]:
    signed = SIGNED.format(id=SECRETS["AWS_ACCESS_KEY_ID"], key=SECRETS["AWS_SECRET_ACCESS_KEY"])
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    image = (folder / "a.png").read_bytes()
    for name, body in {"a.png": image, "b.png": image + TELLS_A_SECRET.encode(), "c.png": image[:-20]}.items():
        s3_client().put_object(Bucket=bucket, Key=f"in/{name}", Body=body)
    write_shelves(folder / "shelves", 4, seed=5, width=64, height=64, num_boards=1)
    document = json.loads((folder / "shelves" / "annotations.json").read_text())
    document["images"][0]["file_name"] = signed
    (folder / "signed.json").write_text(json.dumps(document))
    leaking = json.loads((folder / "shelves" / "annotations.json").read_text())
    for row in leaking["images"]:
        path = folder / "shelves" / "images" / row["file_name"]
        row["file_name"] = f"{TELLS_A_SECRET}-{row['file_name']}"
        path.with_name(row["file_name"]).write_bytes(path.read_bytes())
    (folder / "leaking.json").write_text(json.dumps(leaking))
    pq.write_table(pa.table({"image_uri": [signed]}), folder / "signed.parquet")
    (folder / "reports").mkdir()
    images = f"s3://{bucket}/in"
    predict = ["jobs.predict", "--bundle", bundle, "--num-actors", "1", "--device", "cpu", "--rows-per-part", "2"]
    password = f"s3://key:{SECRETS['DB_PASSWORD']}@{bucket}/in"
    return {
        "label": [*predict, "--images", images, "--output", f"s3://{bucket}/labels"],
        "password": [*predict, "--images", password, "--output", f"s3://{bucket}/none"],
        "signed manifest": [*predict, "--images", f"{folder}/signed.parquet", "--output", f"s3://{bucket}/none"],
        "signed names": [
            *predict, "--images", f"{folder}/signed.json", "--image-root", images, "--output", f"s3://{bucket}/none",
        ],
        "validate": [
            "jobs.validate", "--annotations", f"{folder}/signed.json", "--images", f"{folder}/shelves/images",
            "--output", f"{folder}/reports/report.json",
        ],
        "train": [
            "jobs.train", "--images", f"{folder}/shelves/images", *TRAINING, "--annotations", f"{folder}/leaking.json",
            "--output", f"s3://{bucket}/run",
        ],
    }  # fmt: skip


def _files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def _text_of(body: bytes) -> bytes:
    if body[:4] != b"PAR1":
        return body
    rows = _rows_of(body)
    return repr((rows.to_pylist(), rows.schema.metadata)).encode()


def _rows_of(body: bytes) -> pa.Table:
    return pq.read_table(pa.BufferReader(body))


def test_every_command_ends_as_it_should(aftermath: Aftermath) -> None:
    assert aftermath.codes == {
        "label": 0, "password": 2, "signed manifest": 2, "signed names": 2,
        "validate": 1, "train": 0,
    }, aftermath.said  # fmt: skip


def test_what_failed_still_says_why(aftermath: Aftermath) -> None:
    told = "RuntimeError: GET https://bucket.s3.amazonaws.com/a.jpg?… with … … …; s3://…@bucket"
    assert told in aftermath.error_messages
    assert "must hold no credentials, got s3://…@leaky-jobs/in" in aftermath.said
    assert "Traceback" in aftermath.said
    logs = b"".join(body for name, body in aftermath.files.items() if "/logs/" in name)
    assert b"reading s3://leaky-jobs/in/b.png" in logs


def test_no_secret_is_anywhere(aftermath: Aftermath) -> None:
    found = [
        (name, secret)
        for name, body in [*aftermath.files.items(), ("terminal", aftermath.said.encode())]
        for secret, value in SECRETS.items()
        if value.encode() in body
    ]
    assert found == []
    num_logs = sum("/logs/" in name for name in aftermath.files)
    assert num_logs > 5
    record("secrets", files=len(aftermath.files), ray_logs=num_logs, secrets=len(SECRETS), hits=len(found))
