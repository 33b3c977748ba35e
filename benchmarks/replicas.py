"""Two replicas of one core each behind client-side round robin, beside one; and replicas replaced under load.

Throughput: so many calls of eight texts in flight, one replica and two in turn (A B A B). Each replica is held to a
core of its own; the client has what they leave, so that on two cores the second replica shares its core. The CPU
seconds of each process are counted too: tokens per CPU second do not depend on who else uses the machine.

Replacement, as a rolling update does it: a new replica starts and gets ready, then an old one gets SIGTERM. Calls come
at times of their own (open loop) through one channel that knows all places a replica may be at. A call whose retries
(service/client.py) come to nothing is a failure, and this program then exits with 1.

Knows: processes, cores, clients. Does not know: how a replica works.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from benchmarks.open_loop import arrivals
from benchmarks.report import markdown, numbers, parser, save
from benchmarks.texts import choose
from service.client import SERVICE_CONFIG
from service.demo import wait_until_serving
from service.pb import translation_pb2 as pb
from service.pb import translation_pb2_grpc as pb_grpc

COLUMNS = {
    "beams": "beams",
    "replicas": "replicas",
    "tokens_per_s": "target tokens/s",
    "characters_per_s": "source characters/s",
    "tokens_per_cpu_s": "tokens per CPU second of a replica",
    "characters_per_cpu_s": "characters per CPU second",
    "client_cores": "cores of the client",
    "rss_mib": "MiB of a replica",
    "speedup": "beside one",
}
TEXTS_PER_CALL = 8
ADMIT_GRACE_S = 1.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Replica:
    """A service in a process of its own, on one core."""

    def __init__(self, port: int, core: int) -> None:
        self.address = f"127.0.0.1:{port}"
        command = [
            "taskset",
            "--cpu-list",
            str(core),
            sys.executable,
            "-m",
            "service.cli",
            "serve",
            "--listen",
            self.address,
            "--metrics-listen",
            "",
        ]
        command += ["--admit-grace-s", str(ADMIT_GRACE_S), "--log-level", "error"]
        command += ["--max-delay-s", "0"]  # a closed loop waits for its answers, however long
        self._process = subprocess.Popen(command)

    def wait_until_ready(self) -> None:
        if not wait_until_serving(self.address, self._process):
            raise RuntimeError("a replica did not start")

    def cpu_s(self) -> float:
        """CPU seconds since its start, user and system."""
        return cpu_s(self._process.pid)

    def rss_mib(self) -> float:
        """Its memory now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(120)

    def kill(self) -> None:
        """At the end of a run that failed; nothing where it has ended."""
        self._process.kill()
        self._process.wait()


def free_places(count: int) -> list[int]:
    """Free ports below those that the system gives to connections: a client tries them while nobody is there yet."""
    places: list[int] = []
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                places.append(port)
        if len(places) == count:
            return places
    raise RuntimeError("no free ports")


def started(stack: ExitStack, port: int, core: int) -> Replica:
    """A replica that is ready, and gone when the stack is left."""
    replica = Replica(port, core)
    stack.callback(replica.kill)
    replica.wait_until_ready()
    return replica


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    numbers = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(numbers[11]) + int(numbers[12])) / TICKS_PER_S


