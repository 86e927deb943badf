"""The alerts speak of metrics that exist, and say what to do; promtool tries them, where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from maskrcnn.labelling.meters import COUNTERS, GAUGES, exported_names
from tests.conftest import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "deploy" / "prometheus"
NAME = re.compile(r"\b(?:ray_maskrcnn|maskrcnn:)[\w:]+")


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]:
        yield from group["rules"]


def test_every_metric_in_a_rule_is_exported_or_recorded_before_it() -> None:
    known = set(exported_names())
    for rule in rules():
        used = set(NAME.findall(rule["expr"]))
        assert used, rule
        assert used <= known, rule
        if "record" in rule:
            known.add(rule["record"])


def test_every_alert_says_how_urgent_it_is_and_what_to_do() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert {rule["labels"]["severity"] for rule in alerts} == {"page", "ticket"}
    for rule in alerts:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["annotations"].keys() == {"summary", "description"}
    names = [rule["alert"] for rule in alerts]
    assert len(names) == len(set(names))


def test_every_alert_is_tried_firing_and_quiet() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
    tried = [(each["alertname"], bool(each["exp_alerts"])) for test in tests for each in test["alert_rule_test"]]
    for rule in rules():
        if "alert" in rule:
            assert {fires for name, fires in tried if name == rule["alert"]} == {True, False}, rule["alert"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here")
def test_promtool_finds_the_alerts_to_fire_when_they_should() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", str(FOLDER / "alerts_test.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_port_that_the_nodes_open_and_soon_enough() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    assert config["rule_files"] == ["alerts.yaml"]
    assert int(config["global"]["scrape_interval"].removesuffix("s")) <= 15
    cluster = (PROJECT_ROOT / "cluster.yaml").read_text()
    assert cluster.count("--metrics-export-port=8080") == 2


def test_every_metric_is_explained() -> None:
    page = (PROJECT_ROOT / "deploy" / "README.md").read_text()
    for metric in (*COUNTERS, *GAUGES):
        assert f"`{metric.name}`" in page, metric.name
        assert all(f"`{tag}`" in page for tag in metric.tags), metric.name
    for rule in rules():
        assert rule.get("alert", "") in page
