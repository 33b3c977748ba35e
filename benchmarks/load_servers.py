"""The servers of a load test as processes: the service, and static fronts around an engine.

Knows: their command lines, how they are started, awaited and stopped. Does not know: load.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks.systems import MAX_LENGTH, Artifacts
from service.demo import free_port, wait_until_serving

DELAY_SHARE = 0.7  # of the objective: an answer that is expected later would come too late


def command_of(system: str, artifacts: Artifacts, address: str, given: argparse.Namespace, cores: int) -> list[str]:
    if system == "dragoman":
        command = [sys.executable, "-m", "service.cli", "serve", "--bundle", str(artifacts.bundle)]
        command += ["--no-stop-repetition", "--metrics-listen", ""]
        command += ["--max-delay-s", str((given.max_delay_ms or DELAY_SHARE * given.objective_ms) / 1000)]
        return [*command, "--listen", address, "--precision", given.precision]
    engine = system.split()[1]
    model = artifacts.bundle if engine == "dragoman" else artifacts.ctranslate2
    command = [sys.executable, "-m", "benchmarks.static_front", engine, str(model), "--listen", address]
    command += ["--vocabulary", str(artifacts.vocabulary)]
    batching = ["--window-ms", str(given.window_ms), "--max-batch", str(given.max_batch)]
    batching += ["--max-queue", str(given.max_queue)]
    lanes = ["--lanes", str(given.lanes or cores), "--threads", str(max(1, cores // (given.lanes or cores)))]
    search = ["--num-beams", str(given.beams), "--max-length", str(given.forced or MAX_LENGTH)]
    return [*command, *batching, *lanes, *search, "--precision", given.precision]


@contextlib.contextmanager
def server(system: str, artifacts: Artifacts, given: argparse.Namespace, cores: set[int], nice: int) -> Iterator[str]:
    """A running server of that kind on ``cores``, so much nicer than the client; gives its address."""
    address = f"127.0.0.1:{free_port()}"

    def settle() -> None:
        os.sched_setaffinity(0, cores)
        os.nice(nice)

    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command_of(system, artifacts, address, given, len(cores)),
            stdout=log,
            stderr=log,
            preexec_fn=settle,
        )
        try:
            if not wait_until_serving(address, process):
                log.seek(0)
                sys.exit(f"{system} did not come up:\n{log.read()}")
            yield address
        finally:
            ended = process.poll()
            stop(process)
            if ended is not None:
                log.seek(0)
                print(f"{system} ended by itself, exit code {ended}:\n{log.read()}", file=sys.stderr)


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL after a minute."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
