"""Who is refused, what that is called and who hears of it; with a load that a test says."""

import time
from collections.abc import Callable
from unittest.mock import Mock, call

import pytest

from service.decoding.options import DecodeOptions
from service.engine.request import Priority, Sentence
from service.engine.request_queue import MAX_RETRY_S, MIN_RETRY_S, RequestQueue
from service.errors import Draining, Overloaded

BATCH, INTERACTIVE = Priority.BATCH, Priority.INTERACTIVE


def sentence(length: int = 5, beams: int = 1) -> Sentence:
    return Sentence(tuple(range(length)), DecodeOptions(num_beams=beams), 9, lambda _: None)


def queue(sentences: int = 64, tokens: int = 1000, max_delay_s: float = 0.0, delay_s: float = 0.0) -> RequestQueue:
    """A queue of one worker, whose load lets an answer be expected after ``delay_s``."""
    line = RequestQueue(sentences, tokens, 1, Mock(), max_delay_s)
    line.load = Mock(delay_s=lambda _: delay_s, shared_s=lambda: delay_s)
    return line


def refusals(line: RequestQueue) -> list[object]:
    return line.observer.rejected.call_args_list  # type: ignore[attr-defined]


def test_few_sentences_of_many_tokens_fill_it_too() -> None:
    line = queue(tokens=12)
    line.submit([sentence(5), sentence(5)])
    with pytest.raises(Overloaded, match="2 sentences with 10 tokens wait already; at most 64 and 12 may"):
        line.submit([sentence(3)])
    line.submit([sentence(2)])
    assert refusals(line) == [call("queue_full")]


@pytest.mark.parametrize(
    ("delay_s", "retry_after_s"), [(0.0, MIN_RETRY_S), (3.0, 3.0), (100.0, MAX_RETRY_S), (1e9, MAX_RETRY_S)]
)
def test_a_full_queue_says_when_to_come_again(delay_s: float, retry_after_s: float) -> None:
    line = queue(sentences=1, delay_s=delay_s)
    line.submit([sentence()])
    with pytest.raises(Overloaded) as error:
        line.submit([sentence()])
    assert error.value.retry_after_s == retry_after_s


@pytest.mark.parametrize(
    ("delay_s", "retry_after_s"), [(2.01, MIN_RETRY_S), (5.0, 3.0), (100.0, MAX_RETRY_S), (1e9, MAX_RETRY_S)]
)
def test_an_answer_that_would_come_too_late_is_refused_with_the_time_to_wait(
    delay_s: float, retry_after_s: float
) -> None:
    line = queue(max_delay_s=2.0, delay_s=delay_s)
    with pytest.raises(Overloaded, match=r"at most 2 s are allowed") as error:
        line.submit([sentence()])
    assert error.value.retry_after_s == retry_after_s
    assert refusals(line) == [call("delay")]


def test_only_interactive_work_has_a_longest_delay() -> None:
    line = queue(max_delay_s=2.0, delay_s=100.0)
    line.check(BATCH, None)
    with pytest.raises(Overloaded):
        line.check(INTERACTIVE, None)


def test_a_deadline_that_has_passed_is_not_overload() -> None:
    """It is told so when its turn has come."""
    line = queue(delay_s=100.0)
    line.check(INTERACTIVE, time.monotonic() - 1)
    line.check(BATCH, time.monotonic() + 1_000)
    with pytest.raises(Overloaded, match="an answer would take 100 s; at most"):
        line.check(BATCH, time.monotonic() + 50)


def full() -> RequestQueue:
    line = queue(sentences=1)
    line.submit([sentence()])
    return line


def slow() -> RequestQueue:
    return queue(max_delay_s=2.0, delay_s=100.0)


@pytest.mark.parametrize(("make", "reason"), [(full, "queue_full"), (slow, "delay")])
def test_who_asks_again_and_again_is_not_counted(make: Callable[[], RequestQueue], reason: str) -> None:
    line = make()
    for _ in range(3):
        with pytest.raises(Overloaded):
            line.check(INTERACTIVE, None, is_counted=False)
        with pytest.raises(Overloaded):
            line.submit([sentence()], is_counted=False)
    assert refusals(line) == []
    with pytest.raises(Overloaded):
        line.check(INTERACTIVE, None)
    with pytest.raises(Overloaded):
        line.submit([sentence()])
    assert refusals(line) == [call(reason)] * 2


def test_while_draining_every_refusal_is_counted() -> None:
    line = queue()
    assert line.drain(timeout_s=0)
    with pytest.raises(Draining):
        line.check(INTERACTIVE, None)
    with pytest.raises(Draining):
        line.submit([sentence()])
    assert refusals(line) == [call("draining")] * 2


def test_rows_that_a_worker_has_taken_are_its_own_before_it_says_so() -> None:
    """Another worker asks before the first one's next turn."""
    line = RequestQueue(64, 1000, 2, Mock())
    line.submit([sentence() for _ in range(4)])
    assert len(line.take(0, 0, 8).admit) == 2
    assert line.active_rows == [2, 0]
    assert len(line.take(1, 0, 8).admit) == 2
    assert line.active_rows == [2, 2]
