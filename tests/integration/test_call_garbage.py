"""A call that has ended is freed at once: what waits for the garbage collector makes other calls wait when it comes.

gRPC's own cycles stay: a few small objects a call, and for a stream its messages' iterator.
"""

import asyncio
import gc
import time
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
LATE_S = 0.2
Call = Callable[[Running], Awaitable[object]]


async def stream(server: Running) -> None:
    config = pb.StreamConfig(source_language="en", target_language="fr")
    texts = [pb.TranslateStreamRequest(text=pb.StreamText(id=text, text=text)) for text in TEXTS]
    async for _ in server.stub.TranslateStream(iter([pb.TranslateStreamRequest(config=config), *texts])):
        pass


def score(server: Running) -> Awaitable[object]:
    pairs = [pb.ScorePair(source=text, target=text) for text in TEXTS]
    return server.stub.Score(pb.ScoreRequest(pairs=pairs, source_language="en", target_language="fr"))


def refuse(translator: Translator) -> None:
    def check(*arguments: object) -> None:
        raise Overloaded("there is no room", 1.0)

    translator.check = check  # type: ignore[method-assign]


def slow_down(translator: Translator) -> None:
    """A step takes as long as a late call waits for its answer."""
    [worker] = translator.engine.workers
    step = worker.step

    def slow_step() -> None:
        time.sleep(LATE_S)
        step()

    worker.step = slow_step  # type: ignore[method-assign]


LONG_TEXT = "a " * (MAX_LOOP_CHARACTERS // 2)
# Kind of call -> how it is made, and the code that it ends with.
CALLS: dict[str, tuple[Call, str]] = {
    "translated": (lambda server: server.stub.Translate(request(*TEXTS)), "OK"),
    "translated on a thread": (lambda server: server.stub.Translate(request(*TEXTS, LONG_TEXT)), "OK"),
    "aligned": (lambda server: server.stub.Translate(request(*TEXTS, include_alignment=True)), "OK"),
    "scored": (score, "OK"),
    "streamed": (stream, "OK"),
    "invalid": (lambda server: server.stub.Translate(request()), "INVALID_ARGUMENT"),
    "refused": (lambda server: server.stub.Translate(request(*TEXTS)), "RESOURCE_EXHAUSTED"),
    "late": (lambda server: server.stub.Translate(request(*TEXTS), timeout=LATE_S), "DEADLINE_EXCEEDED"),
}
PREPARED: dict[str, Callable[[Translator], None]] = {"refused": refuse, "late": slow_down}


async def code_of(call: Awaitable[object]) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


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
        PREPARED.get(kind, lambda _: None)(translator)
        make, code = CALLS[kind]
        async with running(translator=translator) as server:

            async def calls() -> None:
                for _ in range(NUM_CALLS):
                    assert await code_of(make(server)) == code
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
