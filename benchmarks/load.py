"""A load test through real gRPC: how many requests a second are answered in time?

Sentences arrive one by one at seeded random times (a Poisson process), at rising rates, until the objective is missed
twice in a row; at each rate the systems take turns, several phases each and who begins changing, while the others run
and have nothing to do; the median phase counts. Then at twice the best rate, which no machine should be asked to carry:
there the service refuses what it could not answer in time, as its operator told it to. The same for our engine behind a
static batching front, and for CTranslate2 behind the same front.
Goodput is the calls a second answered within the objective; the best rate is the highest where 99 of 100 calls were.

On more than two cores the last core is the client's. On one or two the client shares them, at a higher priority where
the system allows it, so that it sends in time; "late" says how well it did.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import random_model, texts
from benchmarks.artifacts import add_options, prepare
from benchmarks.load_servers import server
from benchmarks.open_loop import OpenLoop, Outcome
from benchmarks.report import keep, markdown, parser, save, some_of
from benchmarks.systems import MAX_LENGTH

SYSTEMS = ("dragoman", "static dragoman", "static ctranslate2")
MAX_MISSES = 2
NUM_TEXTS = 500  # different ones; each call takes any
PAUSE_S = 0.5  # a batch that nobody waits for any more ends, and OpenMP's threads spin for a fifth of a second
RECORDED = (
    *("forced", "seed", "beams", "precision", "objective_ms", "timeout_s", "first_rate", "growth", "duration_s"),
    *("repeats", "max_delay_ms", "window_ms", "max_batch", "max_queue", "lanes"),
)
PRIORITY = 5  # of the client over the server, as nice counts it
COLUMNS = {
    "system": "system",
    "rate": "calls/s sent",
    "goodput": "in time/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "errors": "errors",
    "refused_p99_ms": "refused within, p99 ms",
    "late_p99_ms": "client late, p99 ms",
}
SUMMARY = {
    "system": "system",
    "best_rate": "best calls/s",
    "peak_goodput": "peak in time/s",
    "overload_share": "goodput at twice that / peak",
    "ratio": "Dragoman's best / its best",
}
OBJECTIVES_MS = (100, 150, 200, 250, 300, 400, 500, 750, 1000)


def split_cores() -> tuple[set[int], set[int]]:
    """Cores of the server and of the client; the same where there are not more than two."""
    cores = sorted(os.sched_getaffinity(0))
    return (set(cores[:-1]), {cores[-1]}) if len(cores) > 2 else (set(cores), set(cores))


def raise_priority() -> int:
    """Tries to let the client go before the server; returns by how much it now does."""
    with contextlib.suppress(PermissionError):
        os.nice(-PRIORITY)
        return PRIORITY
    return 0


def row_of(system: str, outcomes: list[Outcome], objective_s: float) -> dict[str, Any]:
    """Phases of one rate as one row: latencies are the median phase's, so that one bad moment of a shared machine does
    not decide; goodput is the mean."""
    errors = sum((Counter(outcome.errors) for outcome in outcomes), Counter())
    return {
        "system": system,
        "rate": outcomes[0].rate,
        "num_sent": sum(outcome.num_sent for outcome in outcomes),
        "goodput": statistics.fmean(outcome.goodput(objective_s) for outcome in outcomes),
        "p50_ms": finite(1000 * statistics.median(outcome.percentile_s(0.5) for outcome in outcomes)),
        "p99_ms": finite(1000 * statistics.median(outcome.percentile_s(0.99) for outcome in outcomes)),
        "errors": errors.total(),
        "errors_by_code": dict(errors),
        "refused_p99_ms": p99_ms([time for outcome in outcomes for time in outcome.refusals_s]),
        "late_p99_ms": p99_ms([time for outcome in outcomes for time in outcome.late_s]),
    }


def p99_ms(times_s: list[float]) -> float | str:
    return sorted(times_s)[int(0.99 * len(times_s))] * 1000 if times_s else ""


def finite(value: float) -> float | str:
    return value if value != float("inf") else "no answer"


@dataclass(slots=True)
class Contender:
    """A running server and how it has done so far."""

    system: str
    client: OpenLoop
    outcomes: list[Outcome] = field(default_factory=list)
    best_rate: float = 0.0
    misses: int = 0

    async def phase(self, rate: float, given: argparse.Namespace, chosen: list[str], number: int) -> None:
        """One phase at ``rate``; the calls of phase ``number`` come at the same times whoever is measured.

        Raises:
            RuntimeError: calls failed for another reason than load.
        """
        await asyncio.sleep(PAUSE_S)
        outcome = await self.client.phase(chosen, rate, given.duration_s, seed=given.seed + number)
        if failures := outcome.failures():
            raise RuntimeError(f"{self.system} failed at {rate:.1f} calls/s, and not because of load: {failures}")
        self.outcomes.append(outcome)

    def row(self, given: argparse.Namespace, overload: bool) -> dict[str, Any]:
        """The phases since the last row."""
        row = row_of(self.system, self.outcomes, given.objective_ms / 1000)
        kept = isinstance(row["p99_ms"], float) and row["p99_ms"] <= given.objective_ms
        if kept:
            self.best_rate, self.misses = max(row["rate"], self.best_rate), 0
        else:
            self.misses += 1
        self.outcomes = []
        print(markdown([row], COLUMNS).splitlines()[-1], flush=True)
        return row | {"kept": kept, "overload": overload}


def in_turn(contenders: Sequence[Contender], number: int) -> Sequence[Contender]:
    """Forwards, then backwards: nobody always comes after the same one."""
    return contenders if number % 2 == 0 else contenders[::-1]


async def sweep(addresses: dict[str, str], given: argparse.Namespace, chosen: list[str]) -> list[dict[str, Any]]:
    """Rising rates past the knee of all, then twice the best of each; at each rate all in turn, several times."""
    contenders = [
        Contender(system, OpenLoop(address, given.beams, given.forced or MAX_LENGTH, given.timeout_s))
        for system, address in addresses.items()
    ]
    for contender in contenders:
        await contender.client.phase(chosen, given.first_rate, given.warm_up_s, seed=given.seed)
    rows: list[dict[str, Any]] = []
    rate, number = given.first_rate, 0
    # Nobody leaves before all have missed: a better moment of a shared machine would count for those who stayed.
    while rate <= given.max_rate and any(one.misses < MAX_MISSES for one in contenders):
        for _ in range(given.repeats):
            for contender in in_turn(contenders, number):
                await contender.phase(rate, given, chosen, number)
            number += 1
        rows += [contender.row(given, overload=False) for contender in contenders]
        keep(given.out, "load", rows)
        rate *= given.growth
    for i in range(given.repeats):
        for contender in in_turn(contenders, number + i):
            await contender.phase(2 * (contender.best_rate or given.first_rate), given, chosen, number + i)
    for contender in contenders:
        rows.append(contender.row(given, overload=True))
        await contender.client.close()
    return sorted(rows, key=lambda row: list(addresses).index(row["system"]))


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each system its best rate, its peak, and what is left of the peak under twice the best rate."""
    found = []
    for system in dict.fromkeys(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == system]
        peak = max(row["goodput"] for row in own)
        best = max((row["rate"] for row in own if row["kept"] and not row["overload"]), default=0.0)
        last = next(row for row in own if row["overload"])
        share = last["goodput"] / peak if peak else 0.0
        found.append({"system": system, "best_rate": best, "peak_goodput": peak, "overload_share": share})
    ours = next((entry["best_rate"] for entry in found if entry["system"] == "dragoman"), None)
    for entry in found:
        if ours is not None:
            entry["ratio"] = ours / entry["best_rate"] if entry["best_rate"] else "none in time"
    return found


