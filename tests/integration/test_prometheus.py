"""A real Prometheus scrapes a running service, evaluates the rules and answers every question of the dashboard."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.panels import panels
from service.client import Client
from service.demo import free_port
from tests.conftest import sentences
from tests.integration.launched_server import ROOT, LaunchedServer

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed (Debian: apt install prometheus)"),
]
RULES = ROOT / "deploy" / "prometheus" / "dragoman.rules.yaml"
MAX_WAIT_S = 120
CONFIG = """
global: {{scrape_interval: 250ms, evaluation_interval: 250ms}}
rule_files: [{rules}]
scrape_configs:
  - job_name: dragoman
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
# What stays without an answer as long as nothing goes wrong and no label has been seen; all else must have one.
TRANSLATED = 'sum(dragoman_requests_total{method=~".*/Translate"})'
MAY_BE_EMPTY = ("changes(process_start_time_seconds",)


@dataclass(frozen=True)
class Prometheus:
    """A running one."""

    address: str

    def ask(self, path: str, **parameters: str) -> Any:
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]

    def values(self, expression: str) -> list[float]:
        return [float(sample["value"][1]) for sample in self.ask("query", query=expression)["result"]]


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + MAX_WAIT_S
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "Prometheus did not get so far"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def scraped(nonsense_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has seen a service before, during and after some calls."""
    folder = tmp_path_factory.mktemp("prometheus")
    port, own = free_port(), f"127.0.0.1:{free_port()}"
    (folder / "prometheus.yaml").write_text(CONFIG.format(rules=RULES, port=port))
    flags = [f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"]
    flags += [f"--web.listen-address={own}", "--log.level=error"]
    assert PROMETHEUS is not None
    with (
        LaunchedServer("--bundle", str(nonsense_bundle), "--metrics-listen", f"127.0.0.1:{port}") as server,
        subprocess.Popen([PROMETHEUS, *flags], stderr=subprocess.PIPE, text=True) as process,
    ):
        found = Prometheus(own)
        try:
            wait_for(lambda: is_scraped(found), process)
            with Client(server.address) as client:
                for number in (1.0, 2.0):  # what has a label exists from its first event on: a rate needs the second
                    client.translate(sentences(8), source="en", target="fr")
                    wait_for(lambda: found.values(TRANSLATED) == [number], process)  # noqa: B023
            wait_for(lambda: all(found.values(name) for name in recorded(found)), process)
            yield found
        finally:
            process.terminate()
            process.communicate()


def is_scraped(prometheus: Prometheus) -> bool:
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        return prometheus.values('up{job="dragoman"}') == [1.0]
    return False


def recorded(prometheus: Prometheus) -> list[str]:
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    return [rule["name"] for rule in rules if rule["type"] == "recording"]


def test_it_counts_what_happened(scraped: Prometheus) -> None:
    assert scraped.values("sum(dragoman_texts_total)") == [16]
    assert scraped.values("sum(dragoman_finished_total)") == scraped.values("dragoman_queue_duration_seconds_count")
    assert scraped.values('dragoman_model_info{name="nonsense", source_language="en"}') == [1]
    assert scraped.values("dragoman_ready") == [1]
    [delay_s] = scraped.values(
        "histogram_quantile(0.95, sum by (le) (rate(dragoman_queue_duration_seconds_bucket[1m])))"
    )
    assert 0 <= delay_s < MAX_WAIT_S


def test_rules_are_evaluated_without_error(scraped: Prometheus) -> None:
    rules = [rule for group in scraped.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 5
    assert {rule["name"]: rule.get("lastError", "") for rule in rules if rule["health"] != "ok"} == {}


def test_every_question_of_the_dashboard_has_an_answer(scraped: Prometheus) -> None:
    variables = {"job": "dragoman", "instance": ".*", "__rate_interval": "1m"}
    questions = [expression for panel in panels(variables=variables) for _, expression in panel.queries]
    assert len(questions) > 20
    without = [question for question in questions if not scraped.values(question)]
    assert [question for question in without if not question.startswith(MAY_BE_EMPTY)] == []
