"""Which thread splits and tokenizes, the event loop only what takes it no time; how much may wait for a thread."""

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import Mock

import pytest

from service.decoding.options import DecodeOptions
from service.engine.request import Priority
from service.errors import Overloaded
from service.pb import translation_pb2 as pb
from service.transport.submission import Submitter
from service.transport.validation import Settings
from tests.unit.transport.running_server import Running, request, with_server
from tests.unit.transport.scripted_translator import ScriptedTicket, ScriptedTranslator, model_info
from tests.unit.transport.test_score import score_request

LARGEST = 1_000_000
SETTINGS = Settings("en", "fr", "", DecodeOptions(), Priority.INTERACTIVE, False, False)


def test_texts_too_long_for_the_event_loop_go_the_same_way():
    async def check(server: Running) -> None:
        long_text = "word " * 2_000
        response = await server.stub.Translate(request(long_text))
        assert response.results[0].translation.text == long_text.upper()

    with_server(check)


@pytest.mark.parametrize("texts", [["word " * 2_000], [""] * 1_000])
def test_what_takes_long_to_submit_leaves_the_event_loop_free(texts: list[str]):
    async def check(server: Running) -> None:
        await server.stub.Translate(request(*texts))
        await server.stub.Translate(request("short"))
        assert [name.split("-")[0] for name in server.translator.submitters] == ["submit", "MainThread"]

    with_server(check)


def test_given_translations_cost_as_much_as_texts():
    async def check(server: Running) -> None:
        pair = pb.ScorePair(source="", target="x" * 5_000)
        await server.stub.Score(score_request(pairs=[pair]))
        await server.stub.Score(score_request("short"))
        assert [name.split("-")[0] for name in server.translator.submitters] == ["submit", "MainThread"]

    with_server(check)


class SlowTranslator(ScriptedTranslator):
    """Its submit() waits at a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.submit_gate = threading.Event()
        self.num_begun = 0

    def submit(self, *arguments: Any, **named: Any) -> Any:
        refusal, self.refusal = self.refusal, None
        self.num_begun += 1
        self.submit_gate.wait(10)
        if refusal:
            raise refusal
        return ScriptedTicket(self.cancelled.set)


def submitting(
    check: Callable[[Callable[[int], "asyncio.Task[Any]"], SlowTranslator], Awaitable[None]], is_counted: bool = True
) -> list[str]:
    """Runs ``check`` with what submits a text of N characters; returns the refusals that were counted."""
    refusals: list[str] = []
    translator = SlowTranslator()
    submitter = Submitter(LARGEST, refusals.append)

    def begin(length: int) -> "asyncio.Task[Any]":
        model: Any = translator
        work = submitter.submit(model, ["x" * length], SETTINGS, lambda *_: None, None, is_counted)
        return asyncio.create_task(work)

    async def run() -> None:
        try:
            await asyncio.wait_for(check(begin, translator), 20)
        finally:
            translator.submit_gate.set()
            submitter.close()

    asyncio.run(run())
    return refusals


def test_more_than_threads_can_divide_soon_is_refused():
    async def check(begin: Callable[[int], "asyncio.Task[Any]"], translator: SlowTranslator) -> None:
        first = [begin(900_000), begin(900_000)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="at most 2000000") as refused:
            await begin(400_000)
        assert refused.value.retry_after_s > 0
        translator.submit_gate.set()
        await asyncio.gather(*first)
        await begin(400_000)

    assert submitting(check) == ["texts"]


def test_a_text_that_waits_for_room_was_not_refused():
    """Streams wait: they do not count."""

    async def check(begin: Callable[[int], "asyncio.Task[Any]"], translator: SlowTranslator) -> None:
        first = begin(1_900_000)
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await begin(400_000)
        translator.submit_gate.set()
        await first

    assert submitting(check, is_counted=False) == []


def test_a_caller_who_leaves_while_a_thread_submits_frees_what_comes_of_it():
    async def check(begin: Callable[[int], "asyncio.Task[Any]"], translator: SlowTranslator) -> None:
        task = begin(5_000)
        while not translator.num_begun:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait([task])
        assert not translator.cancelled.is_set(), "there is nothing to cancel yet"
        translator.submit_gate.set()
        assert await asyncio.to_thread(translator.cancelled.wait, 5)

    assert submitting(check) == []


def test_a_refusal_that_nobody_waits_for_any_more_is_no_news():
    unheard: list[dict[str, Any]] = []

    async def check(begin: Callable[[int], "asyncio.Task[Any]"], translator: SlowTranslator) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        translator.refusal = Overloaded("the queue is full", 1.0)
        task = begin(5_000)
        while not translator.num_begun:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait([task])
        translator.submit_gate.set()
        await begin(5_000)
        gc.collect()

    assert submitting(check) == []
    assert unheard == []


def test_the_largest_request_is_taken_while_no_other_waits():
    async def check(begin: Callable[[int], "asyncio.Task[Any]"], translator: SlowTranslator) -> None:
        translator.submit_gate.set()
        await begin(3 * LARGEST)

    assert submitting(check) == []


def test_texts_whose_caller_has_left_count_until_a_thread_has_come_to_them():
    async def check(begin: Callable[[int], "asyncio.Task[Any]"], translator: SlowTranslator) -> None:
        tasks = [begin(900_000), begin(900_000)]
        while not translator.num_begun:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        with pytest.raises(Overloaded):
            await begin(900_000)
        translator.submit_gate.set()
        while True:
            try:
                await begin(1_900_000)
            except Overloaded:
                await asyncio.sleep(0.01)
            else:
                break
        assert translator.num_begun == 2, "nobody waited for the second text any more"

    assert set(submitting(check)) == {"texts"}


@pytest.mark.parametrize("length", [5, 50_001])
@pytest.mark.parametrize("is_counted", [False, True])
def test_who_waits_for_room_says_so_at_every_step(length: int, is_counted: bool):
    """Before the text is divided and after, on the event loop and on a thread."""
    asked: list[bool] = []
    translator = Mock(
        info=model_info(),
        check=lambda options, priority, deadline, is_counted: asked.append(is_counted),
        submit=lambda *_, is_counted, **named: asked.append(is_counted),
    )
    submitter = Submitter(LARGEST, Mock())
    work = submitter.submit(translator, ["x" * length], SETTINGS, lambda *_: None, None, is_counted=is_counted)
    asyncio.run(work)  # type: ignore[arg-type]
    submitter.close()
    assert asked == [is_counted] * 2


def test_a_long_text_does_not_hold_up_a_shorter_one():
    async def check(begin: Callable[[int], "asyncio.Task[Any]"], translator: SlowTranslator) -> None:
        long = begin(900_000)
        while translator.num_begun < 1:
            await asyncio.sleep(0.01)
        short = begin(5_000)
        while translator.num_begun < 2:
            await asyncio.sleep(0.01)
        translator.submit_gate.set()
        await asyncio.gather(long, short)

    submitting(check)
