"""A service that stands still for a while, as a stopped container or a moved machine does, and one whose log does."""

import asyncio
import signal

import pytest

from tests.faults.calls import Caller, Outcome, codes
from tests.faults.conftest import TEXTS
from tests.faults.server_process import ServerProcess

pytestmark = pytest.mark.integration
NUM_CLIENTS = 300
GRPC_PATIENCE_S = 30  # after which gRPC cancels calls that nobody has looked at, unless it is told not to


@pytest.mark.parametrize("still_s", [1, pytest.param(GRPC_PATIENCE_S + 3, marks=pytest.mark.faults)])
def test_calls_outlive_a_service_that_stands_still(golden: dict[str, str], still_s: int):
    async def check(server: ServerProcess) -> None:
        outcomes: list[tuple[str, Outcome]] = []
        is_over = False

        async def client(text: str) -> None:
            while not is_over:
                outcomes.append((text, await caller.translate(text)))

        async with Caller(server.address, 4) as caller:
            clients = [asyncio.create_task(client(TEXTS[i % len(TEXTS)])) for i in range(NUM_CLIENTS)]
            await asyncio.sleep(1.0)
            server.signal(signal.SIGSTOP)
            await asyncio.sleep(still_s)
            num_before = len(outcomes)
            server.signal(signal.SIGCONT)
            is_over = True
            await asyncio.gather(*clients)
        assert len(outcomes) - num_before >= NUM_CLIENTS / 2, "hardly any call was open while it stood still"
        assert set(codes([outcome for _, outcome in outcomes])) <= {"OK", "RESOURCE_EXHAUSTED"}
        assert all(outcome.texts == (golden[text],) for text, outcome in outcomes if outcome.code == "OK")

    with ServerProcess() as server:
        base = server.census()
        asyncio.run(check(server))
        server.wait_for_rest(base)
        assert server.stop() == 0


def test_a_log_that_nobody_reads_holds_up_no_call(golden: dict[str, str]):
    async def check(server: ServerProcess) -> None:
        async with Caller(server.address, 4) as caller:
            for _ in range(10):  # some 200 bytes a call: more than a pipe and what reads it hold
                outcomes = await caller.translate_each(TEXTS * 8)
                assert [outcome.texts for outcome in outcomes] == [(golden[text],) for text in TEXTS * 8]

    with ServerProcess() as server:
        base = server.census()
        server.is_read.clear()
        asyncio.run(check(server))
        server.is_read.set()
        server.wait_for_rest(base)
        assert server.stop() == 0
    calls = [line for line in server.lines if line["message"] == "call"]
    assert len(calls) == 10 * 8 * len(TEXTS)
