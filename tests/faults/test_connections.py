"""Connections that grow old: clients come back over new ones, without a failed call."""

import asyncio
import resource
import socket
import time

import grpc
import pytest

from service.pb import translation_pb2 as pb
from tests.faults.calls import Caller, Outcome, codes
from tests.faults.conftest import TEXTS
from tests.faults.server_process import PLAIN, ServerProcess

pytestmark = pytest.mark.integration
CONFIG = pb.TranslateStreamRequest(config=pb.StreamConfig(source_language="en", target_language="fr"))


@pytest.mark.parametrize("duration_s", [1.2, pytest.param(20.0, marks=pytest.mark.faults)])
def test_old_connections_are_left_without_a_failed_call(golden: dict[str, str], duration_s: float):
    async def client(caller: Caller, end: float) -> list[Outcome]:
        found: list[Outcome] = []
        while time.monotonic() < end:
            text = TEXTS[len(found) % len(TEXTS)]
            found.append(await caller.translate(text))
            assert found[-1].code != "OK" or found[-1].texts == (golden[text],)
        return found

    async def check(server: ServerProcess) -> None:
        async with Caller(server.address, 4) as caller:
            end = time.monotonic() + duration_s
            found = await asyncio.gather(*(client(caller, end) for _ in range(4)))
        assert set(codes([outcome for outcomes in found for outcome in outcomes])) == {"OK"}

    with ServerProcess("--max-connection-age-s", "0.5", program=PLAIN) as server:
        base = server.census()
        asyncio.run(check(server))
        server.wait_for_rest(base)
        assert server.stop() == 0


@pytest.mark.faults
@pytest.mark.parametrize("words", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_silent_strangers_keep_others_waiting_no_longer_than_they_may(golden: dict[str, str], words: bytes):
    """They hold every file descriptor there is; a new client is served once they are sent away."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    async def check(server: ServerProcess) -> None:
        host, _, port = server.address.partition(":")
        strangers = [socket.create_connection((host, int(port))) for _ in range(100)]
        for stranger in strangers:
            stranger.sendall(words)
        async with Caller(server.address) as late:
            assert (await late.translate(TEXTS[0])).texts == (golden[TEXTS[0]],)
        for stranger in strangers:
            stranger.close()

    with ServerProcess("--handshake-timeout-s", "1", program=PLAIN, prepare=few) as server:
        base = server.census()
        asyncio.run(check(server))
        server.wait_for_rest(base)
        assert server.stop() == 0


@pytest.mark.faults
def test_a_stream_outlasts_its_connection_by_the_grace_and_no_more():
    """It goes on as long as it likes without a grace; with one it ends UNAVAILABLE, for the client to begin anew."""

    async def check(server: ServerProcess, has_grace: bool) -> None:
        async with Caller(server.address) as caller:
            call = caller.stub.TranslateStream(timeout=60)
            await call.write(CONFIG)
            if has_grace:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call.read()
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            else:
                await asyncio.sleep(1.0)  # twice the age
                await call.write(pb.TranslateStreamRequest(text=pb.StreamText(id="1", text="Yes.")))
                assert (await call.read()).id == "1"
                await call.done_writing()
                assert await call.read() is grpc.aio.EOF

    for grace in ("0", "0.5"):
        flags = ("--max-connection-age-s", "0.5", "--max-connection-age-grace-s", grace)
        with ServerProcess(*flags, program=PLAIN) as server:
            base = server.census()
            asyncio.run(check(server, grace != "0"))
            server.wait_for_rest(base)
            assert server.stop() == 0
