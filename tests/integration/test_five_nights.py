"""Five nights of shelf photos on a cluster, each submitted by its date: one has damaged images, one is killed, in the
last a camera is dark. Then what a morning asks: counts, drift, and a gate for two candidates."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from maskrcnn import read_predictions
from maskrcnn.synthetic import write_shelves
from tests.conftest import PROJECT_ROOT
from tests.integration.head import METRICS_EVERY_MS, Head

DATES = [f"2026-11-{day}" for day in range(22, 27)]
DAMAGED_NIGHT, KILLED_NIGHT, DARK_NIGHT = DATES[2:]
BY_CAMERA = "/(?P<camera>shelf-000[01])"
"""Photos 1 to 9 are one camera's, 10 to 12 the other's."""
GATE = """
min_images = 10
min_agreement = 0.95
max_lost_share = 0.05
"""
PHOTOS_A_NIGHT = 12
RAYS_OWN = r"[\d-]+ [\d:,]+\tINFO job_manager\.py|Running entrypoint for job |\[[\d-]+ [\d:,]+ [A-Z] \d+ \d+\] "
"""What Ray itself writes into a job's log: before it starts the command, and its native code at any time."""
DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda jpeg: jpeg[: len(jpeg) // 2],  # an upload that broke off
    lambda jpeg: b"",
    lambda jpeg: b"%PDF-1.7 not a photo",
]


@dataclass(frozen=True)
class Shop:
    """Where the photos of each night come in, and their labels go."""

    bundle: str
    photos: Path
    output: Path

    def photograph(self, date: str) -> None:
        """Take a night's photos."""
        write_shelves(self.photos / date, PHOTOS_A_NIGHT, seed=int(date[-2:]), width=160, height=120, num_boards=1)
        if date == DAMAGED_NIGHT:
            for path, damage in zip(sorted((self.photos / date).rglob("*.jpg")), DAMAGES, strict=False):
                path.write_bytes(damage(path.read_bytes()))
        if date == DARK_NIGHT:
            for path in (self.photos / date).rglob("shelf-0001*.jpg"):
                path.write_bytes(b"")

    def command(self) -> list[str]:
        """Give the command of every night, always the same."""
        return self.labelling("**", self.output)

    def labelling(self, nights: str, output: Path, *more: str) -> list[str]:
        """Give the command that labels some nights."""
        return [
            "-m", "maskrcnn", "predict", "--bundle", self.bundle, "--images", f"{self.photos}/{nights}/*.jpg",
            "--output", str(output), "--date-from", r"/(\d{4}-\d\d-\d\d)/", "--rows-per-part", "4",
            "--log-format", "json", *more,
        ]  # fmt: skip

    def figures(self, date: str) -> Counter[str]:
        """Count a night's rows by what became of the image."""
        rows = read_predictions(str(self.output), dates=[date]).to_pylist()
        return Counter(row["error_kind"] or row["status"] for row in rows)

    def complete(self) -> list[str]:
        """Name the nights that are marked complete."""
        return sorted(path.stem for path in (self.output / "complete").glob("*.json"))

    def records(self) -> dict[str, dict[str, Any]]:
        """Give the runs' records, by run id."""
        return {path.stem: json.loads(path.read_text()) for path in sorted((self.output / "runs").glob("*.json"))}


@pytest.fixture
def shop(tiny_bundle: str, tmp_path: Path) -> Shop:
    return Shop(tiny_bundle, tmp_path / "photos", tmp_path / "labels")


@pytest.mark.timeout(600)
def test_five_nights_are_each_labelled_once_whatever_happens_in_them(head: Head, shop: Shop) -> None:
    for date in DATES[:3]:
        shop.photograph(date)
        submit(head, shop, f"maskrcnn-{date}")
    assert_metrics_are_the_records(head, list(shop.records().values()))
    assert {date: shop.figures(date) for date in DATES[:3]} == {
        DATES[0]: {"ok": 12},
        DATES[1]: {"ok": 12},
        DAMAGED_NIGHT: {"ok": 9, "corrupt": 2, "unsupported": 1},
    }

    shop.photograph(KILLED_NIGHT)
    kill_once_planned(head, shop, f"maskrcnn-{KILLED_NIGHT}")
    assert shop.complete() == DATES[:3]
    again = start(head, shop, f"maskrcnn-{KILLED_NIGHT}")
    assert again.returncode != 0
    assert "already exists" in again.stdout + again.stderr, "no night runs twice under one id, not even a killed one"
    submit(head, shop, f"maskrcnn-{KILLED_NIGHT}-retry1")
    shop.photograph(DARK_NIGHT)
    submit(head, shop, f"maskrcnn-{DARK_NIGHT}")

    before = files(shop.output)
    assert start(head, shop, f"maskrcnn-{DARK_NIGHT}").returncode != 0
    assert files(shop.output) == before
    assert [shop.figures(date).total() for date in DATES] == [PHOTOS_A_NIGHT] * 5
    assert shop.figures(KILLED_NIGHT) == {"ok": 12}
    assert shop.figures(DARK_NIGHT) == {"ok": 9, "corrupt": 3}
    uris = read_predictions(str(shop.output), columns=["image_uri"])["image_uri"].to_pylist()
    assert len(uris) == len(set(uris)) == 5 * PHOTOS_A_NIGHT
    assert shop.complete() == DATES
    records = list(shop.records().values())
    assert [record["images"]["labelled"] for record in records][:3] == [12, 12, 12]
    assert all(not record["reconcile"]["parts_left"] for record in records)
    assert records[3]["images"]["planned"] == 0, "the killed run had planned them"
    assert [job["status"] for _, job in sorted(head.jobs().items())] == [
        *["SUCCEEDED"] * 3, "STOPPED", *["SUCCEEDED"] * 2
    ]  # fmt: skip

    assert_drift_is_the_dark_cameras(shop)
    assert_the_gate_tells_candidates_apart(head, shop)


