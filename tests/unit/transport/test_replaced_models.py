"""Models that come and go while calls are open: who still uses one, and what health says of each."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.unit.transport.running_server import Running, request, with_server
from tests.unit.transport.scripted_translator import ScriptedTranslator, model_info
from tests.unit.transport.test_health_and_reflection import NOT_SERVING, SERVING, state
from tests.unit.transport.test_score import score_request
from tests.unit.transport.test_translate_stream import CONFIG, item, results

UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
CALLS: dict[str, Callable[[Running], Any]] = {
    "Translate": lambda server: server.stub.Translate(request("a")),
    "TranslateStream": lambda server: results(server.stub.TranslateStream(iter([CONFIG, item("1", "a")]))),
    "Score": lambda server: server.stub.Score(score_request("a")),
}


@pytest.mark.parametrize("method", CALLS)
def test_a_model_is_free_when_its_last_call_has_ended(method: str):
    async def check(server: Running) -> None:
        server.translator.gate.clear()
        call = asyncio.ensure_future(CALLS[method](server))
        await asyncio.to_thread(server.translator.submitted.wait)
        waiting = asyncio.create_task(server.server.wait_free(server.translator))
        await asyncio.sleep(0)
        assert not waiting.done()
        server.translator.gate.set()
        await call
        await waiting

    with_server(check)


def test_health_follows_the_models():
    async def check(server: Running) -> None:
        stub = health_pb2_grpc.HealthStub(server.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="en-fr"))
        assert (await watch.read()).status == SERVING
        other = ScriptedTranslator(model_info(target="de"))
        await server.server.replace([other])
        assert (await watch.read()).status == UNKNOWN
        watch.cancel()
        assert await state(server.channel, "en-fr") == UNKNOWN
        assert await state(server.channel, "en-de") == SERVING
        listed = (await stub.List(health_pb2.HealthListRequest())).statuses
        assert {name: item.status for name, item in listed.items() if "-" in name} == {"en-de": SERVING}
        await server.server.announce_end()
        await server.server.replace([other, server.translator])
        assert await state(server.channel, "en-fr") == NOT_SERVING, "no readier than the service"
        other.close()

    with_server(check)