def by_objective(rows: list[dict[str, Any]], objective_ms: float) -> list[dict[str, Any]]:
    """Each system's best rate for objectives up to that of the run, which says nothing of longer ones: it ended there.
    ``None`` where a system missed it at the lowest rate already."""
    rising = [row for row in rows if not row["overload"]]
    found = []
    for limit_ms in (one for one in OBJECTIVES_MS if one <= objective_ms):
        best: dict[str, Any] = {row["system"]: None for row in rising}
        for row in rising:
            if isinstance(row["p99_ms"], float) and row["p99_ms"] <= limit_ms:
                best[row["system"]] = max(row["rate"], best[row["system"]] or 0.0)
        if any(best.values()):
            found.append({"objective_ms": limit_ms} | best)
    return found


def doubts(rows: list[dict[str, Any]], growth: float, phases: int) -> list[str]:
    """What a reader of the summary must know of its numbers."""
    rising = [row for row in rows if not row["overload"]]
    last = max(row["rate"] for row in rising)
    found = [f"Rates rise by a factor of {growth:g}: no best rate, and no ratio, is known better than that."]
    found += [f"{row['system']} kept even the last rate." for row in rising if row["kept"] and row["rate"] == last]
    calls = min(row["num_sent"] / phases for row in rising)
    return found + ([f"The 99th percentile of a phase of {calls:.0f} calls is its slowest."] if calls < 100 else [])


