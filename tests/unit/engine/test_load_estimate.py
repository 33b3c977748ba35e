"""How long an answer would take, by scripted clocks."""

import time

import pytest

from service.decoding.options import DecodeOptions
from service.engine.load_estimate import MIN_SEEN_S, LoadEstimate, work_of
from service.engine.observer import SilentObserver
from service.engine.request import Priority, Sentence
from service.engine.request_queue import RequestQueue
from service.errors import Overloaded


def sentence(tokens: int = 10, beams: int = 1, priority: Priority = Priority.INTERACTIVE) -> Sentence:
    return Sentence(tuple(range(tokens)), DecodeOptions(num_beams=beams), 5, lambda _: None, priority)


def busy(estimate: LoadEstimate, work_per_s: int, until: float) -> None:
    """Sentences of work 10, one after the other, from time 0 on."""
    now = 0.0
    while now < until:
        one = sentence()
        estimate.submitted([one], now)
        estimate.taken([one])
        now += work_of(one) / work_per_s
        estimate.answered(one, was_done=True, now=now)


def test_nothing_is_expected_before_enough_was_seen():
    estimate = LoadEstimate()
    busy(estimate, 100, until=MIN_SEEN_S / 2)
    estimate.submitted([sentence(100)] * 100, 10.0)
    assert estimate.delay_s(Priority.INTERACTIVE) == 0.0


def test_the_delay_is_the_open_work_over_the_rate():
    estimate = LoadEstimate()
    busy(estimate, 100, until=20.0)
    assert estimate.open_work == 0
    assert estimate.delay_s(Priority.INTERACTIVE) == 0.0
    waiting = [sentence(20), sentence(20, beams=4)]
    estimate.submitted(waiting, 1000.0)
    estimate.taken(waiting[:1])
    assert estimate.delay_s(Priority.INTERACTIVE) == pytest.approx(1.0, rel=0.01)


def test_rest_does_not_count_and_a_slower_engine_is_noticed():
    estimate = LoadEstimate()
    busy(estimate, 100, until=20.0)
    late = sentence(10)
    estimate.submitted([late], 5000.0)
    estimate.taken([late])
    estimate.answered(late, was_done=True, now=5010.0)
    estimate.submitted([sentence(10)], 5010.0)
    assert estimate.delay_s(Priority.INTERACTIVE) > 1.0


def test_a_process_that_was_stopped_is_no_slower_engine():
    estimate = LoadEstimate()
    for start in range(20):
        together(estimate, 40, takes_s=0.2, start=float(start))
    estimate.stepped(20.0)
    together(estimate, 40, takes_s=480.0, start=20.0)
    estimate.stepped(500.0)
    estimate.submitted([sentence()] * 40, 501.0)
    assert 0.05 < estimate.shared_s() < 0.3, "0.2 s before"


def test_interactive_work_does_not_wait_for_batch_work_in_the_queue():
    estimate = LoadEstimate()
    busy(estimate, 100, until=20.0)
    estimate.submitted([sentence(100, priority=Priority.BATCH)], 30.0)
    assert estimate.delay_s(Priority.INTERACTIVE) == 0.0
    assert estimate.delay_s(Priority.BATCH) == pytest.approx(1.0, rel=0.01)


def test_what_was_cancelled_is_no_work_done():
    estimate = LoadEstimate()
    given_up = sentence()
    estimate.submitted([given_up], 0.0)
    estimate.taken([given_up])
    estimate.answered(given_up, was_done=False, now=10.0)
    estimate.submitted([sentence()], 10.0)
    assert estimate.delay_s(Priority.INTERACTIVE) == 0.0


