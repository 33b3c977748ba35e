"""A Prometheus of one's own on the loopback: started, asked, stopped.

Knows: the program ``prometheus`` (2.40 or later) and its HTTP API. Does not know: what is scraped.
"""

import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

START_S = 30.0
Labels = dict[str, str]


class Prometheus:
    """Scrapes targets every second. ``with Prometheus(port, ["127.0.0.1:9464"], rules) as prometheus``.

    Raises:
        RuntimeError: the program is not installed, or did not start.
    """

    def __init__(self, port: int, targets: Sequence[str], rules: Path, job: str = "dragoman") -> None:
        if not shutil.which("prometheus"):
            raise RuntimeError("prometheus is not installed (Debian: apt-get install prometheus)")
        self.url = f"http://127.0.0.1:{port}"
        self._folder = tempfile.TemporaryDirectory()
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules.resolve())],
            "scrape_configs": [{"job_name": job, "static_configs": [{"targets": list(targets)}]}],
        }
        file = Path(self._folder.name) / "prometheus.json"  # JSON is YAML
        file.write_text(json.dumps(config))
        flags = [f"--config.file={file}", f"--storage.tsdb.path={self._folder.name}/data", "--log.level=error"]
        self._process = subprocess.Popen(["prometheus", *flags, f"--web.listen-address=127.0.0.1:{port}"])

    def __enter__(self) -> "Prometheus":
        deadline = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/-/ready", timeout=1).close()
                return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        self.stop()
        raise RuntimeError("prometheus did not start")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()

    def now(self, expression: str) -> list[tuple[Labels, float]]:
        """Each series' labels and present value."""
        found = self._ask("query", query=expression)
        return [(item["metric"], float(item["value"][1])) for item in found]

    def over(self, expression: str, start: float, end: float, step_s: float) -> list[tuple[Labels, list[list[float]]]]:
        """Each series' labels and its [time, value] pairs; times are Unix seconds."""
        found = self._ask("query_range", query=expression, start=start, end=end, step=step_s)
        return [(item["metric"], [[at, float(value)] for at, value in item["values"]]) for item in found]

    def _ask(self, what: str, **arguments: Any) -> list[Any]:
        query = urllib.parse.urlencode(arguments)
        with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{query}", timeout=30) as response:
            answer = json.load(response)
        result: list[Any] = answer["data"]["result"]
        return result
