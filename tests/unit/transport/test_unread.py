"""Whoever asks and does not read gets nothing new until it has read, and keeps nobody else from being served."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest

from service.errors import Overloaded, QuotaExceeded
from service.pb import translation_pb2 as pb
from service.transport.limits import Limits
from service.transport.unread import UnreadAnswers
from tests.unit.transport.running_server import Running, request, with_server

TRANSLATE = "/dragoman.v1.TranslationService/Translate"
# A client's window holds 64 kB; a larger answer waits at the server for as long as its client does not read.
LARGE = "all of this waits " * 40_000
NEVER_READS = (("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def without_limits_of_texts(test: Callable[[Running], Awaitable[None]]) -> None:
    with_server(test, Limits(max_text_characters=1_000_000), compress_from_bytes=0)


def test_a_client_has_half_and_all_have_the_whole() -> None:
    async def check() -> None:
        unread = UnreadAnswers(max_bytes=100)
        end = asyncio.Event()
        calls = [asyncio.create_task(end.wait()) for _ in range(3)]
        unread.add("one", 51, calls[0])
        with pytest.raises(QuotaExceeded, match="51 bytes of answers to this client are not read; at most 50 may be"):
            unread.check("one")
        unread.check("two")
        unread.add("two", 50, calls[1])
        with pytest.raises(Overloaded, match="101 bytes of answers are not read; at most 100 may be"):
            unread.check("three")
        assert not await unread.wait_none(0.0)
        end.set()
        assert await unread.wait_none(5)
        unread.check("one")

    asyncio.run(check())


def test_who_does_not_read_is_refused_until_it_does() -> None:
    async def check(server: Running) -> None:
        unread = server.server._gate.unread
        unread._max_bytes = len(LARGE)
        async with grpc.aio.insecure_channel(server.address, options=NEVER_READS) as channel:
            send = channel.unary_stream(TRANSLATE, pb.TranslateRequest.SerializeToString)  # a stream is read when asked
            call = send(request(LARGE))
            await until(lambda: unread.num_bytes > 0)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await server.stub.Translate(request("a"), timeout=5)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "bytes of answers to this client are not read" in str(refused.value.details())
            assert server.sample("dragoman_rejected_total", reason="unread_answers") == 1
            await call.read()
            await until(lambda: unread.num_bytes == 0)
            await server.stub.Translate(request("a"), timeout=5)

    without_limits_of_texts(check)


def test_who_leaves_an_answer_unread_is_forgotten() -> None:
    async def check(server: Running) -> None:
        unread = server.server._gate.unread
        async with grpc.aio.insecure_channel(server.address, options=NEVER_READS) as channel:
            call = channel.unary_stream(TRANSLATE, pb.TranslateRequest.SerializeToString)(request(LARGE))
            await until(lambda: unread.num_bytes > 0)
            call.cancel()
        await until(lambda: unread.num_bytes == 0)

    without_limits_of_texts(check)


def test_a_drain_waits_for_the_last_byte() -> None:
    async def check(server: Running) -> None:
        unread = server.server._gate.unread
        async with grpc.aio.insecure_channel(server.address, options=NEVER_READS) as channel:
            call = channel.unary_stream(TRANSLATE, pb.TranslateRequest.SerializeToString)(request(LARGE))
            await until(lambda: unread.num_bytes > 0)
            draining = asyncio.create_task(server.server.drain(10))
            await asyncio.sleep(0.1)
            assert not draining.done(), "an answer is still on its way"
            await call.read()
            assert await draining

    without_limits_of_texts(check)
