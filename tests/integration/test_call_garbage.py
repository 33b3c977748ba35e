"""A call that has ended is freed at once: what waits for the garbage collector makes other calls wait when it comes.

gRPC's own cycles stay: a few small objects a call, and for a stream its messages' iterator.
"""

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType

import grpc
import pytest

from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.errors import Overloaded
from service.pb import translation_pb2 as pb
from service.transport.submission import MAX_LOOP_CHARACTERS
from tests.conftest import sentences
from tests.unit.transport.running_server import Running, request, running

TEXTS = sentences(6, seed=3)
NUM_CALLS = 5
Call = Callable[[Running], Awaitable[object]]


async def stream(server: Running, *items: pb.TranslateStreamRequest) -> None:
    config = pb.StreamConfig(source_language="en", target_language="fr")
    async for _ in server.stub.TranslateStream(iter([pb.TranslateStreamRequest(config=config), *items])):
        pass


def refuse(server: Running) -> None:
    def check(*arguments: object) -> None:
        raise Overloaded("there is no room", 1.0)

    server.translator.check = check  # type: ignore[method-assign]


CALLS: dict[str, Call] = {
    "translated": lambda server: server.stub.Translate(request(*TEXTS)),
    "translated on a thread": lambda server: server.stub.Translate(request(*TEXTS, "a " * (MAX_LOOP_CHARACTERS // 2))),
    "aligned": lambda server: server.stub.Translate(request(*TEXTS, include_alignment=True)),
    "scored": lambda server: server.stub.Score(
        pb.ScoreRequest(
            pairs=[pb.ScorePair(source=text, target=text) for text in TEXTS], source_language="en", target_language="fr"
        )
    ),
    "streamed": lambda server: stream(
        server, *(pb.TranslateStreamRequest(text=pb.StreamText(id=text, text=text)) for text in TEXTS)
    ),
    "invalid": lambda server: server.stub.Translate(request()),
    "refused": lambda server: server.stub.Translate(request(*TEXTS)),
    "late": lambda server: server.stub.Translate(request(*TEXTS), timeout=1e-3),
}


def ours(garbage: list[object]) -> Counter[str]:
    """What of the service is among it: its objects, and frames of its functions."""
    names = []
    for found in garbage:
        if isinstance(found, FrameType):
            if "/service/" in found.f_code.co_filename:
                names.append(f"frame of {found.f_code.co_qualname}")
        elif type(found).__module__.startswith("service."):
            names.append(type(found).__qualname__)
    return Counter(names)


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_leaves_nothing_to_the_garbage_collector(kind: str, nonsense_bundle: Path):
    async def check() -> None:
        translator = Translator.load(nonsense_bundle, EngineSettings(num_workers=1, precision="fp32"))
        async with running(translator=translator) as server:
            if kind == "refused":
                refuse(server)

            async def calls() -> None:
                for _ in range(NUM_CALLS):
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        await CALLS[kind](server)
                await asyncio.sleep(0.05)  # the server lets go of a call a moment after the client has its answer

            await calls()
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                await calls()
                gc.collect()
                assert not ours(gc.garbage)
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()

    asyncio.run(check())
