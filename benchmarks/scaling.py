"""How cost grows: step time with rows, target length and source length; memory with rows.

Steps run on a cache filled with random numbers, one at a time, each many times: a step changes no length, so it can be
repeated. What grows faster than its cause would show as a rising line in the last column.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.forced_decode import ForcedDecode
from benchmarks.report import markdown, numbers, parser, save
from service.runtime.bundle import Bundle
from service.runtime.session import EncoderSession, Sessions, StepBinding, StepInputs

COLUMNS = {"what": "what grows", "value": "to", "ms": "ms", "mib": "MiB", "per_unit": "per unit (µs or MiB)"}
TYPICAL_ROWS, TYPICAL_TARGET, TYPICAL_SOURCE = 64, 30, 35
NUM_CANDIDATES = 8


class StepRig:
    """Greedy decoder steps on a cache whose lengths are chosen freely.

    Room is for ``max_source`` and ``max_target`` tokens, whatever the bundle's limits; the graphs have none.
    """

    def __init__(
        self, bundle: Bundle, precision: str, threads: int, max_rows: int, max_lengths: tuple[int, int]
    ) -> None:
        sessions, shape = Sessions(bundle, precision, threads), bundle.manifest.shape
        self.encoder: EncoderSession = sessions.encoder
        self.vocab_size = shape.vocab_size
        self.cache = sessions.make_cache(max_rows, *max_lengths)
        self.fill()
        self.binding = StepBinding(sessions.decoder_for(1), self.cache)

    def fill(self) -> None:
        self.filled = self.cache.allocations
        rng = np.random.default_rng(1)
        for buffer in self.cache.buffers.values():
            for row in buffer:
                whole = rng.integers(-127, 128, row.shape)
                row[:] = whole if self.cache.dtype == np.int8 else whole / np.float32(64)

    def reserve(self, target: int, source: int) -> None:
        """Room for one token more than ``target``, and for ``source``; as it grows in use, filled anew."""
        self.cache.reserve_target(target + 1, 0)
        self.cache.reserve_source(source, 0)
        if self.cache.allocations > self.filled:
            self.fill()

    def step_s(self, rows: int, target: int, source: int, repeats: int) -> float:
        """Median seconds of a step of ``rows`` rows, each with ``target`` tokens so far and a source of that length."""
        self.reserve(target, source)
        self.cache.lengths[:rows] = target
        self.cache.source_lengths_less_1[:rows] = source - 1
        tokens = np.arange(rows, dtype=np.int64) % self.vocab_size
        places = np.arange(rows, dtype=np.int64)
        inputs = StepInputs(tokens, places, places, NUM_CANDIDATES)
        return median_s(lambda: self.binding.run(inputs, rows), repeats)

    def encode_s(self, sentences: int, source: int, repeats: int) -> float:
        """Median seconds of one encoder run."""
        tokens = np.random.default_rng(source).integers(4, self.vocab_size, (sentences, source))
        lengths = np.full(sentences, source, np.int64)
        return median_s(lambda: self.encoder.run(tokens, lengths), repeats)


def median_s(work: Any, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def grown(what: str, values: Sequence[int], seconds: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {"what": what, "value": value, "ms": each * 1000, "per_unit": each * 1e6 / value}
        for value, each in zip(values, seconds, strict=True)
    ]


def peak_rss_mib() -> float:
    """The most memory this process ever held; ``ru_maxrss`` would count what its parent held when it was started."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def rss_of(rows: int, given: argparse.Namespace) -> float:
    """Peak memory of a fresh process that decodes that many rows; 0 rows: that only loads."""
    command = [sys.executable, "-m", "benchmarks.scaling", str(given.bundle), "--precision", given.precision]
    done = subprocess.run([*command, "--rss-of", str(rows)], check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def print_rss(bundle: Bundle, precision: str, rows: int) -> int:
    rig = ForcedDecode(bundle, precision, 1, max(rows, 1))
    if rows:
        rig.decode(rows, 1, TYPICAL_SOURCE, TYPICAL_TARGET)
    print(peak_rss_mib())
    return 0


def plot(path: Path, rows: list[dict[str, Any]], title: str) -> None:
    """One panel for each thing that grows. Needs matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print(f"no {path}: matplotlib is not installed (extra 'bench')", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row["what"] for row in rows))
    figure, panels = pyplot.subplots(1, len(names), figsize=(3.6 * len(names), 3.2), layout="constrained")
    for panel, name in zip(np.atleast_1d(panels), names, strict=True):
        chosen = [row for row in rows if row["what"] == name]
        unit = "mib" if "mib" in chosen[0] else "ms"
        panel.plot([row["value"] for row in chosen], [row[unit] for row in chosen], marker="o")
        panel.set(title=name, xlabel=name.split(" against ")[-1], ylabel={"mib": "MiB", "ms": "ms"}[unit])
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


def options() -> argparse.ArgumentParser:
    arguments = parser(__doc__ or "", "scaling")
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--precision", default="cpu-int8")
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--rows", type=numbers, default=[1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256])
    arguments.add_argument("--targets", type=numbers, default=[1, 16, 32, 64, 96, 128, 192, 256])
    arguments.add_argument("--sources", type=numbers, default=[8, 16, 32, 64, 128, 256, 384, 512])
    arguments.add_argument("--repeats", type=int, default=30)
    arguments.add_argument("--rss-of", type=int, default=-1, help=argparse.SUPPRESS)
    return arguments


def measure(bundle: Bundle, given: argparse.Namespace) -> list[dict[str, Any]]:
    limits = (max(*given.sources, TYPICAL_SOURCE), max(*given.targets, TYPICAL_TARGET) + 1)
    rig = StepRig(bundle, given.precision, given.threads, max(given.rows), limits)
    rows, target, source = min(TYPICAL_ROWS, max(given.rows)), TYPICAL_TARGET, TYPICAL_SOURCE
    steps = [rig.step_s(n, target, source, given.repeats) for n in given.rows]
    found = grown("step against rows", given.rows, steps)
    steps = [rig.step_s(rows, n, source, given.repeats) for n in given.targets]
    found += grown("step against target tokens so far", given.targets, steps)
    rig.cache.reset()
    steps = [rig.step_s(rows, target, n, given.repeats) for n in given.sources]
    found += grown("step against source tokens", given.sources, steps)
    encodes = [rig.encode_s(1, n, given.repeats) for n in given.sources]
    found += grown("encoder against source tokens", given.sources, encodes)
    empty = rss_of(0, given)
    for n in given.rows:
        mib = rss_of(n, given)
        found.append({"what": "memory against rows", "value": n, "mib": mib, "per_unit": (mib - empty) / n})
    return found


def main() -> int:
    given = options().parse_args()
    if given.quick:
        given.rows, given.targets, given.sources, given.repeats = [1, 8], [1, 96], [8, 96], 3
    bundle = Bundle.open(given.bundle)
    if given.rss_of >= 0:
        return print_rss(bundle, given.precision, given.rss_of)
    rows = measure(bundle, given)
    print(markdown(rows, COLUMNS))
    facts = {"precision": given.precision, "threads": given.threads, "model": bundle.manifest.name}
    typical = {"rows": TYPICAL_ROWS, "target_tokens": TYPICAL_TARGET, "source_tokens": TYPICAL_SOURCE}
    save(given.out, "scaling", rows, held_at=typical, **facts)
    plot(given.out.with_suffix(".png"), rows, f"{bundle.manifest.name}, {given.precision}, {given.threads} thread(s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
