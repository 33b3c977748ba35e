"""Sentences that join a running batch and leave it: those that stay get what they would have got alone."""

from collections.abc import Callable

import pytest

from service.decoding.options import DecodeOptions
from service.engine.request import Alternative, TextResult
from service.engine.translator import Ticket, Translator
from service.errors import Cancelled, DeadlineExceeded
from service.runtime.kv_cache import FIRST_CAPACITY, EncodedSources
from service.runtime.session import BoundShape, Candidates, EncoderSession
from tests.conftest import sentences
from tests.integration.gated_engine import GREEDY, Answers, Gate, assert_at_rest, be_late, cancel

BEAMS = DecodeOptions(num_beams=4, num_alternatives=4)
Alone = dict[str, tuple[Alternative, ...]]


def long_alone(translator: Translator, options: DecodeOptions) -> Alone:
    """Two texts that need more than five decoder steps, and their translations alone."""
    found = ((text, translator.translate([text], options)[0]) for text in sentences(64))
    long = ((text, result.alternatives) for text, result in found if result.num_target_tokens > 5)
    return dict(pair for pair, _ in zip(long, range(2), strict=False))


def test_who_comes_while_others_are_encoded_waits_for_one_step(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = load()
    texts, answers, events = list(long_alone(translator, GREEDY)), Answers(2), list[str]()
    encode, run = EncoderSession.run, BoundShape.run

    def encode_and_submit(session: EncoderSession, *arguments: object) -> EncodedSources:
        events.append("encode")
        if len(events) == 1:
            translator.submit(texts[1:], GREEDY, lambda _, answer: answers(1, answer))
        return encode(session, *arguments)  # type: ignore[arg-type]

    def step(shape: BoundShape) -> Candidates:
        events.append("step")
        return run(shape)

    monkeypatch.setattr(EncoderSession, "run", encode_and_submit)
    monkeypatch.setattr(BoundShape, "run", step)
    translator.submit(texts[:1], GREEDY, lambda _, answer: answers(0, answer))
    answers.wait()
    assert events[:4] == ["encode", "step", "encode", "step"]


def step(gate: Gate) -> None:
    """One decoder step; the next one stands at the gate."""
    gate.let_through()
    gate.arrived.acquire()


def begin(
    translator: Translator, gate: Gate, texts: list[str], options: DecodeOptions, answers: Answers
) -> tuple[Ticket, Ticket]:
    """The first text decodes, and the other one joins it after a step."""
    first = translator.submit(texts[:1], options, lambda _, answer: answers(0, answer))
    gate.arrived.acquire()
    step(gate)
    second = translator.submit(texts[1:], options, lambda _, answer: answers(1, answer))
    step(gate)
    return first, second


@pytest.mark.parametrize("options", [GREEDY, BEAMS], ids=["greedy", "beams"])
@pytest.mark.parametrize("is_longer", [False, True])
def test_who_joins_changes_nothing(
    load: Callable[..., Translator], monkeypatch: pytest.MonkeyPatch, options: DecodeOptions, is_longer: bool
) -> None:
    """Nor does one for whose source there is no room yet in the cache."""
    translator = load()
    alone = long_alone(translator, options)
    if is_longer:
        text = " ".join(["the old mill turns slowly"] * 8)
        assert len(translator.tokenizer.encode([text])[0]) > FIRST_CAPACITY
        alone.popitem()
        alone[text] = translator.translate([text], options)[0].alternatives
    gate, answers = Gate(monkeypatch), Answers(2)
    begin(translator, gate, list(alone), options, answers)
    num_sentences = translator.engine.workers[0].batch.num_sentences
    gate.open()
    answers.wait()
    assert num_sentences == 2
    assert translator.engine.failure is None
    for number, alternatives in enumerate(alone.values()):
        answer = answers.by_text[number]
        assert isinstance(answer, TextResult)
        assert answer.alternatives == alternatives


@pytest.mark.parametrize("options", [GREEDY, BEAMS], ids=["greedy", "beams"])
@pytest.mark.parametrize(("leave", "error"), [(cancel, Cancelled), (be_late, DeadlineExceeded)])
@pytest.mark.parametrize("leaver", [0, 1])
def test_who_leaves_changes_nothing(
    load: Callable[..., Translator],
    monkeypatch: pytest.MonkeyPatch,
    options: DecodeOptions,
    leave: Callable[[Ticket], None],
    error: type[Exception],
    leaver: int,
) -> None:
    """Nothing else happens in that step: nobody comes, and no other sentence is done."""
    translator = load()
    alone = long_alone(translator, options)
    gate, answers = Gate(monkeypatch), Answers(2)
    tickets = begin(translator, gate, list(alone), options, answers)
    step(gate)
    leave(tickets[leaver])
    gate.open()
    answers.wait()
    assert translator.engine.failure is None
    stayed = answers.by_text[1 - leaver]
    assert isinstance(stayed, TextResult)
    assert stayed.alternatives == list(alone.values())[1 - leaver]
    assert isinstance(answers.by_text[leaver], error)
    assert_at_rest(translator)