def plot(path: Path, rows: list[dict[str, Any]], objective_ms: float) -> None:
    """p99 and goodput against the rate. Needs matplotlib."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        print(f"no {path}: matplotlib is not installed (extra 'bench')", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (latency, good) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for system in dict.fromkeys(row["system"] for row in rows):
        own = sorted((row for row in rows if row["system"] == system), key=lambda row: row["rate"])
        answered = [row for row in own if isinstance(row["p99_ms"], float)]
        latency.plot([r["rate"] for r in answered], [r["p99_ms"] for r in answered], marker="o", label=system)
        good.plot([r["rate"] for r in own], [r["goodput"] for r in own], marker="o", label=system)
    latency.axhline(objective_ms, linestyle="--", color="grey")
    latency.set(xlabel="calls/s sent", ylabel="p99 ms", yscale="log")
    good.set(xlabel="calls/s sent", ylabel="answered in time/s")
    good.legend()
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


def options() -> argparse.ArgumentParser:
    arguments = parser(__doc__ or "", "load")
    add_options(arguments)
    systems = ",".join(SYSTEMS)
    arguments.add_argument("--systems", type=some_of(SYSTEMS), default=systems, help="some of the default, with commas")
    arguments.add_argument("--beams", type=int, default=4)
    arguments.add_argument("--precision", choices=["int8", "fp32"], default="int8")
    arguments.add_argument("--objective-ms", type=float, default=500.0, help="99 of 100 calls must be this fast")
    arguments.add_argument("--timeout-s", type=float, default=5.0, help="each call's deadline")
    arguments.add_argument("--first-rate", type=float, default=20.0, help="calls a second")
    arguments.add_argument("--growth", type=float, default=1.15, help="each rate is so many times the one before")
    arguments.add_argument("--max-rate", type=float, default=2000.0)
    arguments.add_argument("--duration-s", type=float, default=15.0, help="of each phase")
    arguments.add_argument("--repeats", type=int, default=3, help="phases of each rate")
    arguments.add_argument("--warm-up-s", type=float, default=5.0)
    arguments.add_argument(
        "--max-delay-ms", type=float, default=0.0, help="past it Dragoman refuses; 0: 0.7 of the objective"
    )
    arguments.add_argument("--window-ms", type=float, default=10.0, help="the static fronts' window")
    arguments.add_argument("--max-batch", type=int, default=32, help="the static fronts' largest batch")
    arguments.add_argument("--max-queue", type=int, default=4096, help="texts that may wait in the static fronts")
    arguments.add_argument("--lanes", type=int, default=0, help="the static fronts' batches at a time; 0: one a core")
    arguments.add_argument("--texts", choices=texts.KINDS, default="mixed")
    arguments.add_argument("--seed", type=int, default=1)
    return arguments


def main() -> int:
    given = options().parse_args()
    if given.quick:
        given.first_rate, given.growth, given.duration_s, given.warm_up_s, given.max_rate = 4.0, 2.0, 2.0, 1.0, 8.0
        given.repeats = 1
    model, artifacts = prepare(given)
    if given.forced:
        chosen = random_model.texts(NUM_TEXTS, given.forced, model.vocab_size, given.seed)
    else:
        chosen = texts.choose(given.texts, NUM_TEXTS, given.seed).sources
    server_cores, client_cores = split_cores()
    os.sched_setaffinity(0, client_cores)
    nice = raise_priority()
    place = "shares them" if server_cores == client_cores else "has one of its own"
    pinning = f"server on {len(server_cores)} cores; the client {place}, {nice} less nice than the server"
    with contextlib.ExitStack() as servers:
        addresses = {
            system: servers.enter_context(server(system, artifacts, given, server_cores, nice))
            for system in given.systems
        }
        rows = asyncio.run(sweep(addresses, given, chosen))
    print(markdown(rows, COLUMNS))
    doubtful = doubts(rows, given.growth, given.repeats)
    objectives = by_objective(rows, given.objective_ms)
    print(markdown(summary(rows), SUMMARY), *doubtful, sep="\n")
    print(markdown(objectives, {name: name for name in ("objective_ms", *given.systems)}))
    facts = {name: getattr(given, name) for name in RECORDED}
    facts |= {"pinning": pinning, "texts": "random" if given.forced else given.texts}
    save(given.out, "load", rows, summary=summary(rows), by_objective=objectives, doubts=doubtful, **facts)
    plot(given.out.with_suffix(".png"), rows, given.objective_ms)
    return 0


if __name__ == "__main__":
    sys.exit(main())
