"""Hands texts to a translator without holding up the event loop, and takes them back when the caller leaves.

Knows: deadlines, threads, tickets. Does not know: protobuf.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from service.engine.request import TextAnswer, Timings
from service.engine.scoring import PairAnswer, PairResult
from service.engine.translator import Ticket, Translator
from service.errors import Overloaded
from service.transport.admission import OVERLOAD_RETRY_S
from service.transport.answers import Answer, AnswerBuffer
from service.transport.languages import model_languages
from service.transport.quotas import TokenHold, share
from service.transport.tracing import CallTrace, call_trace
from service.transport.validation import Settings

# Splitting and tokenizing 2,000 characters took 0.9 ms, 20,000 took 3 ms (a busy 2-core machine): up to here
# the loop does it itself; past it other calls, health checks among them, would feel it. A text costs as much as some
# characters, even an empty one: a thousand texts of one letter took 100 ms there.
MAX_LOOP_CHARACTERS = 2_000
TEXT_CHARACTERS = 100
# Up to here a call has a thread that no longer one holds up: a million characters took half a second.
MAX_SHORT_CHARACTERS = 50_000
# What may be on its way through the threads, in requests of the largest size: about a second of their work.
MAX_LARGEST_REQUESTS = 2


class Submitter:
    """Submits texts, long ones on threads of its own.

    Args:
        max_request_characters: of the largest request.
        count_refusal: told why a call was refused.
    """

    def __init__(self, max_request_characters: int, count_refusal: Callable[[str], None]) -> None:
        self._short = ThreadPoolExecutor(1, thread_name_prefix="submit-short")
        self._long = ThreadPoolExecutor(1, thread_name_prefix="submit-long")
        self._max_characters = MAX_LARGEST_REQUESTS * max_request_characters
        self._count_refusal = count_refusal
        self._lock = threading.Lock()
        self._num_characters = 0  # on their way through the threads

    async def submit(
        self,
        translator: Translator,
        texts: Sequence[str],
        settings: Settings,
        on_text: Callable[[int, TextAnswer], None],
        deadline: float | None,
        is_counted: bool = True,
        field: str = "texts",
    ) -> Ticket:
        """As Translator.submit; ``is_counted``: as RequestQueue.check(); ``field``: of the message that holds them.

        Cancelled while a thread still submits, it cancels what comes of that.
        """
        translator.check(settings.options, settings.priority, deadline, is_counted)  # a refusal needs no thread
        languages = model_languages(translator.info, settings.source_language, settings.target_language)
        follower = Follower(TokenHold(share.get(), len(texts), field, is_counted), call_trace.get())

        def on_answer(index: int, answer: TextAnswer) -> None:
            follower.answered()
            on_text(index, answer)

        def submit() -> Ticket:
            with follower.hold:
                return translator.submit(
                    texts,
                    settings.options,
                    on_answer,
                    languages=languages,
                    priority=settings.priority,
                    deadline=deadline,
                    alignment=settings.include_alignment,
                    text_format=settings.text_format,
                    watch=follower,
                    is_counted=is_counted,
                )

        return await self._run(submit, sum(map(len, texts)) + TEXT_CHARACTERS * len(texts), is_counted)

    async def translate(
        self, translator: Translator, texts: Sequence[str], settings: Settings, deadline: float | None
    ) -> list[TextAnswer]:
        """Answers of all texts in their order; a caller who leaves frees what they hold."""
        buffer = AnswerBuffer[TextAnswer](asyncio.get_running_loop(), wake_at=len(texts))
        return await _in_order(buffer, await self.submit(translator, texts, settings, buffer.put, deadline))

    async def score(
        self, translator: Translator, pairs: Sequence[tuple[str, str]], settings: Settings, deadline: float | None
    ) -> list[PairAnswer]:
        """The same for given translations."""
        buffer = AnswerBuffer[PairAnswer](asyncio.get_running_loop(), wake_at=len(pairs))
        languages = model_languages(translator.info, settings.source_language, settings.target_language)

        follower = Follower(TokenHold(share.get(), len(pairs), "pairs"), call_trace.get())

        def on_answer(index: int, answer: PairAnswer) -> None:
            follower.answered()
            if isinstance(answer, PairResult):
                follower.scored(answer.queue_s, answer.score_s)
            buffer.put(index, answer)

        def submit() -> Ticket:
            with follower.hold:
                return translator.submit_pairs(
                    pairs,
                    settings.options.length_penalty,
                    on_answer,
                    languages=languages,
                    priority=settings.priority,
                    deadline=deadline,
                    watch=follower,
                )

        cost = sum(len(source) + len(target) + TEXT_CHARACTERS for source, target in pairs)
        return await _in_order(buffer, await self._run(submit, cost))

    async def _run(self, submit: Callable[[], Ticket], num_characters: int, is_counted: bool = True) -> Ticket:
        if num_characters <= MAX_LOOP_CHARACTERS:
            return submit()
        self._enter(num_characters, is_counted)
        has_left = threading.Event()

        def work() -> Ticket:
            try:
                return Ticket([]) if has_left.is_set() else submit()
            finally:
                self._leave(num_characters)

        pool = self._short if num_characters <= MAX_SHORT_CHARACTERS else self._long
        submission = asyncio.wrap_future(pool.submit(work))
        try:
            # Shielded: what waits in the pool holds its texts, so it counts until a thread has come to it.
            return await asyncio.shield(submission)
        except asyncio.CancelledError:
            has_left.set()
            submission.add_done_callback(_cancel_ticket)
            raise

    def _enter(self, num_characters: int, is_counted: bool) -> None:
        """Raises Overloaded where threads have too much to do already."""
        with self._lock:
            before = self._num_characters
            if before and before + num_characters > self._max_characters:
                if is_counted:
                    self._count_refusal("texts")
                raise Overloaded(
                    f"texts of {before} characters are being divided into sentences; at most {self._max_characters} "
                    "may be",
                    OVERLOAD_RETRY_S,
                    open_characters=before,
                    max_open_characters=self._max_characters,
                )
            self._num_characters += num_characters

    def _leave(self, num_characters: int) -> None:
        with self._lock:
            self._num_characters -= num_characters

    def close(self) -> None:
        """Lets the threads end when they are done."""
        for pool in (self._short, self._long):
            pool.shutdown(wait=False, cancel_futures=True)


async def _in_order(buffer: AnswerBuffer[Answer], ticket: Ticket) -> list[Answer]:
    try:
        answers = await buffer.take()
    except asyncio.CancelledError:
        ticket.cancel()
        raise
    return [answer for _, answer in sorted(answers, key=lambda item: item[0])]


class Follower:
    """Hands on what the engine tells about one submission (SubmissionWatch): to the client's share, to the trace.

    Attributes:
        hold: the submission's tokens in the client's share.
    """

    def __init__(self, hold: TokenHold, trace: CallTrace) -> None:
        self.hold = hold
        self._trace = trace
        self._queued_at = 0.0

    def counted(self, num_source_tokens: int) -> None:
        """Raises as Share.take() does."""
        self.hold.counted(num_source_tokens)
        self._queued_at = time.monotonic()

    def answered(self) -> None:
        """One text, or pair, has its answer."""
        self.hold.answered()

    def decoded(self, timings: Timings) -> None:
        """One sentence was in these stages."""
        self._stages({"queue": timings.queue_s, "encode": timings.encode_s, "decode": timings.decode_s})

    def scored(self, queue_s: float, score_s: float) -> None:
        """One pair was in these stages."""
        self._stages({"queue": queue_s, "score": score_s})

    def assembled(self, began_at: float, ended_at: float) -> None:
        """One text was put together."""
        self._trace.stage("detokenize", began_at, ended_at)

    def _stages(self, durations: dict[str, float]) -> None:
        began_at = self._queued_at  # one stage begins where the one before it ends
        for stage, duration_s in durations.items():
            self._trace.stage(stage, began_at, began_at + duration_s)
            began_at += duration_s


def deadline_of(context: "grpc.aio.ServicerContext[Any, Any]") -> float | None:
    """The call's deadline in time.monotonic() seconds; None: it has none."""
    remaining_s = context.time_remaining()
    return None if remaining_s is None else time.monotonic() + remaining_s


def _cancel_ticket(submission: "asyncio.Future[Ticket]") -> None:
    if not submission.cancelled() and submission.exception() is None:
        submission.result().cancel()
