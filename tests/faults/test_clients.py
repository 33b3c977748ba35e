"""Clients that cancel, vanish, run out of time or do not read: what they held is free, and the others go on."""

import asyncio
import signal
import subprocess
import sys

import grpc
import pytest

from service.pb import translation_pb2 as pb
from tests.faults.calls import Caller, codes, request
from tests.faults.conftest import TEXTS
from tests.faults.server_process import ROOT, ServerProcess

pytestmark = pytest.mark.integration
# Answers as large as they are: gzipped, thousands of them fit into what a connection takes of a client that reads none.
FLAGS = ("--num-workers", "1", "--max-rows", "4", "--max-beams", "4", "--max-stream-texts", "8")
FLAGS += ("--compress-from-bytes", "0")
CONFIG = pb.TranslateStreamRequest(
    config=pb.StreamConfig(source_language="en", target_language="fr", options=pb.DecodeOptions(num_beams=1))
)
STAGE = 'dragoman_cancelled_total{{stage="{}"}}'
LATE = 'dragoman_requests_total{code="DEADLINE_EXCEEDED",method="/dragoman.v1.TranslationService/Translate"}'
# Makes one call and waits for its answer, which does not come.
VANISHING = """
import sys, grpc
from service.pb import translation_pb2_grpc as pb_grpc
from tests.faults.calls import request
with grpc.insecure_channel(sys.argv[1]) as channel:
    pb_grpc.TranslationServiceStub(channel).Translate(request(*sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def server():
    with ServerProcess(*FLAGS) as started:
        yield started
        assert started.stop() == 0


def stage(server: ServerProcess, name: str) -> float:
    return server.samples().get(STAGE.format(name), 0.0)


async def still_right(server: ServerProcess, golden: dict[str, str]) -> None:
    async with Caller(server.address) as caller:
        again = await caller.translate_each(TEXTS)
    assert [outcome.texts for outcome in again] == [(golden[text],) for text in TEXTS]


@pytest.mark.parametrize(
    ("gate", "num_calls", "expected"),
    [("close encoder", 1, {"encoding": 1}), ("close", 7, {"decoding": 4, "queued": 3})],
    ids=["encoding", "decoding and queued"],
)
@pytest.mark.parametrize("how", ["cancels", "vanishes"])
def test_a_client_leaves(
    server: ServerProcess, golden: dict[str, str], gate: str, num_calls: int, expected: dict[str, int], how: str
):
    """Rows are free after the step that was running; every sentence is counted in the stage in which it was left."""

    async def leave(texts: tuple[str, ...]) -> None:
        if how == "cancels":
            async with Caller(server.address) as caller:
                call = caller.stub.Translate(request(*texts))
                await held()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
        else:
            command = [sys.executable, "-c", VANISHING, server.address, *texts]
            with subprocess.Popen(command, cwd=ROOT) as client:
                await held()
                client.send_signal(signal.SIGKILL)

    async def held() -> None:
        await asyncio.to_thread(server.wait_for_word, "at gate")
        await asyncio.to_thread(server.wait_for_sample, "dragoman_open_requests", 1)

    base = server.census()
    before = {name: stage(server, name) for name in expected}
    server.tell(gate)
    asyncio.run(leave(TEXTS[1 : 1 + num_calls]))
    server.wait_for_sample("dragoman_open_requests", 0)
    server.tell("open")
    server.wait_for_rest(base)
    for name, count in expected.items():  # the engine counts a little after the call is gone
        server.wait_for_sample(STAGE.format(name), before[name] + count)
    asyncio.run(still_right(server, golden))


def test_cancelled_at_any_moment(server: ServerProcess, golden: dict[str, str]):
    """Calls cancelled after a while that ends before, at and after their completion: cancelled, or right."""

    async def one(caller: Caller, number: int) -> str:
        text = TEXTS[number % len(TEXTS)]
        call = caller.stub.Translate(request(text))
        await asyncio.sleep(number * 0.001)
        call.cancel()
        try:
            response = await call
        except asyncio.CancelledError:
            return "CANCELLED"
        assert response.results[0].translation.text == golden[text]
        return "OK"

    async def check() -> None:
        async with Caller(server.address) as caller:
            found = await asyncio.gather(*(one(caller, number) for number in range(100)))
        assert set(found) <= {"CANCELLED", "OK"}

    base = server.census()
    asyncio.run(check())
    server.wait_for_rest(base)
    asyncio.run(still_right(server, golden))


def test_deadlines_in_the_queue_while_decoding_and_already_past(server: ServerProcess, golden: dict[str, str]):
    """Answered when they pass, although the step still runs; what waited too long is never encoded."""

    async def check() -> None:
        encoded = server.samples()["dragoman_queue_duration_seconds_count"]
        late = server.samples().get(LATE, 0.0)
        async with Caller(server.address) as caller:
            patient = asyncio.create_task(caller.translate(TEXTS[0]))
            await asyncio.to_thread(server.wait_for_word, "at gate")
            outcomes = await caller.translate_each(TEXTS, timeout_s=2.5)  # less may be refused as too little
            assert codes(outcomes) == {"DEADLINE_EXCEEDED": len(TEXTS)}
            past = await caller.translate(TEXTS[0], timeout_s=0.000_001)
            assert past.code in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")  # late, or too little
            assert not patient.done()
            # The client's library ends its calls by itself; the server has done so, too, and not waited for the step.
            server.wait_for_sample("dragoman_open_requests", 1)
            assert server.samples().get(LATE, 0.0) >= late + len(TEXTS)  # the last may never have been sent
            server.tell("open")
            assert (await patient).texts == (golden[TEXTS[0]],)
        assert server.samples()["dragoman_queue_duration_seconds_count"] == encoded + 1

    base = server.census()
    server.tell("close")
    asyncio.run(check())
    server.wait_for_rest(base)
    asyncio.run(still_right(server, golden))


@pytest.mark.parametrize("num_readers", [1, pytest.param(20, marks=pytest.mark.faults)])
def test_a_stopped_reader_holds_a_bounded_buffer_and_nobody_else(
    server: ServerProcess, golden: dict[str, str], num_readers: int
):
    """Streams whose clients send for ever and read nothing: the server soon reads no more of them."""
    num_sent, large = 0, " \n" * 25_000  # comes back as it is, at no cost for the engine

    async def send(call: "grpc.aio.StreamStreamCall[object, object]") -> None:
        nonlocal num_sent
        await call.write(CONFIG)
        while True:
            await call.write(pb.TranslateStreamRequest(text=pb.StreamText(id=str(num_sent), text=large)))
            num_sent += 1

    async def until_it_stands_still(senders: "list[asyncio.Task[None]]") -> None:
        before = -1
        while before != num_sent or not num_sent:
            before = num_sent
            await asyncio.wait(senders, timeout=0.3)
            assert not any(sender.done() for sender in senders), senders

    async def check() -> None:
        async with Caller(server.address, num_readers) as stopped:
            calls = [stub.TranslateStream() for stub in stopped.stubs]
            senders = [asyncio.create_task(send(call)) for call in calls]
            await until_it_stands_still(senders)
            held = server.resident_bytes() - before
            await still_right(server, golden)
            assert held < (num_readers + 1) * 16 * 2**20  # one for what the process takes the first time
            assert not any(sender.done() for sender in senders)
            for call, sender in zip(calls, senders, strict=True):
                sender.cancel()
                call.cancel()

    base, before = server.census(), server.resident_bytes()
    asyncio.run(check())
    server.wait_for_rest(base)
