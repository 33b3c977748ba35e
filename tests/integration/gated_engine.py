"""An engine whose decoder steps wait at a gate, and what collects its answers."""

import threading
from collections import Counter

import pytest

from service.decoding.options import DecodeOptions
from service.engine.request import TextAnswer, TextResult
from service.engine.settings import EngineSettings
from service.engine.translator import Ticket, Translator
from service.runtime.session import BoundShape, Candidates
from tests.conftest import sentences

GREEDY = DecodeOptions(num_beams=1)
SETTINGS = EngineSettings(num_workers=1, threads_per_worker=1, max_rows=8, max_queue_sentences=64)


class Gate:
    """Stands before every decoder step; lets one or all through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tickets = threading.Semaphore(0)
        self.arrived = threading.Semaphore(0)
        self.is_open = False
        original = BoundShape.run

        def run(shape: BoundShape) -> Candidates:
            self.arrived.release()
            if not self.is_open:
                self.tickets.acquire()
            return original(shape)

        monkeypatch.setattr(BoundShape, "run", run)

    def let_through(self) -> None:
        self.tickets.release()

    def open(self) -> None:
        self.is_open = True
        self.tickets.release(1000)


class Answers:
    """Collects answers by text and counts them."""

    def __init__(self, expected: int) -> None:
        self.expected, self.by_text, self.counts = expected, dict[int, TextAnswer](), Counter[int]()
        self.complete = threading.Event()

    def __call__(self, index: int, answer: TextAnswer) -> None:
        self.by_text[index] = answer
        self.counts[index] += 1
        if len(self.by_text) == self.expected:
            self.complete.set()

    def wait(self) -> None:
        assert self.complete.wait(30)
        assert set(self.counts.values()) == {1}

    def kinds(self) -> Counter[type]:
        return Counter(type(answer) for answer in self.by_text.values())


def cancel(ticket: Ticket) -> None:
    ticket.cancel()


def be_late(ticket: Ticket) -> None:
    """Its deadline has passed."""
    for sentence in ticket.sentences:
        sentence.deadline = 0.0


def long_texts(translator: Translator, count: int) -> list[str]:
    """Texts that need several decoder steps, so that something can happen to them while they are decoded."""
    texts = sentences(8 * count)
    results = translator.translate(texts[:64], GREEDY)
    long = [text for text, result in zip(texts, results, strict=False) if result.num_target_tokens > 3]
    return (long * count)[:count]


def assert_at_rest(translator: Translator) -> None:
    """The census: nothing waits, nothing runs, and the next request succeeds."""
    (result,) = translator.translate(["the red house"], GREEDY)
    assert isinstance(result, TextResult)
    engine = translator.engine
    assert engine.queue.open_sentences == engine.queue.num_tokens == engine.queue.num_rows == 0
    assert engine.queue.load.open_work == 0
    assert engine.workers[0].batch.num_rows == engine.workers[0].batch.num_sentences == 0
