"""A gRPC front with time-window batching: the usual way to serve a model that only translates whole batches.

It answers Translate of the same contract as the service, with one of two things behind it:

- ``ctranslate2``: CTranslate2, the same weights;
- ``dragoman``: our own engine, given one whole batch at a time and nothing until all of it is done.

Lanes work side by side, each on its own copy of the model with its own threads. A free lane waits until the oldest
text is ``--window-ms`` old or ``--max-batch`` texts wait, and takes them in order of arrival. Nothing else differs from
the service on purpose: same server library, same messages, same tokenizer, a bounded queue that answers
RESOURCE_EXHAUSTED.
"""

import argparse
import asyncio
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from benchmarks.systems import MAX_LENGTH, Artifacts, System, make
from service.event_loop import new_event_loop
from service.pb import translation_pb2 as pb
from service.pb import translation_pb2_grpc as pb_grpc

SERVICE = "dragoman.v1.TranslationService"


class Waiting(NamedTuple):
    """One text of a call, when it came, and where its translation goes."""

    text: str
    came_at: float
    answer: "asyncio.Future[str]"


class Batcher:
    """The queue and its lanes."""

    def __init__(self, systems: list[System], given: argparse.Namespace) -> None:
        self.num_beams, self.max_length = given.num_beams, given.max_length
        self.window_s, self.max_batch, self.max_queue = given.window_ms / 1000, given.max_batch, given.max_queue
        self.waiting: deque[Waiting] = deque()
        self.changed = asyncio.Event()
        self.threads = ThreadPoolExecutor(len(systems))
        self.lanes = [asyncio.create_task(self.run_lane(system)) for system in systems]

    def submit(self, text: str) -> "asyncio.Future[str] | None":
        """None where the queue is full."""
        if len(self.waiting) >= self.max_queue:
            return None
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.waiting.append(Waiting(text, time.monotonic(), answer))
        self.changed.set()
        return answer

    async def next_batch(self) -> list[Waiting]:
        while True:
            self.changed.clear()
            left = self.window_s - (time.monotonic() - self.waiting[0].came_at) if self.waiting else None
            if len(self.waiting) >= self.max_batch or (left is not None and left <= 0):
                batch = [self.waiting.popleft() for _ in range(min(self.max_batch, len(self.waiting)))]
                # A call that nobody waits for any more costs nothing.
                return [item for item in batch if not item.answer.done()]
            try:
                await asyncio.wait_for(self.changed.wait(), left)
            except TimeoutError:
                continue

    async def run_lane(self, system: System) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not (batch := await self.next_batch()):
                continue
            texts = [item.text for item in batch]
            beams, length = self.num_beams, self.max_length
            output = await loop.run_in_executor(self.threads, system.translate, texts, beams, length)
            for item, text in zip(batch, output.texts, strict=True):
                if not item.answer.done():
                    item.answer.set_result(text)


class StaticFront(pb_grpc.TranslationServiceServicer):
    """Translate, and nothing more."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher

    async def Translate(self, request: pb.TranslateRequest, context: Any) -> pb.TranslateResponse:  # noqa: N802
        answers = [self.batcher.submit(text) for text in request.texts]
        accepted = [answer for answer in answers if answer is not None]
        if len(accepted) < len(answers):
            for answer in accepted:
                answer.cancel()
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
        try:
            texts = await asyncio.gather(*accepted)
        except asyncio.CancelledError:
            for answer in accepted:
                answer.cancel()
            raise
        reason = pb.FINISH_REASON_END_TOKEN
        results = [pb.TextResult(translation=pb.Translation(text=text), finish_reason=reason) for text in texts]
        return pb.TranslateResponse(results=results)


@asynccontextmanager
async def serving(given: argparse.Namespace) -> AsyncIterator[Batcher]:
    """The front on its port, SERVING by the standard health service; gives what works behind it."""
    systems = [system_of(given) for _ in range(given.lanes)]
    batcher = Batcher(systems, given)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    pb_grpc.add_TranslationServiceServicer_to_server(StaticFront(batcher), server)  # type: ignore[no-untyped-call]
    status = health.HealthServicer()
    status.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    server.add_insecure_port(given.listen)
    await server.start()
    try:
        yield batcher
    finally:
        await server.stop(0.5)
        for lane in batcher.lanes:
            lane.cancel()
        for system in systems:
            system.close()


def system_of(given: argparse.Namespace) -> System:
    artifacts = Artifacts(given.model, given.model, given.model, given.vocabulary)
    if given.engine == "ctranslate2":
        settings: tuple[Any, ...] = ("float32" if given.precision == "fp32" else given.precision, 1, given.threads)
        return make("ctranslate2", artifacts, (*settings, 0, "examples"))
    return make("dragoman", artifacts, (given.precision, 1, given.threads))


async def run(given: argparse.Namespace) -> None:
    """Until a signal; a lane that fails ends all of it with its error, since one that is gone would look slow."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(given) as batcher:
        signalled = asyncio.create_task(stop.wait())
        ended, _ = await asyncio.wait({signalled, *batcher.lanes}, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.static_front", description=__doc__)
    arguments.add_argument("engine", choices=["ctranslate2", "dragoman"])
    arguments.add_argument("model", type=Path, help="a bundle, or a folder of CTranslate2")
    arguments.add_argument("--vocabulary", type=Path, required=True, help="its SentencePiece model")
    arguments.add_argument("--listen", default="127.0.0.1:50061", metavar="HOST:PORT")
    arguments.add_argument("--precision", choices=["int8", "fp32"], default="int8")
    arguments.add_argument("--num-beams", type=int, default=4)
    arguments.add_argument("--max-length", type=int, default=MAX_LENGTH, help="target tokens of a text")
    arguments.add_argument("--lanes", type=int, default=2, help="batches at a time")
    arguments.add_argument("--threads", type=int, default=1, help="of each lane")
    arguments.add_argument("--window-ms", type=float, default=10.0)
    arguments.add_argument("--max-batch", type=int, default=32)
    arguments.add_argument("--max-queue", type=int, default=4096)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:  # the service's own: an equal front
        runner.run(run(arguments.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
