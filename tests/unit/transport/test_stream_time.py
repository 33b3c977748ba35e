"""How long a stream may last: its own deadline, and the idle limit, by a clock that the test turns."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from service.decoding.options import DecodeOptions
from service.engine.request import Priority
from service.engine.translator import Ticket
from service.errors import DeadlineExceeded
from service.pb import translation_pb2 as pb
from service.transport.limits import Limits
from service.transport.submission import Submitter
from service.transport.text_stream import TextStream
from service.transport.validation import Settings
from tests.unit.transport.running_server import Running, with_server
from tests.unit.transport.scripted_translator import ScriptedTranslator, result_of
from tests.unit.transport.test_translate_stream import CONFIG, item, results

IDLE_S = 100
SETTINGS = Settings("en", "fr", "", DecodeOptions(), Priority.INTERACTIVE, False, False)


class HeldTranslator(ScriptedTranslator):
    """Answers the oldest open text when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Callable[[], None]] = []

    def submit(self, texts: Any, options: Any, on_text: Any, **_: Any) -> Any:
        self.held.append(lambda: on_text(0, result_of(texts[0])))
        return Ticket([])

    def answer(self) -> None:
        self.held.pop(0)()


class Stream:
    """One stream of a caller who writes to ``requests`` and reads from ``responses``; also gRPC's context of it."""

    def __init__(self) -> None:
        self.translator = HeldTranslator()
        self.requests: asyncio.Queue[pb.TranslateStreamRequest | None] = asyncio.Queue()
        self.responses: asyncio.Queue[str] = asyncio.Queue()
        self.passed_s = 0.0
        loop = asyncio.get_running_loop()
        loop.time = lambda: time.monotonic() + self.passed_s  # type: ignore[method-assign]

    def time_remaining(self) -> None:
        """No deadline."""

    async def write(self, response: pb.TranslateStreamResponse) -> None:
        self.responses.put_nowait(response.id)

    async def read(self) -> AsyncIterator[pb.TranslateStreamRequest]:
        while (message := await self.requests.get()) is not None:
            yield message

    async def send(self, name: str) -> None:
        """Returns when the engine has the text."""
        held = len(self.translator.held)
        self.requests.put_nowait(item(name, name))
        while len(self.translator.held) == held:
            await asyncio.sleep(0)

    async def turn(self, seconds: float) -> None:
        """Lets time pass, and lets what waits for it see that."""
        self.passed_s += seconds
        for _ in range(5):
            await asyncio.sleep(0)

    async def run(self) -> None:
        submitter = Submitter(1_000_000, lambda _: None)
        context: Any = self
        translator: Any = self.translator
        stream = TextStream(self.read(), context, translator, SETTINGS, Limits(max_stream_idle_s=IDLE_S))
        try:
            await stream.run(submitter, asyncio.Event(), lambda _: None)
        finally:
            submitter.close()


def with_stream(test: Callable[[Stream], Awaitable[None]]) -> None:
    """Runs a stream that ends well once the test has."""

    async def run() -> None:
        stream = Stream()
        running = asyncio.create_task(stream.run())
        testing = asyncio.ensure_future(test(stream))
        await asyncio.wait([running, testing], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        await testing
        stream.requests.put_nowait(None)
        await running

    asyncio.run(run())


def test_a_stream_that_takes_results_is_not_idle():
    async def check(stream: Stream) -> None:
        for name in "abcd":
            await stream.send(name)
        for name in "abcd":
            await stream.turn(IDLE_S * 0.4)
            stream.translator.answer()
            assert await stream.responses.get() == name

    with_stream(check)


def test_a_stream_that_sends_texts_is_not_idle():
    async def check(stream: Stream) -> None:
        await stream.turn(IDLE_S * 0.6)
        await stream.send("a")
        await stream.turn(IDLE_S * 0.45)
        stream.translator.answer()
        assert await stream.responses.get() == "a"

    with_stream(check)


def test_a_stream_that_does_neither_is():
    async def check(stream: Stream) -> None:
        await stream.send("a")
        stream.translator.answer()
        await stream.responses.get()
        await stream.turn(IDLE_S * 0.9)
        await stream.turn(IDLE_S * 0.2)
        await asyncio.Event().wait()

    with pytest.raises(DeadlineExceeded, match="for 100 s; open a new stream"):
        with_stream(check)


def test_the_deadline_of_a_stream_is_that_of_its_texts():
    async def check(server: Running) -> None:
        await results(server.stub.TranslateStream(iter([CONFIG, item("1", "a")]), timeout=5))
        await results(server.stub.TranslateStream(iter([CONFIG, item("1", "a")])))
        [(*_, deadline), (*_, without)] = server.translator.submissions
        assert deadline is not None
        assert deadline < time.monotonic() + 10  # it travels rounded up
        assert without is None

    with_server(check)
