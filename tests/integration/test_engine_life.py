"""Cancelling, deadlines, draining, failing: every text gets exactly one answer, and rows become free again."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.decoding.options import DecodeOptions
from service.engine.request import TextResult
from service.engine.translator import Ticket, Translator
from service.errors import Cancelled, DeadlineExceeded, Draining, EngineFailure, InvalidRequest, Overloaded
from service.metrics import Metrics
from service.runtime.kv_cache import EncodedSources
from service.runtime.score_session import Scored, ScoreSession
from service.runtime.session import BoundShape, Candidates, EncoderSession
from tests.conftest import sentences
from tests.integration.gated_engine import GREEDY, SETTINGS, Answers, Gate, assert_at_rest, long_texts


def test_cancelling_frees_queued_and_decoding_rows_within_a_step(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = load()
    texts = long_texts(translator, 12)
    gate = Gate(monkeypatch)
    answers = Answers(12)
    ticket = translator.submit(texts, GREEDY, answers)  # 8 rows decode, 4 wait
    gate.arrived.acquire()
    ticket.cancel()
    ticket.cancel()
    gate.let_through()
    answers.wait()
    assert answers.kinds() == {Cancelled: 12}
    gate.open()
    assert_at_rest(translator)


def test_deadlines_pass_in_the_queue_and_while_decoding(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = load()
    texts = long_texts(translator, 10)
    gate = Gate(monkeypatch)
    late, in_time = Answers(10), Answers(1)
    translator.submit(texts, GREEDY, late, deadline=time.monotonic() + 0.2)
    translator.submit(["the old mill"], GREEDY, in_time, deadline=time.monotonic() + 60)
    gate.arrived.acquire()
    while time.monotonic() < late_moment(translator):
        pass
    gate.open()
    late.wait()
    in_time.wait()
    assert late.kinds() == {DeadlineExceeded: 10}
    assert in_time.kinds() == {TextResult: 1}
    assert_at_rest(translator)


def late_moment(translator: Translator) -> float:
    batch = translator.engine.workers[0].batch
    return max(m.sentence.deadline or 0 for group in batch.groups.values() for m in group.members)


def test_a_row_that_gives_no_numbers_fails_alone(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = load()
    texts = sentences(6)
    wanted = [result.text for result in translator.translate(texts, GREEDY)]
    original = BoundShape.run
    poisoned = iter([True])

    def run(shape: BoundShape) -> Candidates:
        candidates = original(shape)
        if len(candidates.ids) == 6 and next(poisoned, False):
            candidates.log_probabilities[2] = np.nan
        return candidates

    monkeypatch.setattr(BoundShape, "run", run)
    answers = Answers(6)
    translator.submit(texts, GREEDY, answers)
    answers.wait()
    assert answers.kinds() == {TextResult: 5, EngineFailure: 1}
    for index, answer in answers.by_text.items():
        assert isinstance(answer, EngineFailure) or answer.text == wanted[index]  # type: ignore[union-attr]
    assert_at_rest(translator)


def test_a_failing_step_answers_everything_and_says_so(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = load()

    def fail(*_: object) -> Candidates:
        raise RuntimeError("a secret of the runtime")

    monkeypatch.setattr(BoundShape, "run", fail)
    answers = Answers(12)
    translator.submit(sentences(12), GREEDY, answers)
    answers.wait()
    assert answers.kinds() == {EngineFailure: 12}
    assert not any("secret" in str(answer) for answer in answers.by_text.values())
    assert translator.engine.failed.wait(10)
    with pytest.raises(EngineFailure):
        translator.submit(["the red house"], GREEDY, Answers(1))


def test_a_failing_encoder_answers_everything(load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what was taken from the queue, some have rows already when the encoder fails, and others never get any."""
    translator = load()
    original = EncoderSession.run
    runs = iter([True, False])

    def run(session: EncoderSession, *arguments: object) -> EncodedSources:
        if not next(runs):
            raise RuntimeError("a secret of the runtime")
        return original(session, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(EncoderSession, "run", run)
    answers = Answers(12)
    translator.submit(sentences(12), GREEDY, answers)
    answers.wait()
    assert answers.kinds() == {EngineFailure: 12}
    assert translator.engine.failed.wait(10)


def test_a_text_that_cannot_be_put_together_is_still_answered(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = load()

    def fail(*_: object) -> list[str]:
        raise RuntimeError("a secret of the tokenizer")

    with monkeypatch.context() as patched:
        patched.setattr(translator.tokenizer, "decode", fail)
        answers = Answers(1)
        translator.submit(["the red house"], GREEDY, answers)
        answers.wait()
    assert str(answers.by_text[0]) == str(EngineFailure())
    assert_at_rest(translator)


def test_draining_answers_what_was_taken_and_refuses_the_rest(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = load()
    gate = Gate(monkeypatch)
    answers = Answers(20)
    translator.submit(sentences(20), GREEDY, answers)
    gate.arrived.acquire()
    assert not translator.drain(timeout_s=0)
    with pytest.raises(Draining):
        translator.submit(["the red house"], GREEDY, Answers(1))
    gate.open()
    assert translator.drain(timeout_s=60)
    answers.wait()
    assert answers.kinds() == {TextResult: 20}


def test_draining_waits_for_given_translations_too(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = load()
    gate, scored = threading.Event(), threading.Event()
    original = ScoreSession.run

    def run(session: ScoreSession, *arguments: object) -> list[Scored]:
        gate.wait(30)
        return original(session, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ScoreSession, "run", run)
    translator.submit_pairs([("the red house", "the")], 1.0, lambda *_: scored.set())
    is_idle = translator.drain(timeout_s=0)
    gate.set()
    assert not is_idle
    assert translator.drain(timeout_s=60)
    assert scored.is_set()


def test_closing_says_whether_a_step_outlasts_its_time(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = load()
    gate = Gate(monkeypatch)
    answers = Answers(1)
    translator.submit(["the red house"], GREEDY, answers)
    gate.arrived.acquire()
    assert translator.scorer.close()  # so that only the step can outlast it
    is_closed = translator.close(timeout_s=0)
    gate.open()
    assert not is_closed
    assert translator.close(timeout_s=60)
    answers.wait()


def test_who_interrupts_a_translation_frees_its_rows(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = load()
    texts = long_texts(translator, 12)
    gate, tickets, submit = Gate(monkeypatch), list[Ticket](), translator.submit

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            gate.arrived.acquire()
            raise KeyboardInterrupt

    def note(*arguments: Any, **named: Any) -> Ticket:
        tickets.append(submit(*arguments, **named))
        return tickets[-1]

    with monkeypatch.context() as patched:
        patched.setattr(translator, "submit", note)
        patched.setattr("service.engine.translator.threading", SimpleNamespace(Event=Interrupted))
        with pytest.raises(KeyboardInterrupt):
            translator.translate(texts, GREEDY)
    gate.open()
    [ticket] = tickets
    assert [sentence.cancelled for sentence in ticket.sentences] == [True] * 12
    assert_at_rest(translator)


def test_closing_answers_what_is_left_with_draining(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = load()
    gate = Gate(monkeypatch)
    answers = Answers(20)
    translator.submit(sentences(20), GREEDY, answers)
    gate.arrived.acquire()
    closer = threading.Thread(target=translator.close)
    closer.start()
    gate.open()
    closer.join(30)
    answers.wait()
    assert answers.kinds()[Draining] >= 12


def test_a_full_queue_refuses_at_once_and_what_can_never_fit_is_invalid(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = load()
    with pytest.raises(InvalidRequest, match="65 sentences are more than the 64"):
        translator.submit(["the red house"] * 65, GREEDY, Answers(65))
    gate = Gate(monkeypatch)
    answers = Answers(8 + 60)
    translator.submit(sentences(8), GREEDY, answers)
    gate.arrived.acquire()
    translator.submit(sentences(60), GREEDY, lambda index, answer: answers(index + 8, answer))
    with pytest.raises(Overloaded) as error:
        translator.submit(sentences(8), GREEDY, Answers(8))
    assert 0 < error.value.retry_after_s <= 10
    gate.open()
    answers.wait()
    assert_at_rest(translator)


def test_one_text_above_the_limit_of_the_queue_is_taken_while_nothing_waits(load: Callable[..., Translator]) -> None:
    translator = load(max_queue_sentences=2)
    text = "the mill. the river. the rain."
    (result,) = translator.translate([text], GREEDY)
    assert result.num_sentences == 3
    with pytest.raises(InvalidRequest, match="4 sentences are more than the 2"):
        translator.translate([text, "the mill."], GREEDY)


@pytest.mark.parametrize(("more", "num_sentences"), [(-1, 1), (0, 2), (1, 2)])
def test_a_sentence_as_long_as_the_model_takes_is_not_divided(
    load: Callable[..., Translator], more: int, num_sentences: int
) -> None:
    """Its end token counts: with as many tokens of its own as the limit it is one too long."""
    translator = load()
    num_tokens = translator.info.max_source_tokens + more
    text = " ".join(["the"] * num_tokens)
    assert len(translator.tokenizer.encode([text])[0]) == num_tokens
    (result,) = translator.translate([text], GREEDY)
    assert (result.num_sentences, result.split) == (num_sentences, num_sentences > 1)
    assert result.num_source_tokens == num_tokens + num_sentences
    assert translator.engine.failure is None


def test_beams_that_never_get_rows_are_refused(load: Callable[..., Translator]) -> None:
    with pytest.raises(InvalidRequest, match="num_beams: 9 is more than the 8 here"):
        load().translate(["the red house"], DecodeOptions(num_beams=9))


def test_no_row_is_reported_once_all_have_left(nonsense_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    translator = Translator.load(nonsense_bundle, SETTINGS, metrics.observer())
    texts = long_texts(translator, 4)
    gate = Gate(monkeypatch)
    answers = Answers(4)
    ticket = translator.submit(texts, GREEDY, answers)
    gate.arrived.acquire()
    ticket.cancel()
    gate.open()
    answers.wait()
    translator.close()
    assert metrics.registry.get_sample_value("dragoman_active_rows") == 0


@pytest.mark.parametrize("field", ["max_length", "min_length"])
def test_a_length_the_model_cannot_give_is_refused(load: Callable[..., Translator], field: str) -> None:
    with pytest.raises(InvalidRequest, match=f"options.{field}: 25 is more than the model's 24 tokens"):
        load().translate(["the red house"], DecodeOptions(num_beams=1, **{field: 25}))
