"""The Grafana dashboard on real data: a service under a mixed load, a Prometheus that scrapes it, every panel answered.

Draws the panels of deploy/grafana/dragoman.json into a picture. Fails where a panel has a query without an answer.
Knows: how the parts are started and what load makes every panel move. Does not know: what a panel asks (panels.py).
"""

import argparse
import math
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.panels import DASHBOARD, Panel, panels
from benchmarks.prometheus import Labels, Prometheus
from service.client import Client, ServiceError
from service.decoding.options import DecodeOptions
from service.demo import SENTENCES, free_port, wait_until_serving

RULES = DASHBOARD.parents[1] / "prometheus" / "dragoman.rules.yaml"
VARIABLES = {"job": "dragoman", "instance": ".*", "__rate_interval": "10s"}
# So small that a burst fills it.
SERVE = ["--max-queue-sentences", "128", "--admit-grace-s", "0.1", "--log-level", "error"]
NUM_CALLERS = 4
LONG = "and then we went on " * 60
UNITS = {"percentunit": (100.0, "%"), "bytes": (2.0**-20, "MiB"), "s": (1.0, "s"), "reqps": (1.0, "1/s")}
Series = tuple[str, list[list[float]]]


@contextmanager
def served() -> Iterator[tuple[str, str]]:
    """A service of its own: its gRPC and its metrics address."""
    address, metrics = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = [sys.executable, "-m", "service.cli", "serve", "--listen", address, "--metrics-listen", metrics, *SERVE]
    process = subprocess.Popen(command)
    try:
        if not wait_until_serving(address, process):
            raise RuntimeError("the service did not start")
        yield address, metrics
    finally:
        process.terminate()
        process.wait()


class MixedLoad:
    """Calls of every kind until it is left: greedy, beam, alone, many, long, wrong, given up, too many at once."""

    def __init__(self, address: str, period_s: float) -> None:
        self._address = address
        self._period_s = period_s
        self._end = threading.Event()
        self._threads = ThreadPoolExecutor(NUM_CALLERS)

    def __enter__(self) -> "MixedLoad":
        self._started = time.monotonic()
        self._runs = [self._threads.submit(self._run, number) for number in range(NUM_CALLERS)]
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._threads.shutdown()
        for run in self._runs:
            run.result()  # a caller that failed made less load than it should have

    def _run(self, number: int) -> None:
        rng = random.Random(number)
        with Client(self._address, timeout_s=30.0) as client:
            while not self._end.is_set():
                # Tides, so that lines rise and fall.
                tide = 0.5 + 0.5 * math.sin(2 * math.pi * (time.monotonic() - self._started) / self._period_s)
                try:
                    self._call(client, rng, tide)
                except ServiceError:
                    continue  # its code is in the metrics, where it belongs
                self._end.wait(rng.expovariate(1.0) * 0.25 * (1.05 - tide))

    def _call(self, client: Client, rng: random.Random, tide: float) -> None:
        kind = rng.random()
        texts = [rng.choice(SENTENCES) for _ in range(1 + int(rng.random() * 24 * tide))]
        if kind < 0.02:
            client.translate([LONG], source="en", target="fr")
        elif kind < 0.04:
            client.translate(texts, source="en", target="xx")
        elif kind < 0.06:
            client.translate(SENTENCES * 40, source="en", target="fr")
        elif kind < 0.08:
            self._leave_early()
        elif kind < 0.3:
            list(client.translate_stream(texts, source="en", target="fr"))
        else:
            options = DecodeOptions(num_beams=rng.choice((1, 4)))
            client.translate(texts, source="en", target="fr", options=options)

    def _leave_early(self) -> None:
        """A deadline that passes while sentences are decoded."""
        with Client(self._address, timeout_s=0.05) as hasty:
            hasty.translate(SENTENCES * 10, source="en", target="fr")


@dataclass(frozen=True, slots=True)
class Answered:
    """A panel, and the series that Prometheus answered to each of its queries."""

    panel: Panel
    answers: tuple[tuple[Series, ...], ...]

    def unanswered(self) -> list[str]:
        """Queries without any number."""
        queries = zip(self.panel.queries, self.answers, strict=True)
        return [
            expression for (_, expression), series in queries if not any(has_number(values) for _, values in series)
        ]


def has_number(values: Sequence[Sequence[float]]) -> bool:
    return any(math.isfinite(value) for _, value in values)


def answered(prometheus: Prometheus, start: float, end: float) -> list[Answered]:
    """All panels of the dashboard over that time, in Unix seconds."""
    step_s = max(1.0, (end - start) / 300)
    found = []
    for panel in panels(DASHBOARD, VARIABLES):
        answers = []
        for legend, expression in panel.queries:
            series = prometheus.over(expression, start, end, step_s)
            answers.append(tuple((name_of(legend, labels), values) for labels, values in series))
        found.append(Answered(panel, tuple(answers)))
    return found


def name_of(legend: str, labels: Labels) -> str:
    """The legend with its labels filled in; of a method's full name the last part."""
    named = re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], "").rsplit("/", 1)[-1], legend)
    return named or ", ".join(labels.get(key, "") for key in ("name", "version", "precision", "device"))


def observe(duration_s: float, shown: float = 1.0) -> list[Answered]:
    """Runs everything for that long; answers are of its last part ``shown``, 0 to 1."""
    with served() as (address, metrics), Prometheus(free_port(), [metrics], RULES) as prometheus:
        start = time.time()
        with MixedLoad(address, period_s=duration_s / 6):
            time.sleep(duration_s)
            end = time.time()
            return answered(prometheus, end - (end - start) * shown, end)


def draw(path: Path, found: Sequence[Answered]) -> None:
    """The panels as Grafana lays them out, three a row. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = [item for item in found if item.panel.kind in ("timeseries", "stat")]
    figure, places = pyplot.subplots(
        -(-len(drawn) // 5), 5, figsize=(17, 2.3 * -(-len(drawn) // 5)), layout="constrained"
    )
    for place in places.flat[len(drawn) :]:
        place.set_visible(False)
    for place, item in zip(places.flat, drawn, strict=False):
        _draw_panel(place, item)
    figure.savefig(path, dpi=60)


def _draw_panel(place: Any, item: Answered) -> None:
    factor, unit = UNITS.get(item.panel.unit, (1.0, ""))
    lines = [(name, values) for series in item.answers for name, values in series if has_number(values)]
    start = min((values[0][0] for _, values in lines), default=0.0)
    for name, values in lines:
        place.plot([at - start for at, _ in values], [value * factor for _, value in values], label=name, linewidth=1.2)
    place.set_title(f"{item.panel.title} ({unit})" if unit else item.panel.title, fontsize=9)
    place.tick_params(labelsize=7)
    place.set_ylim(bottom=0)
    place.grid(alpha=0.3)
    if len(lines) > 1:
        place.legend(fontsize=6, loc="upper left", framealpha=0.5)


def main() -> int:
    """Draws the picture; 1 where a query found nothing."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("picture", type=Path)
    options.add_argument("--seconds", type=float, default=600.0)
    given = options.parse_args()
    # The first minutes are left out: rates over five minutes begin low.
    found = observe(given.seconds, shown=0.5)
    draw(given.picture, found)
    unanswered = [f"{item.panel.title}: {expression}" for item in found for expression in item.unanswered()]
    print("\n".join(unanswered) or f"{len(found)} panels, every query answered; wrote {given.picture}")
    return int(bool(unanswered))


if __name__ == "__main__":
    sys.exit(main())