def open_channel(ports: Sequence[int]) -> grpc.aio.Channel:
    """One channel to all of them, as the addresses of a headless Service give it."""
    options = [("grpc.service_config", json.dumps(SERVICE_CONFIG)), ("grpc.max_reconnect_backoff_ms", 2000)]
    return grpc.aio.insecure_channel("ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports), options=options)


def request(texts: Sequence[str], beams: int) -> pb.TranslateRequest:
    options = pb.DecodeOptions(num_beams=beams)
    return pb.TranslateRequest(texts=texts, source_language="en", target_language="fr", options=options)


async def closed_loop(ports: Sequence[int], texts: Sequence[str], beams: int, num_open: int) -> int:
    """Translates all texts with so many calls in flight; returns the number of target tokens."""
    chunks = [texts[i : i + TEXTS_PER_CALL] for i in range(0, len(texts), TEXTS_PER_CALL)]
    num_tokens = 0
    async with open_channel(ports) as channel:
        stub = pb_grpc.TranslationServiceStub(channel)  # type: ignore[no-untyped-call]

        async def work() -> None:
            nonlocal num_tokens
            while chunks:
                response = await stub.Translate(request(chunks.pop(), beams), timeout=300)
                num_tokens += sum(result.translation.num_target_tokens for result in response.results)

        await asyncio.gather(*(work() for _ in range(num_open)))
    return num_tokens


def throughput(
    num_replicas: int, beams: int, texts: Sequence[str], num_open: int, cores: Sequence[int]
) -> dict[str, Any]:
    """One run over all texts, after a small one to open connections and caches."""
    ports = free_places(num_replicas)
    with ExitStack() as stack:
        replicas = [started(stack, port, core) for port, core in zip(ports, cores, strict=False)]
        row = measured(replicas, ports, beams, texts, num_open)
        codes = [replica.stop() for replica in replicas]
        if any(codes):
            raise RuntimeError("a replica did not end with 0")
    return row


def measured(
    replicas: Sequence[Replica], ports: Sequence[int], beams: int, texts: Sequence[str], num_open: int
) -> dict[str, Any]:
    """What the columns of COLUMNS say, but for the speed-up."""
    asyncio.run(closed_loop(ports, texts[:128], beams, num_open))
    used = [replica.cpu_s() for replica in replicas]
    client, started = time.process_time(), time.perf_counter()
    num_tokens = asyncio.run(closed_loop(ports, texts, beams, num_open))
    duration_s, client_s = time.perf_counter() - started, time.process_time() - client
    busy_s = sum(replica.cpu_s() for replica in replicas) - sum(used)
    num_characters = sum(map(len, texts))
    return {
        "beams": beams,
        "replicas": len(replicas),
        "tokens_per_s": num_tokens / duration_s,
        "characters_per_s": num_characters / duration_s,
        "tokens_per_cpu_s": num_tokens / busy_s,
        "characters_per_cpu_s": num_characters / busy_s,
        "client_cores": client_s / duration_s,
        "rss_mib": max(replica.rss_mib() for replica in replicas),
    }


@dataclass(slots=True)
class Calls:
    """What became of the calls of one phase; latencies in seconds from the intended time of sending."""

    latencies_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def row(self, phase: str) -> dict[str, Any]:
        ordered = sorted(self.latencies_s) or [float("nan")]
        quantiles = {f"p{share}_ms": ordered[int(share / 100 * (len(ordered) - 1))] * 1000 for share in (50, 99)}
        counts = {"calls": len(self.latencies_s) + self.errors.total(), "failed": self.errors.total()}
        return {"phase": phase, **counts, **quantiles, "max_ms": ordered[-1] * 1000, "codes": dict(self.errors)}


async def send(stub: Any, text: str, at: float, calls: Calls) -> None:
    """One call at its time."""
    await asyncio.sleep(max(0.0, at - time.perf_counter()))
    try:
        await stub.Translate(request([text], 1), timeout=30)
    except grpc.aio.AioRpcError as error:
        calls.errors[error.code().name] += 1
    else:
        calls.latencies_s.append(time.perf_counter() - at)


def roll(
    stack: ExitStack, places: Sequence[int], running: dict[int, Replica], cores: Sequence[int], num_steps: int
) -> list[int]:
    """Replaces one replica after the other: a new one at the free place, then the oldest goes. Their exit codes."""
    codes = []
    for _ in range(num_steps):
        [free] = set(places) - running.keys()
        oldest = next(iter(running))
        running[free] = started(stack, free, cores[places.index(free) % len(cores)])
        codes.append(running[oldest].stop())
        del running[oldest]
    return codes


async def replacement(texts: Sequence[str], given: argparse.Namespace, cores: Sequence[int]) -> list[dict[str, Any]]:
    """A quiet phase, then one in which every replica is replaced several times."""
    places = free_places(3)
    with ExitStack() as stack:
        running = {port: started(stack, port, core) for port, core in zip(places[:2], cores, strict=False)}
        async with open_channel(places) as channel:
            stub = pb_grpc.TranslationServiceStub(channel)  # type: ignore[no-untyped-call]
            quiet, rolling = Calls(), Calls()
            await load(stub, texts, given.rate, given.seconds, quiet)
            work = asyncio.create_task(load(stub, texts, given.rate, given.seconds * 2, rolling))
            codes = await asyncio.to_thread(roll, stack, places, running, cores, given.replacements)
            facts = {"exit_codes": codes, "outlasted": work.done()}
            await work
        return [quiet.row("two replicas"), rolling.row(f"{given.replacements} replacements") | facts]


async def load(stub: Any, texts: Sequence[str], rate: float, duration_s: float, calls: Calls) -> None:
    """Calls of one text at that rate, whatever becomes of them."""
    begin = time.perf_counter() + 0.1
    times = arrivals(rate, duration_s, seed=1)
    await asyncio.gather(*(send(stub, texts[i % len(texts)], begin + at, calls) for i, at in enumerate(times)))


def compared(beams: int, texts: Sequence[str], given: argparse.Namespace, cores: Sequence[int]) -> list[dict[str, Any]]:
    """One replica and two, in turn; the medians of each and of the paired ratios."""
    runs = [throughput(count, beams, texts, given.calls, cores) for _ in range(given.repeats) for count in (1, 2)]
    ratios = [two["tokens_per_s"] / one["tokens_per_s"] for one, two in zip(runs[::2], runs[1::2], strict=True)]
    rows = []
    for count, speedups in ((1, [1.0]), (2, ratios)):
        own = [run for run in runs if run["replicas"] == count]
        medians = {name: statistics.median(run[name] for run in own) for name in own[0]}
        medians |= {"beams": beams, "replicas": count}
        rows.append(medians | {"speedup": statistics.median(speedups), "speedups": speedups})
    return rows


def options() -> argparse.ArgumentParser:
    arguments = parser(__doc__ or "", "replicas")
    arguments.add_argument("--texts", type=int, default=2400, help="texts of a run, a third of each kind")
    arguments.add_argument("--beams", type=numbers, default=[1, 4])
    arguments.add_argument("--calls", type=int, default=32, help="calls in flight")
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--rate", type=float, default=20.0, help="calls a second while replicas are replaced")
    arguments.add_argument("--seconds", type=float, default=30.0, help="the quiet phase; replacement takes twice that")
    arguments.add_argument("--replacements", type=int, default=6)
    return arguments


def main() -> int:
    given = options().parse_args()
    if given.quick:
        given.texts, given.repeats, given.seconds, given.replacements = 240, 1, 5.0, 2
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("two replicas of one core each need two cores")
    texts = choose("mixed", given.texts, seed=1).sources
    rows = [row for beams in given.beams for row in compared(beams, texts, given, cores)]
    print(markdown(rows, COLUMNS))
    replaced = asyncio.run(replacement(texts, given, cores))
    print(json.dumps(replaced, indent=1))
    save(given.out, "replicas", rows, characters_per_text=statistics.mean(map(len, texts)), replacement=replaced)
    failed = sum(row["failed"] for row in replaced) + sum(code != 0 for code in replaced[1]["exit_codes"])
    return int(failed > 0 or replaced[1]["outlasted"])


if __name__ == "__main__":
    sys.exit(main())