def test_the_queue_refuses_what_would_be_answered_too_late():
    line = RequestQueue(100, 10_000, 1, SilentObserver(), max_delay_s=5.0)
    busy(line.load, 100, until=20.0)
    line.take(0, active_rows=0, max_rows=2)
    line.submit([sentence(1000)])  # 10 s of work, but nothing before it
    line.submit([sentence()])  # there is a row for it
    with pytest.raises(Overloaded, match=r"an answer would take 10[\d.]* s; at most 5 s") as refused:
        line.submit([sentence()])
    assert refused.value.retry_after_s == pytest.approx(5.0, rel=0.1)
    line.submit([sentence(priority=Priority.BATCH)])
    late = sentence(priority=Priority.BATCH)
    late.deadline = time.monotonic() + 2.0
    with pytest.raises(Overloaded, match=r"at most (2|1[.]\d+) s"):
        line.submit([late])


def together(estimate: LoadEstimate, count: int, takes_s: float, start: float, beams: int = 1) -> None:
    """So many sentences at once, all answered at the end."""
    several = [sentence(beams=beams) for _ in range(count)]
    estimate.submitted(several, start)
    estimate.taken(several)
    for one in several:
        estimate.answered(one, was_done=True, now=start + takes_s)


def test_while_rows_are_free_what_is_open_shares_the_rate_of_many_rows():
    estimate = LoadEstimate()
    together(estimate, 40, takes_s=1.0, start=0.0)  # too little to be remembered
    estimate.submitted([sentence()] * 40, 1.0)
    assert estimate.shared_s() == 0.0
    estimate = LoadEstimate()
    for start in range(10):
        together(estimate, 40, takes_s=2.0, start=2.0 * start)  # twenty rows a second
    slow = sentence()
    estimate.submitted([slow], 30.0)
    estimate.taken([slow])
    estimate.answered(slow, was_done=True, now=50.0)  # nothing beside it: no sign of being slower
    estimate.submitted([sentence()] * 40, 50.0)
    assert estimate.shared_s() == pytest.approx(2.0, rel=0.1)


def test_a_slower_engine_is_noticed_where_as_many_rows_are_open():
    estimate = LoadEstimate()
    for start in range(10):
        together(estimate, 40, takes_s=2.0, start=2.0 * start)
    for start in range(10):
        together(estimate, 40, takes_s=4.0, start=20.0 + 4.0 * start)
    estimate.submitted([sentence()] * 40, 60.0)
    assert estimate.shared_s() == pytest.approx(4.0, rel=0.1)


def test_a_burst_larger_than_any_before_is_taken_at_its_best():
    estimate = LoadEstimate()
    busy(estimate, 100, until=20.0)  # one row at a time, ten a second
    estimate.submitted([sentence()] * 40, 30.0)
    assert estimate.shared_s() == pytest.approx(0.1, rel=0.1)


def test_the_queue_does_not_fill_its_rows_where_answers_would_come_too_late():
    line = RequestQueue(100, 10_000, 1, SilentObserver(), max_delay_s=0.35)
    line.take(0, active_rows=0, max_rows=64)
    for start in range(10):
        together(line.load, 8, takes_s=0.8, start=0.8 * start)  # ten rows a second
    for _ in range(4):
        line.submit([sentence()])
    with pytest.raises(Overloaded, match=r"an answer would take 0\.4\d* s; at most 0\.3"):
        line.submit([sentence()])


def test_each_beam_of_a_sentence_is_a_row():
    estimate = LoadEstimate()
    for start in range(10):
        together(estimate, 10, takes_s=2.0, start=2.0 * start, beams=4)  # twenty rows a second
    estimate.submitted([sentence(beams=4)] * 10, 20.0)
    assert estimate.shared_s() == pytest.approx(2.0, rel=0.1)


def test_what_many_rows_reached_long_ago_is_forgotten():
    estimate = LoadEstimate()
    for start in range(10):
        together(estimate, 40, takes_s=2.0, start=2.0 * start)
    for start in range(300):
        together(estimate, 1, takes_s=10.0, start=20.0 + 10.0 * start)  # for many times the memory of the peak
    estimate.submitted([sentence()], 3020.0)
    assert estimate.shared_s() == pytest.approx(10.0, rel=0.1)
