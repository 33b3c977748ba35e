"""Rules, dashboard and autoscaler ask for metrics that the service has; every alert is explained and has fired once."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.panels import panels
from deploy.prometheus.write_manifest import manifest
from service.metrics import Metrics
from tests.deploy.manifests import K8S, ROOT, documents, one

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "dragoman.rules.yaml"
RUNBOOK = (ROOT / "deploy" / "RUNBOOK.md").read_text(encoding="utf-8")
NAME = re.compile(r"\b(?:dragoman|process)(?::[\w:]+|_\w+)\b")


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from group["rules"]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def alerts() -> list[str]:
    return [rule["alert"] for rule in rules() if "alert" in rule]


def samples() -> set[str]:
    """Names that /metrics shows, also those that appear with their first labels."""
    names: set[str] = set()
    for family in Metrics().registry.collect():
        suffixes = {
            "counter": ("_total",),
            "histogram": ("_bucket", "_sum", "_count"),
        }.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule.get("record") or rule["alert"], rule["expr"]
    for panel in panels():
        for _, expression in panel.queries:
            yield panel.title, expression
    for trigger in one("ScaledObject")["spec"]["triggers"]:
        yield "ScaledObject", trigger["metadata"]["query"]


def test_what_is_asked_for_is_there():
    known = samples() | recorded()
    asked = {name for _, expression in expressions() for name in NAME.findall(expression)}
    assert len(asked) > 25
    assert asked - known == set()


def test_every_recorded_number_is_used():
    asked = {name for _, expression in expressions() for name in NAME.findall(expression)}
    assert recorded() - asked == set()


def test_every_alert_has_a_section_of_the_runbook():
    assert sorted(re.findall(r"^### (Dragoman\w+)$", RUNBOOK, re.MULTILINE)) == sorted(alerts())
    for section in re.split(r"^### ", RUNBOOK, flags=re.MULTILINE)[1:]:
        name, _, text = section.partition("\n")
        if name in alerts():
            assert all(f"**{word}.**" in text for word in ("Symptom", "Metric", "Action")), name


def test_every_alert_leads_to_its_section():
    for rule in rules():
        if "alert" in rule:
            assert rule["annotations"]["runbook"] == f"deploy/RUNBOOK.md#{rule['alert'].lower()}"


def test_every_alert_has_fired_in_the_rules_tests():
    tests = yaml.safe_load((PROMETHEUS / "dragoman.tests.yaml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test.get("alert_rule_test", []) if case["exp_alerts"]}
    assert fired == set(alerts())


def test_the_operators_rules_are_the_rules():
    path = K8S / "components" / "monitoring" / "prometheusrule.yaml"
    assert path.read_text() == manifest(RULES.read_text()), "run `make rules`"
    [made] = documents(path)
    assert made["spec"] == yaml.safe_load(RULES.read_text())


def test_the_job_is_the_one_that_rules_select():
    [scrape] = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())["scrape_configs"]
    monitor = one("ServiceMonitor")["spec"]
    kustomization = yaml.safe_load((K8S / "base" / "kustomization.yaml").read_text())
    assert scrape["job_name"] == kustomization["labels"][0]["pairs"][monitor["jobLabel"]] == "dragoman"


@pytest.mark.parametrize(
    "words",
    [
        ["test", "rules", "dragoman.tests.yaml"],
        ["check", "config", "prometheus.yaml"],
    ],
    ids=" ".join,
)
def test_promtool(words: list[str]):
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run(["promtool", *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_nothing_in_our_metrics(tmp_path: Path):
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed (Debian: prometheus)")
    done = subprocess.run(["promtool", "check", "metrics"], input=Metrics().render(), capture_output=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
