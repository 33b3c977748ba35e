"""Given translations through the real score graph: what PyTorch says, whoever they are scored with."""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model.transformer import Transformer
from service.decoding.options import DecodeOptions
from service.engine.request import Priority, TextAnswer, TextResult
from service.engine.scoring import MIN_WEIGHT, Pair, PairAnswer, PairResult
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.errors import Cancelled, DeadlineExceeded, Draining, EngineFailure, InvalidRequest, Overloaded
from service.metrics import Metrics
from service.runtime.score_session import Scored, ScoreSession
from tests.conftest import sentences

PAIRS = list(zip(sentences(9, seed=5), [text[::-1] for text in sentences(9, seed=6)], strict=True))
SETTINGS = EngineSettings(precision="fp32", num_workers=1, max_queue_sentences=64)


@pytest.fixture(scope="module")
def translator(nonsense_bundle: Path) -> Iterator[Translator]:
    translator = Translator.load(nonsense_bundle, SETTINGS)
    yield translator
    translator.close()


class Answers:
    """Collects one answer per pair or text."""

    def __init__(self, expected: int) -> None:
        self.expected, self.by_index, self.num_answers = expected, dict[int, PairAnswer | TextAnswer](), 0
        self.complete = threading.Event()

    def __call__(self, index: int, answer: PairAnswer | TextAnswer) -> None:
        self.by_index[index] = answer
        self.num_answers += 1
        if len(self.by_index) == self.expected:
            self.complete.set()

    def in_order(self) -> list[PairAnswer | TextAnswer]:
        assert self.complete.wait(30)
        assert self.num_answers == self.expected
        return [self.by_index[index] for index in range(self.expected)]


def score(translator: Translator, pairs: list[tuple[str, str]], **options: object) -> list[PairAnswer | TextAnswer]:
    answers = Answers(len(pairs))
    translator.submit_pairs(pairs, 1.0, answers, **options)  # type: ignore[arg-type]
    return answers.in_order()


def short(translator: Translator) -> list[tuple[str, str]]:
    return [pair for pair in PAIRS if len(translator.tokenizer.encode([pair[1]])[0]) < 24]


def test_scores_are_those_of_pytorch(translator: Translator, random_transformer: Transformer) -> None:
    tokenizer, pairs = translator.tokenizer, short(translator)
    assert len(pairs) > 3
    for (source, target), found in zip(pairs, score(translator, pairs), strict=True):
        assert isinstance(found, PairResult)
        ids = torch.tensor([[*tokenizer.encode([source])[0], tokenizer.end]])
        wanted = torch.tensor([*tokenizer.encode([target])[0], tokenizer.end])
        lengths = torch.tensor([ids.shape[1]])
        with torch.inference_mode():
            memory = random_transformer.encode(ids, lengths)
            given = torch.tensor([[tokenizer.start, *wanted[:-1].tolist()]])
            states = random_transformer.decode(given, memory, lengths)
            table = random_transformer.project(states[0]).float().log_softmax(dim=-1)
        right = table.gather(1, wanted[:, None])[:, 0]
        assert [token.id for token in found.tokens] == wanted.tolist()
        assert [token.log_probability for token in found.tokens] == pytest.approx(right.tolist(), abs=1e-4)
        assert found.log_probability == pytest.approx(float(right.sum()), abs=1e-3)
        assert found.score == pytest.approx(found.log_probability / len(wanted))
        assert "".join(target[slice(*token.span)] for token in found.tokens) == target.replace(" ", "")


def test_alone_and_together_are_equal(translator: Translator) -> None:
    pairs = short(translator)
    together = score(translator, pairs)
    for pair, found in zip(pairs, together, strict=True):
        [alone] = score(translator, [pair])
        assert isinstance(found, PairResult)
        assert isinstance(alone, PairResult)
        assert found.score == pytest.approx(alone.score, abs=1e-5)
        assert [link.weight for link in found.alignment] == pytest.approx(
            [link.weight for link in alone.alignment], abs=1e-4
        )


def test_a_pair_that_cannot_be_scored_says_why(translator: Translator) -> None:
    long, empty, ending = score(translator, [("a", "word " * 60), (" ", "word"), ("the red house", "")])
    assert isinstance(long, InvalidRequest)
    assert long.field == "pairs[0].target"
    assert "must be <= 24" in str(long)
    assert isinstance(empty, InvalidRequest)
    assert empty.field == "pairs[1].source"
    assert isinstance(ending, PairResult)
    assert [(token.id, token.span) for token in ending.tokens] == [(translator.tokenizer.end, (0, 0))]


