"""One TranslateStream call: reads texts as long as there is room, writes results as they finish.

Knows: flow control. Does not know: gRPC's status codes, engines.

Memory of a stream is bounded by ``max_stream_texts``: a text takes a slot before it is read and frees it after its
result was written, so a client that reads slowly is read slowly.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from service.engine.request import TextAnswer
from service.engine.translator import Ticket, Translator
from service.errors import DeadlineExceeded, Draining, InvalidRequest, Overloaded, RequestError
from service.pb import translation_pb2 as pb
from service.transport.answers import AnswerBuffer
from service.transport.limits import Limits
from service.transport.responses import text_result
from service.transport.submission import Submitter, deadline_of
from service.transport.validation import Settings, read_text

Context = grpc.aio.ServicerContext[Any, Any]
# Room may come sooner than the estimate says, and calls that are not streams take it.
MAX_PAUSE_S = 0.1
Requests = AsyncIterator[pb.TranslateStreamRequest]


class TextStream:
    """State of one stream; used on the event loop only, but for the buffer, which engines fill."""

    def __init__(
        self, requests: Requests, context: Context, translator: Translator, settings: Settings, limits: Limits
    ) -> None:
        self._requests = requests
        self._context = context
        self._translator = translator
        self._settings = settings
        self._limits = limits
        self._deadline = deadline_of(context)
        self._slots = asyncio.Semaphore(limits.max_stream_texts)
        self._buffer = AnswerBuffer[TextAnswer](asyncio.get_running_loop())
        # Number of an open text -> the caller's id; as many as slots are taken, but for one that is being read.
        self._open: dict[int, str] = {}
        self._tickets: dict[int, Ticket] = {}
        self._num_read = 0

    async def run(self, submitter: Submitter, draining: asyncio.Event, on_answer: Callable[[TextAnswer], None]) -> None:
        """Answers every text that was read, then returns.

        Raises:
            Draining: the server is shutting down; texts without a result were not taken. InvalidRequest: a message
                holds no text. DeadlineExceeded: nothing was read or written for too long.
        """
        try:
            async with asyncio.timeout(self._limits.max_stream_idle_s) as self._idle:
                await self._exchange(submitter, draining, on_answer)
        except TimeoutError:
            limit_s = self._limits.max_stream_idle_s
            idle = f"no text was sent or no result taken for {limit_s} s; open a new stream"
            raise DeadlineExceeded(idle, max_stream_idle_s=limit_s) from None

    async def _exchange(
        self, submitter: Submitter, draining: asyncio.Event, on_answer: Callable[[TextAnswer], None]
    ) -> None:
        reader = asyncio.create_task(self._read(submitter))
        drain = asyncio.create_task(draining.wait())
        for task in (reader, drain):
            task.add_done_callback(lambda _: self._buffer.wake())
        try:
            while self._open or not (reader.done() or drain.done()):
                for number, answer in await self._answers():
                    on_answer(answer)
                    await self._write(number, answer)
                if drain.done():
                    reader.cancel()
                    await asyncio.wait([reader])
            if reader.done() and not reader.cancelled():
                reader.result()
            else:
                raise Draining("the server is shutting down; send the texts without a result again, to another server")
        finally:
            await self._leave(reader, drain)

    async def _answers(self) -> list[tuple[int, TextAnswer]]:
        """Those that have come. A stream that waits for the engine is not idle, however long that takes."""
        while True:
            try:
                async with asyncio.timeout(self._limits.max_stream_idle_s / 2):
                    return await self._buffer.take()
            except TimeoutError:
                if self._open:
                    self._stir()

    async def _read(self, submitter: Submitter) -> None:
        while True:
            await self._slots.acquire()
            message = await anext(self._requests, None)
            self._stir()
            if message is None:
                return
            if message.WhichOneof("item") != "text":
                raise InvalidRequest("text", "every message of a stream but the first must hold it")
            await self._submit(submitter, message.text)

    async def _submit(self, submitter: Submitter, item: pb.StreamText) -> None:
        number, self._num_read = self._num_read, self._num_read + 1
        self._open[number] = item.id
        try:
            ticket = await self._take(submitter, number, read_text(item, self._limits))
        except RequestError as error:
            self._buffer.put(number, error)
        except BaseException:
            # Cancelled by draining, or a bug: the text was not taken, and the stream's status says so.
            self._open.pop(number, None)
            raise
        else:
            if number in self._open:
                self._tickets[number] = ticket

    async def _take(self, submitter: Submitter, number: int, text: str) -> Ticket:
        """Waits until the engine has room for the text: an overloaded server reads its streams more slowly."""
        while True:
            try:
                return await submitter.submit(
                    self._translator,
                    [text],
                    self._settings,
                    lambda _, answer: self._buffer.put(number, answer),
                    self._deadline,
                    is_counted=False,  # a text that waits was not refused
                    field="text.text",
                )
            except Overloaded as error:
                await asyncio.sleep(min(error.retry_after_s, MAX_PAUSE_S))

    async def _write(self, number: int, answer: TextAnswer) -> None:
        name = self._open.get(number)
        if name is None:
            return
        result = text_result(answer, self._settings)
        await self._context.write(pb.TranslateStreamResponse(id=name, result=result))
        self._stir()
        del self._open[number]
        self._tickets.pop(number, None)
        self._slots.release()

    def _stir(self) -> None:
        """The stream is in use: its time begins anew."""
        if not self._idle.expired():
            self._idle.reschedule(asyncio.get_running_loop().time() + self._limits.max_stream_idle_s)

    async def _leave(self, *tasks: "asyncio.Task[Any]") -> None:
        """Ends the stream's tasks and gives back what is still open, which is nothing unless the call broke off."""
        for ticket in self._tickets.values():
            ticket.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def read_stream_config(requests: Requests, idle_s: float, draining: asyncio.Event) -> pb.StreamConfig:
    """The settings in a stream's first message.

    Raises:
        InvalidRequest: it holds none. DeadlineExceeded: none came for ``idle_s``. Draining: the server shuts down.
    """
    reading = asyncio.ensure_future(anext(requests, None))
    drain = asyncio.create_task(draining.wait())
    try:
        await asyncio.wait((reading, drain), timeout=idle_s, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            if drain.done():
                raise Draining("the server is shutting down; open the stream again, to another server")
            idle = f"no first message was sent for {idle_s} s; open a new stream"
            raise DeadlineExceeded(idle, max_stream_idle_s=idle_s)
        first = reading.result()
    finally:
        reading.cancel()
        drain.cancel()
    if first is None or first.WhichOneof("item") != "config":
        raise InvalidRequest("config", "the first message of a stream must hold it")
    return first.config
