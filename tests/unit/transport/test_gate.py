"""Who a caller without a token is, and that a refused call leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from service.errors import Draining, NotServing, Overloaded, RequestError
from service.metrics import Metrics
from service.pb import translation_pb2 as pb
from service.pb import translation_pb2_grpc as pb_grpc
from service.transport.admission import Admission
from service.transport.callers import Caller
from service.transport.gate import MAX_NAME_CHARACTERS, OWN_SERVICE, Gate, peer
from service.transport.security import SecurityOptions
from tests.unit.transport.running_server import Running, request, with_server
from tests.unit.transport.test_translate import failure
from tests.unit.transport.test_translate_stream import CONFIG


def connection(peer: str, *names: bytes) -> Any:
    """As far as the gate looks into gRPC's context of a call."""
    return SimpleNamespace(peer=lambda: peer, peer_identities=lambda: names)


@pytest.mark.parametrize(
    ("context", "caller"),
    [
        (connection("ipv4:10.0.0.1:50123"), Caller("ipv4:10.0.0.1", is_known=False)),
        (connection("ipv6:%5B::1%5D:50123"), Caller("ipv6:%5B::1%5D", is_known=False)),
        (connection("ipv4:10.0.0.1:1", b"web", b"batch"), Caller("batch")),
        (connection("ipv4:10.0.0.1:1", b"n" * 1000), Caller("n" * MAX_NAME_CHARACTERS)),
        (connection("ipv4:10.0.0.1:1", b"two\nlines"), Caller("'two\\nlines'")),
    ],
)
def test_who_a_caller_without_a_token_is(context: Any, caller: Caller):
    assert peer(context) == caller


def test_several_connections_of_one_address_are_one_client():
    async def check(server: Running) -> None:
        server.translator.gate.clear()
        held = server.stub.Translate(request("a"))
        await asyncio.to_thread(server.translator.submitted.wait)
        own = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(server.address, options=own) as channel:
            error = await failure(pb_grpc.TranslationServiceStub(channel).Translate(request("a"), timeout=5))
        assert error.details() == "this client has 1 calls open; at most 1 may be"
        server.translator.gate.set()
        await held

    with_server(check, security=SecurityOptions(max_client_calls=1))


@pytest.mark.parametrize(
    ("state", "refusal", "reason"),
    [
        ("loading", NotServing, "not_serving"),
        ("full", Overloaded, "too_many_calls"),
        ("stuck", NotServing, "not_serving"),
        ("draining", Draining, "draining"),
    ],
)
def test_a_client_whose_call_was_refused_is_counted_and_forgotten(state: str, refusal: type[RequestError], reason: str):
    async def run() -> None:
        admission, metrics = Admission(max_open_calls=0), Metrics()
        if state != "loading":
            admission.open()
        admission.stick(state == "stuck")
        if state == "draining":
            admission.drain()
        gate = Gate(SecurityOptions(), admission, metrics)
        with pytest.raises(refusal):
            gate.enter(OWN_SERVICE + "Translate", Caller("ipv4:10.0.0.1", is_known=False))
        assert len(gate._quotas) == 0
        assert metrics.registry.get_sample_value("dragoman_rejected_total", {"reason": reason}) == 1

    asyncio.run(run())


def test_what_was_refused_is_given_back_while_the_client_has_something_else_open():
    """With nothing else open its share would go, and what it counted with it."""

    async def check(server: Running) -> None:
        end = asyncio.Event()

        async def messages() -> AsyncIterator[pb.TranslateStreamRequest]:
            yield CONFIG
            await end.wait()

        stream = server.stub.TranslateStream(messages())
        while not server.server._admission.num_open:
            await asyncio.sleep(0.005)
        server.translator.refusal = Overloaded("full", 1.0)
        for _ in range(3):
            assert "full" in str((await failure(server.stub.Translate(request("aaa")))).details())
        server.translator.refusal = None
        await server.stub.Translate(request("aaa"))
        end.set()
        assert await stream.read() is grpc.aio.EOF

    with_server(check, security=SecurityOptions(max_client_tokens=3))
