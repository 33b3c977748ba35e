"""The rules as the Prometheus operator wants them. The rules themselves are written in dragoman.rules.yaml only.

Knows: where both files are. Does not know: what a rule says.
"""

from pathlib import Path

RULES = Path(__file__).parent / "dragoman.rules.yaml"
MANIFEST = Path(__file__).parents[1] / "k8s" / "components" / "monitoring" / "prometheusrule.yaml"
HEAD = """\
# Made from deploy/prometheus/dragoman.rules.yaml by `make rules`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: dragoman
  labels:
    app.kubernetes.io/name: dragoman
spec:
"""


def manifest(rules: str) -> str:
    """The PrometheusRule of a rules file: the same text, indented below ``spec``."""
    body = rules[rules.index("groups:") :]
    return HEAD + "".join(f"  {line}" if line.strip() else line for line in body.splitlines(keepends=True))


if __name__ == "__main__":
    MANIFEST.write_text(manifest(RULES.read_text(encoding="utf-8")), encoding="utf-8")