def test_translations_come_with_links_between_their_words(translator: Translator) -> None:
    text = "  the red house.\n\n\tthe old mill turns.  we wait"
    answers = Answers(2)
    translator.submit([text, " \n"], DecodeOptions(num_beams=4), answers, alignment=True)
    result, blank = answers.in_order()
    assert isinstance(result, TextResult)
    assert isinstance(blank, TextResult)
    assert blank.alignment == ()
    assert result.timings.align_s > 0
    assert result.alignment
    seen = set()
    for link in result.alignment:
        source, target = (
            text[link.source_start : link.source_end],
            result.text[link.target_start : link.target_end],
        )
        assert source.strip() == source != ""
        assert target.strip() == target != ""
        assert 0 < link.weight <= 1
        seen |= set(range(link.target_start, link.target_end))
    shown = {place for place, character in enumerate(result.text) if not character.isspace()}
    layout = {place for place, character in enumerate(result.text) if character in "."}
    assert shown - layout <= seen, "every character of a translated word belongs to a link"
    heaviest = {}
    for link in result.alignment:
        key = (link.target_start, link.target_end)
        heaviest[key] = max(heaviest.get(key, 0.0), link.weight)
    assert all(link.weight >= MIN_WEIGHT or link.weight == heaviest[link.target_start, link.target_end]
               for link in result.alignment)  # fmt: skip
    plain = translator.translate([text], DecodeOptions(num_beams=4))[0]
    assert (plain.text, plain.score, plain.alignment) == (result.text, result.score, ())


STRANGE = (
    "\U0001f600 the red house.\r\n\r\n  cafe\u0301 we wait. \U0001f469\u200d\U0001f680 the mill",
    "e\u0301te\u0301 the \ufb01ne red\u00a0house \u00bd. \u2460 we\u3000wait",
    "\t\uff54\uff48\uff45 red house\r\n\u05e9\u05dc\u05d5\u05dd the mill.\r\n",
    "\u0130stanbul the stra\u00dfe\u2028we wait",
)


@pytest.mark.parametrize("text", STRANGE)
def test_links_count_the_characters_that_the_caller_sent(translator: Translator, text: str) -> None:
    """Whatever the tokenizer makes of them (it composes, folds widths, drops line ends): no link leaves its word."""
    answers = Answers(1)
    translator.submit([text], DecodeOptions(num_beams=2), answers, alignment=True)
    [result] = answers.in_order()
    assert isinstance(result, TextResult)
    assert result.alignment
    for start, end in {(link.source_start, link.source_end) for link in result.alignment}:
        assert any(word.start() <= start < end <= word.end() for word in re.finditer(r"\S+", text)), text[start:end]
    for start, end in {(link.target_start, link.target_end) for link in result.alignment}:
        assert result.text[start:end].strip() == result.text[start:end] != ""


@pytest.mark.parametrize("text", STRANGE)
def test_tokens_of_a_given_translation_cover_its_characters(translator: Translator, text: str) -> None:
    target = text.split(".")[0]
    [found] = score(translator, [("the red house", target)])
    assert isinstance(found, PairResult)
    shown = "".join(target[slice(*token.span)] for token in found.tokens)
    assert shown == "".join(target.split())
    assert found.tokens[-1].span == (len(target), len(target))


class HeldScorer:
    """Holds every run of the score graph until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate, self.arrived = threading.Event(), threading.Event()
        original = ScoreSession.run

        def run(session: ScoreSession, sources: list[tuple[int, ...]], targets: list[tuple[int, ...]]) -> list[Scored]:
            self.arrived.set()
            self.gate.wait(30)
            return original(session, sources, targets)

        monkeypatch.setattr(ScoreSession, "run", run)


@pytest.fixture
def loaded(nonsense_bundle: Path) -> Iterator[Translator]:
    translator = Translator.load(nonsense_bundle, SETTINGS)
    yield translator
    translator.close()


def test_bounds_deadlines_and_cancelling(loaded: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldScorer(monkeypatch)
    first, late, given_up, batch, soon = (Answers(1) for _ in range(5))
    pair = [("the red house", "the")]
    loaded.submit_pairs(pair, 1.0, first)
    assert held.arrived.wait(10)
    loaded.submit_pairs([("rain", "in")], 1.0, batch, priority=Priority.BATCH)
    loaded.submit_pairs(pair, 1.0, soon)
    loaded.submit_pairs(pair, 1.0, late, deadline=time.monotonic())
    loaded.submit_pairs(pair, 1.0, given_up).cancel()
    with pytest.raises(Overloaded):
        loaded.submit_pairs(pair * 61, 1.0, Answers(61))
    with pytest.raises(InvalidRequest, match="65 sentences are more than the 64"):
        loaded.submit_pairs(pair * 65, 1.0, Answers(65))
    held.gate.set()
    kinds = [type(answers.in_order()[0]) for answers in (first, late, given_up, batch, soon)]
    assert kinds == [PairResult, DeadlineExceeded, Cancelled, PairResult, PairResult]
    assert loaded.scorer.queue.open_sentences == 0


def test_what_is_refused_and_given_up_is_counted(nonsense_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of pairs that have left the queue, of which only the run that is going on is finished."""
    metrics = Metrics()
    translator = Translator.load(nonsense_bundle, SETTINGS, metrics.observer())
    held = HeldScorer(monkeypatch)
    pairs = [("the red house", "the old mill " * 4)] * 60
    try:
        given_up = Answers(len(pairs))
        ticket = translator.submit_pairs(pairs, 1.0, given_up)
        assert held.arrived.wait(10)
        translator.submit_pairs(pairs, 1.0, Answers(len(pairs))).cancel()
        with pytest.raises(Overloaded):
            translator.submit_pairs(pairs, 1.0, Answers(len(pairs)))
        ticket.cancel()
        held.gate.set()
        kinds = Counter(map(type, given_up.in_order()))
        assert 0 < kinds[PairResult] < len(pairs)
        assert kinds.keys() == {PairResult, Cancelled}
    finally:
        translator.close()
    read = metrics.registry.get_sample_value
    assert read("dragoman_rejected_total", {"reason": "queue_full"}) == 1
    assert read("dragoman_cancelled_total", {"stage": "queued"}) == kinds[Cancelled] + len(pairs)
    assert read("dragoman_finished_total", {"reason": "end_token"}) is None, "nobody asked for golden translations"
    assert read("dragoman_queue_sentences") == 0


