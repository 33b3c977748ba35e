"""A translator that answers what a test wants, when it wants, from a thread of its own as the real one does."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from service.decoding.options import DecodeOptions
from service.engine.model_options import ModelOptions
from service.engine.observer import SubmissionWatch
from service.engine.request import (
    AlignmentLink,
    Alternative,
    FinishReason,
    ModelInfo,
    Priority,
    TextAnswer,
    TextFormat,
    TextResult,
    Timings,
)
from service.engine.scoring import PairAnswer, PairResult, TokenScore
from service.errors import Cancelled, Draining, RequestError
from service.runtime.bundle import Decoding


def refuse_at_first(monkeypatch: pytest.MonkeyPatch, refusals: list[RequestError]) -> None:
    """Every ScriptedTranslator raises these, the last one first, and takes what comes once the list is empty."""
    original = ScriptedTranslator.submit

    def submit(translator: ScriptedTranslator, *arguments: Any, **named: Any) -> ScriptedTicket:
        if refusals:
            raise refusals.pop()
        return original(translator, *arguments, **named)

    monkeypatch.setattr(ScriptedTranslator, "submit", submit)


def model_info(source: str = "en", target: str = "fr", name: str = "") -> ModelInfo:
    name = name or f"{source}-{target}"
    return ModelInfo(name, "1", source, target, "cpu-int8", "cpu", max_source_tokens=256, max_target_tokens=256)


def result_of(text: str, num_alternatives: int = 1) -> TextResult:
    """Upper case, so that a result tells which text it belongs to."""
    alternatives = tuple(
        Alternative(text.upper() + "'" * index, token_ids=(7 + index, 2), score=-0.5 - index)
        for index in range(num_alternatives)
    )
    return TextResult(alternatives, FinishReason.END_TOKEN, 3, 2, 1, split=False, timings=Timings(0.1, 0.2, 0.3))


class ScriptedTicket:
    def __init__(self, cancel: Callable[[], None]) -> None:
        self.cancel = cancel


class ScriptedTranslator:
    """Answers every text with result_of(), unless a test scripts something else. A character is a token.

    Attributes:
        answers: text -> what it is answered with. refusal: what submit() raises. gate: answers wait until it is set.
        submissions: (texts, options, priority, deadline) of every call of submit(). is_aligned, text_format: of the
            last. submitters: the names of their threads, and of those of submit_pairs(). submitted, cancelled: set when
            that has happened.
    """

    def __init__(self, info: ModelInfo | None = None) -> None:
        self.info = info or model_info()
        self.model_options = ModelOptions(Decoding(), self.info.max_target_tokens, max_beams=16)
        self.answers: dict[str, TextAnswer] = {}
        self.refusal: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.submissions: list[tuple[list[str], DecodeOptions, Priority, float | None]] = []
        self.submitters: list[str] = []
        self.pair_submissions: list[tuple[list[tuple[str, str]], Priority, float | None]] = []
        self.submitted = threading.Event()
        self.cancelled = threading.Event()
        self._closed = False
        self._pool = ThreadPoolExecutor(64)
        # As far as the life cycle looks into the real one.
        self.engine = SimpleNamespace(failed=threading.Event(), failure=None)

    def check(
        self, options: DecodeOptions, priority: Priority, deadline: float | None, is_counted: bool = True
    ) -> None:
        """Takes everything: what is refused is refused by submit()."""

    def submit(
        self,
        texts: Sequence[str],
        options: DecodeOptions,
        on_text: Callable[[int, TextAnswer], None],
        *,
        languages: tuple[str, str] = ("", ""),
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        alignment: bool = False,
        text_format: TextFormat = TextFormat.PLAIN,
        watch: SubmissionWatch | None = None,
        is_counted: bool = True,
    ) -> ScriptedTicket:
        self._begin(watch, sum(map(len, texts)))
        self.submissions.append((list(texts), options, priority, deadline))
        self.is_aligned, self.text_format, is_cancelled = alignment, text_format, threading.Event()

        def answer() -> None:
            self.gate.wait()
            for index, text in reversed(list(enumerate(texts))):
                found = self._answer(text, options, is_cancelled.is_set())
                if alignment and isinstance(found, TextResult):
                    found = found._replace(alignment=(AlignmentLink(0, 1, 0, 1, 0.5),))
                if watch and isinstance(found, TextResult):
                    watch.decoded(found.timings)
                    watch.assembled(time.monotonic(), time.monotonic())
                on_text(index, found)

        self._pool.submit(answer)
        self.submitted.set()

        def cancel() -> None:
            is_cancelled.set()
            self.cancelled.set()

        return ScriptedTicket(cancel)

    def submit_pairs(
        self,
        pairs: Sequence[tuple[str, str]],
        length_penalty: float,
        on_pair: Callable[[int, PairAnswer], None],
        *,
        languages: tuple[str, str] = ("", ""),
        priority: Priority = Priority.INTERACTIVE,
        deadline: float | None = None,
        watch: SubmissionWatch | None = None,
    ) -> ScriptedTicket:
        """The score of a pair is minus the length of its target, times the length penalty."""
        self._begin(watch, sum(len(source) for source, _ in pairs))
        self.pair_submissions.append((list(pairs), priority, deadline))
        links = (AlignmentLink(0, 1, 2, 3, 0.5),)

        def answer() -> None:
            self.gate.wait()
            for index, (_, target) in reversed(list(enumerate(pairs))):
                score = -len(target) * length_penalty
                scored = PairResult(score, -1.0, (TokenScore(7, -1.0, (0, 2)),), links, queue_s=0.1, score_s=0.2)
                failure = self.answers.get(target)
                on_pair(index, failure if isinstance(failure, RequestError) else scored)

        self._pool.submit(answer)
        self.submitted.set()
        return ScriptedTicket(self.cancelled.set)

    def _begin(self, watch: SubmissionWatch | None, num_tokens: int) -> None:
        if watch:
            watch.counted(num_tokens)
        if self.refusal is not None:
            raise self.refusal
        self.submitters.append(threading.current_thread().name)

    def _answer(self, text: str, options: DecodeOptions, is_cancelled: bool) -> TextAnswer:
        if self._closed:
            return Draining("the server stopped")
        if is_cancelled:
            return Cancelled("cancelled")
        return self.answers.get(text) or result_of(text, options.num_alternatives)

    def translate(self, texts: Sequence[str], options: DecodeOptions) -> list[TextResult]:
        answers = [self._answer(text, options, False) for text in texts]
        for answer in answers:
            if isinstance(answer, RequestError):
                raise answer
        return [answer for answer in answers if isinstance(answer, TextResult)]

    def turns(self) -> list[float | None]:
        return []

    def drain(self, timeout_s: float) -> bool:
        return True

    def close(self, timeout_s: float | None = None) -> bool:
        self._closed = True
        self.gate.set()
        self._pool.shutdown(wait=True)
        return True
