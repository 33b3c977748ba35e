"""`dragoman translate --target` while its replica goes: as if it had stayed, or an end that says how far it came."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.demo import free_port
from tests.faults.conftest import TEXTS
from tests.faults.server_process import ROOT, ServerProcess

NUM_LINES = 400
LINES = [TEXTS[number % len(TEXTS)] for number in range(NUM_LINES)]
# Before a server goes; far fewer than there are, and than it holds at once.
NUM_EARLY = 40
# A stream has few texts at a time, so that most are still to come when its server goes.
FLAGS = ("--num-workers", "1", "--max-stream-texts", "16")
TRANSLATED = 'dragoman_texts_total{outcome="translated"}'
IDLE = 'dragoman_requests_total{code="DEADLINE_EXCEEDED",method="/dragoman.v1.TranslationService/TranslateStream"}'

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def slow_server(*flags: str) -> ServerProcess:
    """A service whose steps take some time; not entered yet."""
    return ServerProcess(*FLAGS, *flags)


@contextmanager
def translating(target: str, *flags: str) -> Iterator["subprocess.Popen[str]"]:
    """`dragoman translate`, to be given its lines."""
    command = [sys.executable, "-m", "service.cli", "translate", "--to", "fr", "--beam", "1", "--target", target]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, *flags], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def give(process: "subprocess.Popen[str]", lines: list[str], is_end: bool = True) -> None:
    assert process.stdin is not None
    process.stdin.write("".join(f"{line}\n" for line in lines))
    process.stdin.flush()
    if is_end:
        process.stdin.close()


def early_lines(process: "subprocess.Popen[str]", count: int = NUM_EARLY) -> list[str]:
    """Its first lines, as soon as they are there."""
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


def rest_of(process: "subprocess.Popen[str]") -> tuple[list[str], str]:
    """The lines that are still to come, and what it said; not communicate(), which passes over what was read ahead."""
    if process.stdin is not None:
        process.stdin.close()
    assert process.stdout is not None
    assert process.stderr is not None
    found = process.stdout.read().splitlines(), process.stderr.read()
    process.wait()
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_another_replica_goes_on(number: int, golden: dict[str, str]):
    with slow_server() as first, slow_server() as second:
        for server in (first, second):
            server.tell("slow 10")
        with translating(f"ipv4:{first.address},{second.address}") as process:
            give(process, LINES)
            found = early_lines(process)
            [leaving] = [server for server in (first, second) if server.samples().get(TRANSLATED)]
            other = second if leaving is first else first
            leaving.signal(number)
            rest, said = rest_of(process)
        assert process.returncode == 0
        assert leaving.wait() == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        assert [*found, *rest] == [golden[line] for line in LINES]
        assert said.count("UNAVAILABLE") == 1
        assert "texts without an answer are sent again" in said
        # The one that went had answered what came early and what it held, and no text was asked for without need.
        assert 0 < other.samples()[TRANSLATED] <= NUM_LINES - NUM_EARLY


def test_the_server_that_comes_back_goes_on(golden: dict[str, str]):
    address = f"127.0.0.1:{free_port()}"
    with slow_server("--listen", address) as server, translating(address) as process:
        server.tell("slow 10")
        give(process, LINES)
        found = early_lines(process)
        server.signal(signal.SIGKILL)
        server.wait()
        with slow_server("--listen", address):
            rest, _ = rest_of(process)
    assert process.returncode == 0
    assert [*found, *rest] == [golden[line] for line in LINES]


def test_a_service_that_stays_away_ends_it(golden: dict[str, str]):
    with slow_server() as server, translating(server.address, "--patience-s", "3") as process:
        server.tell("slow 10")
        give(process, LINES)
        found = early_lines(process)
        server.signal(signal.SIGTERM)
        rest, said = rest_of(process)
    found += rest
    assert process.returncode == 1
    assert NUM_EARLY <= len(found) < NUM_LINES
    assert found == [golden[line] for line in LINES[: len(found)]]
    assert f"ended after {len(found)} lines were written\n" in said
    assert "UNAVAILABLE: no answer for 3 s; the last refusal was: UNAVAILABLE" in said


def test_ctrl_c_ends_the_waiting_for_it():
    with slow_server() as server, translating(server.address) as process:
        give(process, LINES[:NUM_EARLY], is_end=False)
        early_lines(process)
        server.signal(signal.SIGKILL)
        server.wait()
        give(process, LINES, is_end=False)
        assert process.stderr is not None
        assert "UNAVAILABLE" in process.stderr.readline()  # and so it waits
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert time.monotonic() - began < 30  # of 300 s
        assert process.stderr.read() == ""


def test_a_reader_that_pauses_longer_than_a_stream_may_be_idle(golden: dict[str, str]):
    with slow_server("--max-stream-idle-s", "1") as server, translating(server.address) as process:
        for num_idle in (1, 2):
            give(process, LINES[:10], is_end=False)
            assert early_lines(process, 10) == [golden[line] for line in LINES[:10]]
            server.wait_for_sample(IDLE, num_idle)
        _, said = rest_of(process)
    assert (process.returncode, said) == (0, "")
