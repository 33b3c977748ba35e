"""Many calls at once from one event loop, and exactly one outcome of each."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from service.pb import translation_pb2 as pb
from service.pb import translation_pb2_grpc as pb_grpc

READY = "dragoman.v1.TranslationService"
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """What became of one call: its code, its texts where it was OK, and how long it took."""

    code: str
    texts: tuple[str, ...] = ()
    details: str = ""
    reason: str = ""
    retry_ms: str = ""
    duration_s: float = 0.0


def request(*texts: str, num_beams: int = 1, **fields: object) -> pb.TranslateRequest:
    """A valid request from English to French but for what ``fields`` say."""
    options = pb.DecodeOptions(num_beams=num_beams)
    given = {"texts": texts, "source_language": "en", "target_language": "fr", "options": options}
    return pb.TranslateRequest(**(given | fields))


class Caller:
    """Some connections to one server, used in turn.

    ``async with Caller(address) as caller``
    """

    def __init__(self, address: str, num_channels: int = 1) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        # A server that was restarted on its port is found again at once.
        options += [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]
        self.channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(num_channels)]
        self.stubs = [pb_grpc.TranslationServiceStub(channel) for channel in self.channels]
        self._next = 0

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self.channels:
            await channel.close()

    @property
    def stub(self) -> pb_grpc.TranslationServiceStub:
        self._next += 1
        return self.stubs[self._next % len(self.stubs)]

    async def translate(self, *texts: str, timeout_s: float = TIMEOUT_S, **fields: object) -> Outcome:
        """One call's outcome."""
        return await outcome_of(self.stub.Translate, request(*texts, **fields), timeout_s)

    async def translate_each(self, texts: Sequence[str], **fields: object) -> list[Outcome]:
        """One call a text, all at once."""
        return list(await asyncio.gather(*(self.translate(text, **fields) for text in texts)))

    async def health(self, service: str = READY) -> str:
        """The name of a service's state."""
        answer = await health_pb2_grpc.HealthStub(self.channels[0]).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S
        )
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    async def wait_for_health(self, wanted: str, service: str = READY) -> None:
        """Waits until a service's state is ``wanted``."""
        async with asyncio.timeout(TIMEOUT_S):
            while await self.health(service) != wanted:
                await asyncio.sleep(0.02)


async def outcome_of(
    method: Callable[..., Awaitable[pb.TranslateResponse]], message: object, timeout_s: float
) -> Outcome:
    """Makes one call and says what became of it."""
    started = time.monotonic()
    try:
        response = await method(message, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        trailing = dict(error.trailing_metadata() or ())
        took_s = time.monotonic() - started
        retry = str(trailing.get("grpc-retry-pushback-ms", ""))
        return Outcome(error.code().name, (), error.details() or "", reason_of(error), retry, took_s)
    texts = tuple(result.translation.text for result in response.results)
    return Outcome("OK", texts, duration_s=time.monotonic() - started)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason in the error's ErrorInfo; empty where the server did not send one."""
    if not any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ()):
        return ""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = error_details_pb2.ErrorInfo()
    return info.reason if status is not None and any(detail.Unpack(info) for detail in status.details) else ""


def codes(outcomes: Sequence[Outcome]) -> Counter[str]:
    return Counter(outcome.code for outcome in outcomes)
