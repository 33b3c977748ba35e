"""Calls whose one message comes late, never, or not at all: they are calls like others, and they end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from service.pb import translation_pb2 as pb
from service.transport.security import SecurityOptions
from tests.unit.transport.running_server import Running, request, with_server
from tests.unit.transport.test_translate import details, failure

TRANSLATE = "/dragoman.v1.TranslationService/Translate"
LONG_S = 20


def begun(server: Running, messages: AsyncIterator[bytes], timeout_s: float = LONG_S) -> Any:
    """A call of Translate that sends ``messages`` when they come."""
    return server.channel.stream_unary(TRANSLATE, response_deserializer=pb.TranslateResponse.FromString)(
        messages, timeout=timeout_s
    )


async def after(seconds: float, *messages: bytes) -> AsyncIterator[bytes]:
    await asyncio.sleep(seconds)
    for message in messages:
        yield message


async def wait_for_open_calls(server: Running, count: int) -> None:
    async with asyncio.timeout(LONG_S):
        while server.sample("dragoman_open_requests") != count:
            await asyncio.sleep(0.01)


def test_a_message_that_does_not_come_ends_its_call():
    async def check(server: Running) -> None:
        error = await failure(begun(server, after(LONG_S)))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert error.details() == "the message of the call has not arrived within 0.2 s"
        assert details(error)["ErrorInfo"].reason == "DEADLINE_EXCEEDED"
        await wait_for_open_calls(server, 0)
        assert (await server.stub.Translate(request("a"), timeout=LONG_S)).results

    with_server(check, message_timeout_s=0.2)


def test_a_message_that_comes_late_is_answered():
    async def check(server: Running) -> None:
        response = await begun(server, after(0.1, request("a").SerializeToString()))
        assert response.results[0].translation.text == "A"

    with_server(check)


def test_calls_without_their_message_count_as_open():
    async def check(server: Running) -> None:
        silent = [begun(server, after(LONG_S)) for _ in range(2)]
        await wait_for_open_calls(server, 2)
        error = await failure(server.stub.Translate(request("a"), timeout=LONG_S))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in silent:
            call.cancel()
        await wait_for_open_calls(server, 0)
        assert server.sample("dragoman_requests_total", method=TRANSLATE, code="CANCELLED") == 2
        assert (await server.stub.Translate(request("a"), timeout=LONG_S)).results

    with_server(check, max_open_calls=2)


def test_a_deadline_that_passes_before_the_message_comes():
    async def check(server: Running) -> None:
        error = await failure(begun(server, after(LONG_S), timeout_s=0.2))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await wait_for_open_calls(server, 0)
        assert server.sample("dragoman_requests_total", method=TRANSLATE, code="DEADLINE_EXCEEDED") == 1

    with_server(check)


def test_a_call_that_ends_without_a_message_is_told_so():
    async def check(server: Running) -> None:
        error = await failure(begun(server, after(0)))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert [each.field for each in details(error)["BadRequest"].field_violations] == ["request"]

    with_server(check)


def test_calls_without_their_message_do_not_hold_up_the_end():
    async def check(server: Running) -> None:
        silent = begun(server, after(LONG_S))
        await wait_for_open_calls(server, 1)
        assert await server.server.drain(LONG_S / 4)
        error = await failure(silent)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert details(error)["ErrorInfo"].reason == "DRAINING"

    with_server(check)


def test_strangers_are_refused_before_their_message_comes(tmp_path: Path):
    clients = tmp_path / "clients.toml"
    clients.write_text('[known]\ntokens = ["a-token-of-at-least-16"]\n')

    async def check(server: Running) -> None:
        error = await failure(begun(server, after(LONG_S)))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED

    with_server(check, security=SecurityOptions(clients=str(clients)))
