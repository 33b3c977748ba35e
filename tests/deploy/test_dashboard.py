"""The dashboard on real data; tests/deploy/test_rules.py compares its names with the service's, without Prometheus."""

import shutil

import pytest

from benchmarks.dashboard import observe

pytestmark = [pytest.mark.slow, pytest.mark.integration]


def test_a_real_prometheus_answers_every_query_of_the_dashboard():
    if not shutil.which("prometheus"):
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    found = observe(20.0)
    assert len(found) > 20
    assert [(item.panel.title, query) for item in found for query in item.unanswered()] == []
