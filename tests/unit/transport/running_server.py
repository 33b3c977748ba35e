"""A real server on a free port of the loopback, with a scripted translator; each test has its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from service.decoding.options import DecodeOptions
from service.engine.translator import Translator
from service.metrics import Metrics
from service.pb import translation_pb2 as pb
from service.pb import translation_pb2_grpc as pb_grpc
from service.transport.limits import Limits
from service.transport.security import SecurityOptions
from service.transport.server import ServerOptions, TranslationServer
from service.transport.tracing import CallTracer, SilentTracer
from tests.unit.transport.scripted_translator import ScriptedTranslator

CLIENT_TIMEOUT_S = 20


@dataclass
class Running:
    """A server that takes calls, and a client of it."""

    address: str
    server: TranslationServer
    translator: ScriptedTranslator
    metrics: Metrics
    channel: grpc.aio.Channel
    stub: pb_grpc.TranslationServiceStub
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def sample(self, name: str, **labels: str) -> float:
        """Value of a metric; 0 where it was never touched."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running(
    limits: Limits | None = None,
    max_open_calls: int = 100,
    security: SecurityOptions | None = None,
    root: bytes | None = None,
    tracer: CallTracer | None = None,
    translator: ScriptedTranslator | Translator | None = None,
    defaults: DecodeOptions | None = None,
    **chosen: Any,
) -> AsyncIterator[Running]:
    """``root``: what the client trusts, where ``security`` asks for TLS. ``chosen``: other fields of ServerOptions."""
    metrics = Metrics()
    translator = translator or ScriptedTranslator()
    options = ServerOptions(
        "127.0.0.1:0",
        max_open_calls,
        security=security or SecurityOptions(),
        tracer=tracer or SilentTracer(),
        **chosen,
    )
    server = TranslationServer(options, limits or Limits(), defaults or DecodeOptions(), metrics)
    port = await server.start()
    await server.open([translator])
    address = f"127.0.0.1:{port}"
    tls = grpc.ssl_channel_credentials(root) if root else None
    async with grpc.aio.secure_channel(address, tls) if tls else grpc.aio.insecure_channel(address) as channel:
        try:
            yield Running(address, server, translator, metrics, channel, pb_grpc.TranslationServiceStub(channel))
        finally:
            translator.close()
            await server.stop()


def with_server(
    test: Callable[[Running], Awaitable[None]],
    limits: Limits | None = None,
    max_open_calls: int = 100,
    security: SecurityOptions | None = None,
    root: bytes | None = None,
    tracer: CallTracer | None = None,
    **chosen: Any,
) -> None:
    """Runs an asynchronous test against a fresh server; ten seconds are an age here."""

    async def run() -> None:
        async with running(limits, max_open_calls, security, root, tracer, **chosen) as server:
            await asyncio.wait_for(test(server), 10)

    asyncio.run(run())


@contextmanager
def running_on_thread(**chosen: Any) -> Iterator[Running]:
    """The same for clients that block: the server's event loop runs on another thread."""
    found: Future[Running] = Future()
    loop = asyncio.new_event_loop()
    end = asyncio.Event()

    async def run() -> None:
        async with running(**chosen) as server:
            found.set_result(server)
            await end.wait()

    def run_loop() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=run_loop)
    thread.start()
    try:
        yield found.result(10)
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()


def request(*texts: str, **fields: object) -> pb.TranslateRequest:
    """A valid request from English to French but for what ``fields`` say."""
    return pb.TranslateRequest(**{"texts": texts, "source_language": "en", "target_language": "fr", **fields})
