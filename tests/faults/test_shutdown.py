"""Ends of the server's process: SIGTERM at rest and under load, once and twice, and kill -9."""

import asyncio
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from service.model_store import SHIPPED_BUNDLE
from tests.faults.calls import Caller, Outcome, codes
from tests.faults.conftest import TEXTS
from tests.faults.server_process import PLAIN, ServerProcess

pytestmark = pytest.mark.integration
NUM_CLIENTS = 12
many = pytest.param(20, marks=[pytest.mark.faults, pytest.mark.timeout(400)])


async def hammer(caller: Caller, end: asyncio.Event, golden: dict[str, str]) -> list[Outcome]:
    """Calls as fast as they are answered, until the server is gone."""
    found: list[Outcome] = []
    while not end.is_set():
        text = TEXTS[len(found) % len(TEXTS)]
        outcome = await caller.translate(text)
        found.append(outcome)
        assert outcome.code != "OK" or outcome.texts == (golden[text],)
        if "connect" in outcome.details:
            await asyncio.sleep(0.02)
    return found


@pytest.mark.parametrize("repetitions", [1, many])
def test_sigterm_under_load_fails_no_accepted_call(golden: dict[str, str], repetitions: int):
    """Every call is answered OK or UNAVAILABLE, and as many OK as the server says it gave."""
    for _ in range(repetitions):
        with ServerProcess(program=PLAIN) as server:
            outcomes, code = asyncio.run(end_under_load(server, golden))
            assert code == 0
            assert set(codes(outcomes)) == {"OK", "UNAVAILABLE"}
            answered = [line for line in server.lines if line["message"] == "call"]
            assert sum(line["code"] == "OK" for line in answered) == codes(outcomes)["OK"]
            assert {line["code"] for line in answered} == {"OK", "UNAVAILABLE"}
            refused = [outcome for outcome in outcomes if outcome.reason]
            assert {(outcome.reason, outcome.retry_ms) for outcome in refused} == {("DRAINING", "100")}


async def end_under_load(server: ServerProcess, golden: dict[str, str]) -> tuple[list[Outcome], int]:
    end = asyncio.Event()
    async with Caller(server.address, NUM_CLIENTS) as caller:
        clients = [asyncio.create_task(hammer(caller, end, golden)) for _ in range(NUM_CLIENTS)]
        await asyncio.sleep(0.3)  # any moment will do
        server.signal(signal.SIGTERM)
        code = await asyncio.to_thread(server.wait)
        end.set()
        found = await asyncio.gather(*clients)
    return [outcome for outcomes in found for outcome in outcomes], code


def test_readiness_goes_first_and_what_was_accepted_is_answered(golden: dict[str, str]):
    """Some calls decode and some wait in the queue when SIGTERM comes; calls within the grace are still taken."""

    async def check(server: ServerProcess) -> None:
        async with Caller(server.address) as caller:
            server.tell("close")
            accepted = [asyncio.create_task(caller.translate(text)) for text in TEXTS]
            await asyncio.to_thread(server.wait_for_word, "at gate")
            server.signal(signal.SIGTERM)
            await caller.wait_for_health("NOT_SERVING")
            assert server.page("readyz")[0] == 503
            assert server.page("livez")[0] == 200
            late = asyncio.create_task(caller.translate(TEXTS[0]))
            while not (refused := await caller.translate(TEXTS[1], timeout_s=1)).reason:
                assert refused.code == "DEADLINE_EXCEEDED"  # taken, within the grace
            assert (refused.code, refused.reason) == ("UNAVAILABLE", "DRAINING")
            server.tell("open")
            outcomes = await asyncio.gather(*accepted, late)
        assert [outcome.texts for outcome in outcomes] == [(golden[text],) for text in (*TEXTS, TEXTS[0])]
        assert await asyncio.to_thread(server.wait) == 0

    with ServerProcess("--max-rows", "4", "--max-beams", "4", "--num-workers", "1", "--admit-grace-s", "1") as server:
        asyncio.run(check(server))


@pytest.mark.parametrize("outcome", ["grace", pytest.param("second signal", marks=pytest.mark.faults)])
def test_work_longer_than_the_grace(outcome: str):
    """At the end of the grace, UNAVAILABLE with a reason, although a step hangs; a second signal ends it at once."""

    async def check(server: ServerProcess) -> None:
        async with Caller(server.address) as caller:
            server.tell("close")
            accepted = [asyncio.create_task(caller.translate(text)) for text in TEXTS]
            await asyncio.to_thread(server.wait_for_word, "at gate")
            server.signal(signal.SIGTERM)
            await asyncio.to_thread(server.wait_for_log, "draining")
            if outcome == "second signal":
                server.signal(signal.SIGTERM)
            found = await asyncio.gather(*accepted)
        assert codes(found) == {"UNAVAILABLE": len(TEXTS)}
        if outcome == "grace":
            assert {answer.reason for answer in found} == {"DRAINING"}
        assert await asyncio.to_thread(server.wait) == (1 if outcome == "grace" else 128 + signal.SIGTERM)

    grace_s = "0.3" if outcome == "grace" else "60"
    with ServerProcess("--drain-grace-s", grace_s, "--max-rows", "16", "--num-workers", "1") as server:
        asyncio.run(check(server))


def test_kill_while_decoding_and_restart(golden: dict[str, str]):
    """Clients hear of it at once and succeed on retry; the port can be taken again."""

    async def killed(server: ServerProcess) -> None:
        async with Caller(server.address) as caller:
            server.tell("close")
            accepted = [asyncio.create_task(caller.translate(text)) for text in TEXTS]
            await asyncio.to_thread(server.wait_for_word, "at gate")
            server.signal(signal.SIGKILL)
            assert codes(await asyncio.gather(*accepted)) == {"UNAVAILABLE": len(TEXTS)}

    async def retried(address: str) -> None:
        async with Caller(address) as caller:
            outcomes = await caller.translate_each(TEXTS)
        assert [outcome.texts for outcome in outcomes] == [(golden[text],) for text in TEXTS]

    with ServerProcess() as server:
        asyncio.run(killed(server))
    with ServerProcess("--listen", server.address) as again:
        base = again.census()
        asyncio.run(retried(again.address))
        again.wait_for_rest(base)
        assert again.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_end_while_loading_leaves_nothing_on_the_disk(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of a bundle that is loaded from a copy; after a kill the next process removes what is left."""
    models, scratch = tmp_path / "models", tmp_path / "scratch"
    scratch.mkdir()
    shutil.copytree(SHIPPED_BUNDLE, models / "en-fr")
    monkeypatch.setenv("TMPDIR", str(scratch))
    with ServerProcess("--models-folder", str(models), is_awaited=False) as server:
        while not list(scratch.glob("*/content")):  # before it there may be a file of Python's, trying the folder
            time.sleep(0.005)
        server.signal(number)
        assert server.wait() == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    if number == signal.SIGKILL:
        assert list(scratch.iterdir())
        with ServerProcess("--models-folder", str(models)) as again:
            assert again.stop() == 0
    assert list(scratch.iterdir()) == []


def test_a_disk_without_room_for_a_copy_is_a_wrong_configuration(tmp_path: Path):
    """Like a read-only one: an error in words and an exit code that says that another start will not help."""
    shutil.copytree(SHIPPED_BUNDLE, tmp_path / "en-fr")

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    with ServerProcess("--models-folder", str(tmp_path), is_awaited=False, prepare=no_room) as server:
        assert server.wait() == 78
    assert any("cannot be copied" in line for line in server.noise)
    assert not any("Traceback" in line for line in server.noise)
