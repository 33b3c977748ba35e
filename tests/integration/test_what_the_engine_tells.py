"""What an engine says of its work, to its observer and with each answer."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.decoding.options import DecodeOptions
from service.engine.observer import SilentObserver
from service.engine.request import FinishReason, TextResult
from service.engine.translator import Ticket, Translator
from service.errors import Overloaded
from service.runtime.kv_cache import EncodedSources
from service.runtime.session import BoundShape, Candidates, EncoderSession
from tests.conftest import sentences
from tests.integration.gated_engine import GREEDY, SETTINGS, Answers, Gate, be_late, cancel, long_texts


class Recorder(SilentObserver):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.steps: set[tuple[int, float]] = set()
        self.num_first_tokens = 0
        self.reasons, self.stages, self.refusals = Counter[str](), Counter[str](), Counter[str]()
        self.rows = 0

    def step(self, num_rows: int, padding_ratio: float, duration_s: float) -> None:
        self.steps.add((num_rows, padding_ratio))

    def active_rows(self, num_rows: int) -> None:
        self.rows = num_rows

    def first_token(self, delay_s: float) -> None:
        self.num_first_tokens += 1

    def finished(self, reason: str, num_source_tokens: int, num_target_tokens: int) -> None:
        self.reasons[reason] += 1

    def rejected(self, reason: str) -> None:
        self.refusals[reason] += 1

    def cancelled(self, stage: str) -> None:
        self.stages[stage] += 1


@contextmanager
def recorded(bundle: Path) -> Iterator[tuple[Translator, Recorder]]:
    recorder = Recorder()
    translator = Translator.load(bundle, SETTINGS, recorder)
    try:
        yield translator, recorder
    finally:
        translator.close()


def test_rows_of_a_step_are_those_that_it_computed(nonsense_bundle: Path) -> None:
    """Three beams take three of the four places of the graph, also in the last step, after which no row is left."""
    with recorded(nonsense_bundle) as (translator, recorder):
        translator.translate(["the red house"], DecodeOptions(num_beams=3))
    assert recorder.steps == {(3, 0.25)}


def test_every_sentence_has_one_first_token(nonsense_bundle: Path) -> None:
    with recorded(nonsense_bundle) as (translator, recorder):
        translator.translate(sentences(12), GREEDY)
    assert recorder.num_first_tokens == sum(recorder.reasons.values()) == 12


@pytest.mark.parametrize(
    ("leave", "reason", "stages"),
    [(cancel, "cancelled", {"decoding": 8, "queued": 4}), (be_late, "deadline", {})],
)
def test_why_and_where_sentences_were_given_up(
    nonsense_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
    leave: Callable[[Ticket], None],
    reason: str,
    stages: dict[str, int],
) -> None:
    with recorded(nonsense_bundle) as (translator, recorder):
        texts = long_texts(translator, 12)
        recorder.reasons.clear()
        gate, answers = Gate(monkeypatch), Answers(12)
        ticket = translator.submit(texts, GREEDY, answers)  # 8 rows decode, 4 wait
        gate.arrived.acquire()
        leave(ticket)
        gate.open()
        answers.wait()
    assert recorder.reasons == {reason: 12}
    assert recorder.stages == stages


def test_an_engine_that_was_broken_off_holds_no_rows(nonsense_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(nonsense_bundle) as (translator, recorder):
        texts = long_texts(translator, 8)
        gate, answers = Gate(monkeypatch), Answers(8)
        translator.submit(texts, GREEDY, answers)
        for _ in range(2):  # at the second the first has told of its rows
            gate.arrived.acquire()
            gate.let_through()
        assert recorder.rows > 0
        translator.close(0.0)
        gate.open()
        assert translator.close()
    assert (recorder.reasons["error"], recorder.rows) == (8, 0)


def test_who_leaves_while_the_encoder_runs_is_gone_before_the_first_step(
    nonsense_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded(nonsense_bundle) as (translator, recorder):
        has_begun, has_left, original, answers = threading.Event(), threading.Event(), EncoderSession.run, Answers(3)

        def run(session: EncoderSession, *arguments: object) -> EncodedSources:
            has_begun.set()
            has_left.wait(30)
            return original(session, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(EncoderSession, "run", run)
        ticket = translator.submit(sentences(3), GREEDY, answers)
        assert has_begun.wait(30)
        ticket.cancel()
        has_left.set()
        answers.wait()
    assert recorder.reasons == {"cancelled": 3}
    assert recorder.steps == set()
    assert recorder.stages == {"encoding": 3}


@pytest.mark.parametrize("is_counted", [False, True])
def test_a_text_for_which_there_is_no_room_is_counted_by_who_does_not_wait(
    nonsense_bundle: Path, monkeypatch: pytest.MonkeyPatch, is_counted: bool
) -> None:
    """There is room for one sentence more, but not for the text's three."""
    with recorded(nonsense_bundle) as (translator, recorder):
        texts = long_texts(translator, 8)
        gate, answers = Gate(monkeypatch), Answers(8 + 63)
        translator.submit(texts, GREEDY, answers)
        gate.arrived.acquire()
        translator.submit(sentences(63), GREEDY, lambda index, answer: answers(8 + index, answer))
        for _ in range(3):
            with pytest.raises(Overloaded):
                translator.submit(["the mill. the river. the rain."], GREEDY, Answers(1), is_counted=is_counted)
        gate.open()
        answers.wait()
    assert recorder.refusals["queue_full"] == (3 if is_counted else 0)


def test_stages_of_an_answer_fit_into_the_time_it_took(load: Callable[..., Translator]) -> None:
    translator = load()
    for options in (GREEDY, DecodeOptions(num_beams=4)):
        began_at, answers = time.monotonic(), Answers(1)
        translator.submit(["the old mill turns slowly"], options, answers, alignment=True)
        answers.wait()
        took_s = time.monotonic() - began_at
        answer = answers.by_text[0]
        assert isinstance(answer, TextResult)
        stages = tuple(answer.timings)
        assert min(stages) > 0
        assert sum(stages) <= took_s


@pytest.mark.parametrize(
    ("stops", "reason", "num_tokens"), [(True, FinishReason.REPETITION, 16), (False, FinishReason.LENGTH_LIMIT, 24)]
)
def test_a_model_that_babbles_is_stopped_where_that_is_wished(
    load: Callable[..., Translator],
    monkeypatch: pytest.MonkeyPatch,
    stops: bool,
    reason: FinishReason,
    num_tokens: int,
) -> None:
    translator = load(stop_repetition=stops)
    original = BoundShape.run

    def run(shape: BoundShape) -> Candidates:
        candidates = original(shape)
        candidates.ids[:] = 300
        return candidates

    monkeypatch.setattr(BoundShape, "run", run)
    (result,) = translator.translate(["the red house"], GREEDY)
    assert (result.finish_reason, result.num_target_tokens) == (reason, num_tokens)
    assert result.repetition_found == stops