def assert_drift_is_the_dark_cameras(shop: Shop) -> None:
    """Ask for counts as the morning does: the last night is short of a camera, the one before is like the others."""
    report = shop.output.parent / "report"
    words = ["report", "--predictions", str(shop.output), "--output", str(report), "--by", BY_CAMERA, "--fail-on-drift"]
    assert run_here(*words, "--night", KILLED_NIGHT) == 0
    counts = json.loads((report / "counts.json").read_text())
    assert (counts["night"], counts["nights_before"]) == (KILLED_NIGHT, DATES[:3])
    assert counts["alert"]["num_drifting"] == counts["alert"]["num_dark_groups"] == 0
    assert run_here(*words) == 1
    counts = json.loads((report / "counts.json").read_text())
    assert (counts["night"], counts["alert"]["num_dark_groups"]) == (DARK_NIGHT, 1)
    assert counts["images"] == {"labelled": 54, "failed": 6, "instances": counts["images"]["instances"], "undated": 0}
    table = pq.read_table(report / "counts.parquet").to_pylist()
    of_dark = {row["num_failed"] for row in table if (row["date"], row["camera"]) == (DARK_NIGHT, "shelf-0001")}
    assert of_dark == {3}


def assert_the_gate_tells_candidates_apart(head: Head, shop: Shop) -> None:
    """Label a night anew, once alike and once with half of the detections; let the gate judge both."""
    gate = shop.output.parent / "gate.toml"
    gate.write_text(GATE)
    for name, options, code in (("alike", [], 0), ("half", ["--max-detections", "4"], 1)):
        candidate = shop.output.parent / name
        command = shop.labelling(f"{DATES[0]}/*", candidate, *options)
        done = head.submit("--submission-id", f"candidate-{name}", "--", *command, uploads=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        page = str(shop.output.parent / f"compared-{name}")
        assert run_here("compare", str(shop.output), str(candidate), "--output", page, "--gate", str(gate)) == code


def run_here(*words: str) -> int:
    """Run a command that needs no cluster."""
    return subprocess.run([sys.executable, "-m", "maskrcnn", *words], cwd=PROJECT_ROOT, timeout=120).returncode


def start(head: Head, shop: Shop, submission_id: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Submit a night as cron would, the code being part of the machines' image."""
    return head.submit("--submission-id", submission_id, *options, "--", *shop.command(), uploads=False)


def submit(head: Head, shop: Shop, submission_id: str) -> None:
    """Run a night to its end; every line that it says is JSON, and names its run."""
    runs_before = shop.records().keys()
    done = start(head, shop, submission_id)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (run_id,) = shop.records().keys() - runs_before
    said = [line for line in head.driver_lines(submission_id) if not re.match(RAYS_OWN, line)]
    assert all(line.startswith("{") for line in said), said
    lines = [json.loads(line) for line in said]
    assert {line["run_id"] for line in lines} == {run_id}, lines
    assert [line["message"] for line in lines if line["message"].startswith("record: ")], lines


def kill_once_planned(head: Head, shop: Shop, submission_id: str) -> None:
    """Start a night and kill its command after it has planned, before all is labelled."""
    plans, parts = shop.output / "plans", shop.output / "table"
    num_plans = len(list(plans.iterdir()))
    assert start(head, shop, submission_id, "--no-wait").returncode == 0
    deadline = time.monotonic() + 90
    while len(list(plans.iterdir())) == num_plans:
        assert time.monotonic() < deadline, head.driver_lines(submission_id)
        time.sleep(0.05)
    head.stop(submission_id)
    assert len(list((parts / f"date={KILLED_NIGHT}").glob("*"))) < 3


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def assert_metrics_are_the_records(head: Head, records: list[dict[str, Any]]) -> None:
    time.sleep(2 * METRICS_EVERY_MS / 1000)
    counted = read_counters(head.metrics())
    errors: Counter[str] = sum((Counter(record["errors"]) for record in records), Counter())
    images = [record["images"] for record in records]
    assert counted["maskrcnn_images", "ok", ""] == sum(each["ok"] for each in images)
    assert {kind: counted["maskrcnn_images", "error", kind] for kind in errors} == errors
    assert counted["maskrcnn_instances",] == sum(record["instances"] for record in records)
    assert counted["maskrcnn_bytes_read",] == sum(record["bytes_read"] for record in records)
    assert counted["maskrcnn_parts", "made"] == sum(record["parts"]["made"] for record in records)
    assert counted["maskrcnn_runs", "complete"] == len(records)
    for stage in ("read", "decode", "predict", "put"):
        seconds = sum(record["stage_seconds"][stage] for record in records)
        assert counted["maskrcnn_stage_seconds", stage] == pytest.approx(seconds, abs=0.01)


def read_counters(text: str) -> dict[tuple[str, ...], float]:
    """Add up the job's counters over its drivers, by name and tags."""
    counted: Counter[tuple[str, ...]] = Counter()
    for name, labels, value in re.findall(r"^ray_(maskrcnn_\w+)_total\{(.*)\} (\S+)$", text, re.MULTILINE):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        counted[name, *(tags[tag] for tag in ("status", "error_kind", "result", "stage") if tag in tags)] += float(
            value
        )
    return counted