def test_an_alignment_that_nobody_waits_for_is_given_up(loaded: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled after the translation was there, of which the pairs have left the queue already."""
    held = HeldScorer(monkeypatch)
    answers = Answers(1)
    text = " ".join(["the old mill turns."] * 40)
    ticket = loaded.submit([text], DecodeOptions(max_length=24), answers, alignment=True)
    assert held.arrived.wait(30)
    ticket.cancel()
    held.gate.set()
    assert isinstance(answers.in_order()[0], Cancelled)


def test_a_failing_run_fails_its_pairs_alone(loaded: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> list[Scored]:
        raise RuntimeError("a secret of the runtime")

    with monkeypatch.context() as patched:
        patched.setattr(ScoreSession, "run", fail)
        [failed] = score(loaded, [("the red house", "the")])
        answers = Answers(1)
        loaded.submit(["the red house"], DecodeOptions(), answers, alignment=True)
        assert isinstance(answers.in_order()[0], EngineFailure)
    assert str(failed) == str(EngineFailure())
    assert isinstance(score(loaded, [("the red house", "the")])[0], PairResult)


def test_a_scorer_that_cannot_go_on_ends_the_engine(nonsense_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread is gone: nothing may wait for it, and the process is meant to end."""
    translator = Translator.load(nonsense_bundle, SETTINGS)
    held = HeldScorer(monkeypatch)
    running, waiting = Answers(1), Answers(1)
    translator.submit_pairs([("the red house", "the")], 1.0, running)
    assert held.arrived.wait(10)
    assert [turn is not None for turn in translator.turns()] == [False, True]
    translator.submit_pairs([("the red house", "the")], 1.0, waiting)

    def fail(*_: object) -> list[list[Pair]]:
        raise MemoryError("a secret of the runtime")

    monkeypatch.setattr("service.engine.scorer.batches", fail)
    held.gate.set()
    assert isinstance(running.in_order()[0], PairResult)
    assert str(waiting.in_order()[0]) == str(EngineFailure())
    assert translator.engine.failed.wait(10)
    with pytest.raises(EngineFailure):
        translator.submit(["the red house"], DecodeOptions(), Answers(1))
    with pytest.raises(EngineFailure):
        translator.submit_pairs([("the red house", "the")], 1.0, Answers(1))
    assert translator.close()


def test_closing_waits_for_one_run_alone(nonsense_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pairs that have left the queue for many runs, those of the next runs are answered at once."""
    translator = Translator.load(nonsense_bundle, SETTINGS)
    held = HeldScorer(monkeypatch)
    pairs = [("the red house", "the old mill " * 4)] * 60
    answers = Answers(len(pairs))
    translator.submit_pairs(pairs, 1.0, answers)
    assert held.arrived.wait(10)
    threading.Timer(0.05, held.gate.set).start()
    assert translator.close()
    kinds = Counter(map(type, answers.in_order()))
    assert kinds.keys() == {PairResult, Draining}
    assert kinds[PairResult] < len(pairs) / 2


def test_closing_answers_what_waits(nonsense_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translator = Translator.load(nonsense_bundle, SETTINGS)
    held = HeldScorer(monkeypatch)
    running, waiting = Answers(1), Answers(1)
    translator.submit_pairs([("the red house", "the")], 1.0, running)
    assert held.arrived.wait(10)
    translator.submit_pairs([("the red house", "the")], 1.0, waiting)
    threading.Timer(0.05, held.gate.set).start()
    assert translator.close()
    assert isinstance(running.in_order()[0], PairResult)
    assert isinstance(waiting.in_order()[0], Draining)
