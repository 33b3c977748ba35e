"""Who starts next, who is refused, who is dropped: without threads, by a scripted clock."""

import threading
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.decoding.options import DecodeOptions
from service.engine.observer import SilentObserver
from service.engine.request import Priority, Sentence
from service.engine.request_queue import RequestQueue
from service.engine.scheduler import INTERACTIVE_RUN, Plan, Waiting, group_by_length, plan_admission, sweep
from service.errors import Draining, Overloaded
from service.metrics import Metrics


def sentence(
    length: int = 5, beams: int = 1, priority: Priority = Priority.INTERACTIVE, deadline: float | None = None
) -> Sentence:
    options = DecodeOptions(num_beams=beams)
    return Sentence(tuple(range(length)), options, 9, lambda _: None, priority=priority, deadline=deadline)


def waiting(*sentences: Sentence) -> Waiting:
    line = Waiting()
    for one in sentences:
        line.by_priority[one.priority].append(one)
    return line


def test_first_come_first_served_within_free_rows() -> None:
    first, second, third = sentence(), sentence(), sentence()
    line = waiting(first, second, third)
    assert plan_admission(line, 2, now=0).admit == [first, second]
    assert len(line) == 1


def test_nothing_overtakes_a_wide_beam() -> None:
    wide, narrow = sentence(beams=4), sentence()
    line = waiting(wide, narrow)
    assert plan_admission(line, 3, now=0).admit == []
    assert plan_admission(line, 5, now=0).admit == [wide, narrow]


def test_interactive_goes_first_but_batch_is_not_starved() -> None:
    batch = [sentence(priority=Priority.BATCH) for _ in range(2)]
    interactive = [sentence() for _ in range(2 * INTERACTIVE_RUN)]
    admitted = plan_admission(waiting(*batch, *interactive), 100, now=0).admit
    places = [admitted.index(one) for one in batch]
    assert places == [INTERACTIVE_RUN, 2 * INTERACTIVE_RUN + 1]


def test_what_nobody_waits_for_is_dropped_and_takes_no_row() -> None:
    late, cancelled, fine = sentence(deadline=1.0), sentence(), sentence(deadline=9.0)
    cancelled.cancelled = True
    plan = plan_admission(waiting(late, cancelled, fine), 1, now=2.0)
    assert plan.drop == [late, cancelled]
    assert plan.admit == [fine]


def test_a_sweep_finds_the_late_behind_a_sentence_that_does_not_fit() -> None:
    wide, late = sentence(beams=4), sentence(deadline=1.0)
    line = waiting(wide, late)
    assert sweep(line, now=2.0) == [late]
    assert len(line) == 1


def test_who_is_cancelled_during_a_sweep_is_dropped_by_it_or_goes_on_waiting() -> None:
    @dataclass(slots=True, eq=False)
    class Leaving(Sentence):
        """Its caller leaves right after somebody has looked at it."""

        @property
        def is_cancelled(self) -> bool:
            was_cancelled, self.cancelled = self.cancelled, True
            return was_cancelled

    leaving, late = Leaving((1, 2), DecodeOptions(num_beams=1), 9, lambda _: None), sentence(deadline=1.0)
    line = waiting(leaving, late)
    assert sweep(line, now=2.0) == [late]
    assert sweep(line, now=2.0) == [leaving]
    assert len(line) == 0


@given(st.lists(st.integers(2, 100), max_size=60), st.integers(1, 512), st.integers(0, 5))
def test_encoder_groups_hold_every_sentence_once_within_the_limits(lengths: list[int], limit: int, pad: int) -> None:
    sentences = [sentence(length) for length in lengths]
    groups = group_by_length(sentences, limit, pad)
    assert sorted(id(s) for group in groups for s in group) == sorted(map(id, sentences))
    for group in groups:
        longest = max(len(s.source) for s in group)
        assert len(group) == 1 or longest * len(group) <= limit
        assert all(longest - len(s.source) <= pad for s in group)


def queue(workers: int = 1, sentences: int = 4, tokens: int = 1000) -> RequestQueue:
    return RequestQueue(sentences, tokens, workers, SilentObserver())


def test_a_full_queue_takes_all_or_nothing() -> None:
    line = queue()
    line.submit([sentence()] * 3)
    with pytest.raises(Overloaded, match="3 sentences with 15 tokens") as error:
        line.submit([sentence(), sentence()])
    assert error.value.retry_after_s > 0
    line.submit([sentence()])
    with pytest.raises(Overloaded):
        line.submit([sentence(10)])


def test_what_is_larger_than_the_queue_is_taken_while_nothing_waits() -> None:
    line = queue(sentences=4, tokens=9)
    line.submit([sentence(10)] * 6)
    with pytest.raises(Overloaded, match="6 sentences with 60 tokens"):
        line.submit([sentence(1)])


def test_the_age_of_what_waits_is_told_while_nothing_moves() -> None:
    metrics = Metrics()
    line = RequestQueue(4, 1000, 1, metrics.observer())
    waits = sentence()
    line.submit([waits])
    waits.submitted_at -= 5
    line.swept_at -= 5
    assert line.take(0, 128, 128) == Plan()
    assert (metrics.registry.get_sample_value("dragoman_queue_oldest_seconds") or 0) >= 5


def test_work_divides_evenly_between_workers() -> None:
    line = queue(workers=2, sentences=64)
    line.submit([sentence() for _ in range(64)])
    assert len(line.take(0, 0, 128).admit) == 32
    assert line.take(0, 32, 128).admit == []
    assert len(line.take(1, 0, 128).admit) == 32


def test_a_beam_between_two_shares_is_not_left_waiting() -> None:
    line = queue(workers=2, sentences=64)
    line.active_rows = [4, 4]
    line.submit([sentence(beams=4)])
    assert len(line.take(0, 4, 128).admit) == 1


def test_draining_refuses_and_waits_for_what_was_taken() -> None:
    line = queue()
    line.submit([sentence()])
    assert not line.drain(timeout_s=0)
    with pytest.raises(Draining):
        line.submit([sentence()])
    taken = line.take(0, 0, 8).admit
    answerer = threading.Thread(target=lambda: [line.answered(one, True) for one in taken])
    answerer.start()
    assert line.drain(timeout_s=30)
    answerer.join()
