"""The standard services beside ours, and the port itself."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.decoding.options import DecodeOptions
from service.errors import ConfigurationError
from service.metrics import Metrics
from service.pb import translation_pb2 as pb
from service.pb import translation_pb2_grpc as pb_grpc
from service.transport.limits import Limits
from service.transport.server import ServerOptions, TranslationServer
from tests.unit.transport.running_server import Running, with_server

SERVICE = "dragoman.v1.TranslationService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def state(channel: grpc.aio.Channel, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status


def test_readiness_ends_before_liveness():
    async def check(server: Running) -> None:
        assert await state(server.channel, "") == SERVING
        assert await state(server.channel, SERVICE) == SERVING
        assert await state(server.channel, "en-fr") == SERVING
        await server.server.announce_end()
        assert await state(server.channel, "") == SERVING
        assert await state(server.channel, SERVICE) == NOT_SERVING
        assert server.sample("dragoman_ready") == 0

    with_server(check)


def test_a_change_is_watched():
    async def check(server: Running) -> None:
        stub = health_pb2_grpc.HealthStub(server.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == SERVING
        await server.server.announce_end()
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()

    with_server(check)


def test_all_names_are_listed():
    async def check(server: Running) -> None:
        response = await health_pb2_grpc.HealthStub(server.channel).List(health_pb2.HealthListRequest())
        assert {name: item.status for name, item in response.statuses.items()} == {
            "": SERVING,
            SERVICE: SERVING,
            "en-fr": SERVING,
        }

    with_server(check)


def test_the_api_describes_itself():
    async def check(server: Running) -> None:
        stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [answer async for answer in stub.ServerReflectionInfo(iter([question]))]
        assert SERVICE in [service.name for service in answers[0].list_services_response.service]

    with_server(check)


def test_before_models_are_loaded_it_is_alive_but_takes_no_calls():
    async def run() -> None:
        server = TranslationServer(ServerOptions("127.0.0.1:0"), Limits(), DecodeOptions(), Metrics())
        port = await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert await state(channel, "") == SERVING
            assert await state(channel, SERVICE) == NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await pb_grpc.TranslationServiceStub(channel).ListModels(pb.ListModelsRequest())
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await server.stop()

    asyncio.run(run())


def test_a_busy_port_is_a_clear_error():
    async def run() -> None:
        first = TranslationServer(ServerOptions("127.0.0.1:0"), Limits(), DecodeOptions(), Metrics())
        port = await first.start()
        second = TranslationServer(ServerOptions(f"127.0.0.1:{port}"), Limits(), DecodeOptions(), Metrics())
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}"):
            await second.start()
        await first.stop()

    asyncio.run(run())
