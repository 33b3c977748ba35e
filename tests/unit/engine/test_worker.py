"""What a worker says with an answer, by hand-made moments."""

from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import Mock, call

import numpy as np
import pytest

from service.decoding.options import DecodeOptions
from service.engine.batch_decoder import Steps
from service.engine.request import FinishReason, Hypothesis, Sentence, SentenceAnswer, SentenceResult, Timings
from service.engine.running_batch import Active
from service.engine.worker import Worker
from service.errors import Cancelled, DeadlineExceeded

END = 2
HYPOTHESIS = Hypothesis((7, 8, END), -1.5, -0.5, FinishReason.END_TOKEN)


def worker() -> Worker:
    return Worker(0, sessions=Mock(), cache=Mock(max_rows=4), queue=Mock(), special=(1, END), observer=Mock())


def sentence(answers: list[SentenceAnswer]) -> Sentence:
    return Sentence((5, END), DecodeOptions(), 9, answers.append, submitted_at=100.0)


def test_stages_follow_one_another() -> None:
    answers: list[SentenceAnswer] = []
    worker().finish(Active(sentence(answers), admitted_at=101.0, encoded_at=103.0), (HYPOTHESIS,), now=107.0)
    assert answers == [SentenceResult((HYPOTHESIS,), Timings(queue_s=1.0, encode_s=2.0, decode_s=4.0))]


def test_who_is_late_was_not_cancelled() -> None:
    answers: list[SentenceAnswer] = []
    late, given_up, one = sentence(answers), sentence(answers), worker()
    given_up.cancelled = True
    one.refuse(late, "queued", now=102.5)
    one.refuse(given_up, "decoding", now=102.5)
    assert [type(answer) for answer in answers] == [DeadlineExceeded, Cancelled]
    assert str(answers[0]) == "the deadline passed after 2.500 s, queued"
    assert one.observer.method_calls == [  # type: ignore[attr-defined]
        call.finished("deadline", 2, 0),
        call.cancelled("decoding"),
        call.finished("cancelled", 2, 0),
    ]


@pytest.mark.parametrize(
    ("change", "goes_on"),
    [({}, True), ({"arrivals": 1}, False), ({"is_alone": lambda _: False}, False), ({"closed": True}, False)],
)
def test_steps_go_on_while_there_is_nothing_else_to_do(change: dict[str, object], goes_on: bool) -> None:
    """Nothing came, whether the worker is alone is as it was, and somebody waits for every sentence."""
    one, found = worker(), []
    one.queue = SimpleNamespace(arrivals=0, closed=False, is_alone=lambda _: True, active_rows=[1])  # type: ignore
    waiting = sentence([])
    one.batch.groups = {1: SimpleNamespace(members=[Active(waiting, 1.0, 1.0)], rows=np.zeros(1))}  # type: ignore

    def step(is_alone: bool, asked: Callable[[float], bool]) -> Steps:
        vars(one.queue).update(change)
        found.append(asked(2.0))
        waiting.deadline = 3.0
        found.append(asked(3.0))
        return Steps([1.0, 2.0], 1, 0.0, 0, False)

    one.decoder.step = step  # type: ignore[method-assign]
    one.step()
    assert found == [goes_on, False]
