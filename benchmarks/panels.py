"""The panels of a Grafana dashboard and the questions that they ask Prometheus.

Knows: Grafana's JSON. Does not know: Prometheus, answers.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "dragoman.json"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. queries: legend (with ``{{label}}`` to fill in) and expression of each line."""

    title: str
    kind: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    is_stacked: bool


def panels(path: Path = DASHBOARD, variables: Mapping[str, str] | None = None) -> list[Panel]:
    """All panels that ask something, in the order of the page, with ``$name`` replaced."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [_panel(item, variables or {}) for item in content["panels"] if item["type"] != "row"]


def _panel(item: Mapping[str, Any], variables: Mapping[str, str]) -> Panel:
    defaults = item["fieldConfig"]["defaults"]
    queries = [(target.get("legendFormat", ""), filled(target["expr"], variables)) for target in item["targets"]]
    is_stacked = defaults.get("custom", {}).get("stacking", {}).get("mode") == "normal"
    return Panel(item["title"], item["type"], defaults["unit"], tuple(queries), is_stacked)


def filled(expression: str, variables: Mapping[str, str]) -> str:
    for name, value in variables.items():
        expression = expression.replace(f"${name}", value)
    return expression
