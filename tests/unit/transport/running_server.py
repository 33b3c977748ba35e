"""A real server on a free port of the loopback, with scripted translators, on an event loop of its own for each test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from service.decoding.options import DecodeOptions
from service.metrics import Metrics
from service.pb import translation_pb2 as pb
from service.pb import translation_pb2_grpc as pb_grpc
from service.transport.limits import Limits
from service.transport.server import ServerOptions, TranslationServer
from tests.unit.transport.scripted_translator import ScriptedTranslator


@dataclass
class Running:
    """A server that takes calls, and a client of it."""

    server: TranslationServer
    translator: ScriptedTranslator
    metrics: Metrics
    channel: grpc.aio.Channel
    stub: pb_grpc.TranslationServiceStub

    def sample(self, name: str, **labels: str) -> float:
        """Value of a metric; 0 where it was never touched."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running(limits: Limits | None = None, max_open_calls: int = 100) -> AsyncIterator[Running]:
    metrics = Metrics()
    translator = ScriptedTranslator()
    options = ServerOptions("127.0.0.1:0", max_open_calls=max_open_calls)
    server = TranslationServer(options, limits or Limits(), DecodeOptions(), metrics)
    port = await server.start()
    await server.open([translator])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            yield Running(server, translator, metrics, channel, pb_grpc.TranslationServiceStub(channel))
        finally:
            translator.close()
            await server.stop()


def with_server(
    test: Callable[[Running], Awaitable[None]], limits: Limits | None = None, max_open_calls: int = 100
) -> None:
    """Runs an asynchronous test against a fresh server; ten seconds are an age here."""

    async def run() -> None:
        async with running(limits, max_open_calls) as server:
            await asyncio.wait_for(test(server), 10)

    asyncio.run(run())


def request(*texts: str, **fields: object) -> pb.TranslateRequest:
    """A valid request from English to French but for what ``fields`` say."""
    return pb.TranslateRequest(**{"texts": texts, "source_language": "en", "target_language": "fr", **fields})
