"""What the engine answers is what the slow PyTorch search finds, and never depends on who else is there."""

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from model.reference_decode import Hypothesis, extend_with, search_beams, search_greedily, with_penalties
from model.transformer import Transformer
from service.decoding.options import DecodeOptions
from service.engine.request import TextAnswer, TextResult, Timings
from service.engine.settings import EngineSettings
from service.engine.translator import Translator
from service.model_store import SHIPPED_BUNDLE
from service.runtime import session
from service.runtime.bundle import Bundle
from service.runtime.tokenizer import Tokenizer
from tests.conftest import sentences

OPTIONS = [
    DecodeOptions(num_beams=1),
    DecodeOptions(num_beams=4, num_alternatives=4),
    DecodeOptions(num_beams=2, length_penalty=0.0),
    DecodeOptions(num_beams=5, length_penalty=2.0, max_length=7),
    DecodeOptions(num_beams=1, repetition_penalty=1.5, min_length=6),
    DecodeOptions(num_beams=3, no_repeat_ngram_size=2, repetition_penalty=1.2, min_length=4),
]
TEXTS = sentences(20)


def without_timings(answer: TextAnswer) -> TextAnswer:
    return answer._replace(timings=Timings()) if isinstance(answer, TextResult) else answer


@pytest.fixture(scope="module", params=["fp32", "int8"])
def translator(request: pytest.FixtureRequest, nonsense_bundle: Path) -> Iterator[Translator]:
    settings = EngineSettings(precision=request.param, num_workers=2, threads_per_worker=1, max_rows=24)
    translator = Translator.load(nonsense_bundle, settings)
    yield translator
    translator.close()


@pytest.fixture(scope="module")
def alone(translator: Translator) -> dict[tuple[str, DecodeOptions], TextAnswer]:
    return {
        (text, options): without_timings(translator.translate([text], options)[0])
        for text in TEXTS
        for options in OPTIONS
    }


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_worker_alone_with_the_threads_of_all_answers_the_same(
    precision: str, nonsense_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, alone and when others come, which takes the threads away again."""
    narrow = EngineSettings(precision=precision, num_workers=2, threads_per_worker=1, max_rows=24)
    with closing(Translator.load(nonsense_bundle, narrow)) as translator:
        assert not translator.engine.sessions.wide_decoders, "who divides the processors by hand has them divided"
        wanted = {
            (text, options): without_timings(translator.translate([text], options)[0])
            for text in TEXTS
            for options in OPTIONS
        }
    monkeypatch.setattr("service.engine.engine.usable_cpus", lambda: 3)
    with closing(Translator.load(nonsense_bundle, EngineSettings(precision=precision, max_rows=24))) as translator:
        wide = list(translator.engine.sessions.wide_decoders.values())
        for options in OPTIONS:
            for text in TEXTS:
                assert without_timings(translator.translate([text], options)[0]) == wanted[text, options]
        shapes = [
            binding.shapes for worker in translator.engine.workers for binding in worker.decoder.bindings.values()
        ]
        used = {decoder for bound in shapes for decoder, *_ in bound if decoder.num_beams <= session.WIDE_BEAMS}
        assert used == set(wide), "all of them were alone"
        for options in OPTIONS:
            together = map(without_timings, translator.translate(TEXTS, options))
            assert list(together) == [wanted[text, options] for text in TEXTS]


def test_random_weights_give_translations_of_many_lengths(alone: dict[tuple[str, DecodeOptions], TextAnswer]) -> None:
    # Were they all equal, the other tests here would prove little.
    lengths = {answer.num_target_tokens for answer in alone.values() if isinstance(answer, TextResult)}
    assert len(lengths) > 8


def each_text_once(hypotheses: list[Hypothesis], tokenizer: Tokenizer) -> list[Hypothesis]:
    """Without those that look like an earlier one: bytes that make no character are not seen."""
    texts = tokenizer.decode([hypothesis.ids for hypothesis in hypotheses])
    return [hypothesis for place, hypothesis in enumerate(hypotheses) if texts.index(texts[place]) == place]


def test_fp32_is_the_pytorch_oracle(nonsense_bundle: Path, random_transformer: Transformer) -> None:
    translator = Translator.load(nonsense_bundle, EngineSettings(precision="fp32", num_workers=1))
    tokenizer = translator.tokenizer
    try:
        for options in OPTIONS:
            for text, result in zip(TEXTS[:10], translator.translate(TEXTS[:10], options), strict=True):
                source = [*tokenizer.encode([text])[0], tokenizer.end]
                limit = translator.model_options.max_length(len(source), options)
                extend = with_penalties(
                    extend_with(random_transformer, source, tokenizer.start),
                    *(tokenizer.end, translator.engine.workers[0].cache.shape.vocab_size),
                    *(options.no_repeat_ngram_size, options.repetition_penalty, options.min_length),
                )
                common = (extend, tokenizer.end, limit)
                if options.num_beams == 1:
                    wanted = [search_greedily(*common, source=source)]
                else:
                    wanted = search_beams(*common, options.num_beams, options.length_penalty, source)
                found = result.alternatives
                wanted = each_text_once(wanted[: options.num_alternatives], tokenizer)
                assert [list(a.token_ids) for a in found] == [w.ids for w in wanted]
                if options.length_penalty == 1.0:
                    assert found[0].score == pytest.approx(wanted[0].score, abs=1e-4)
    finally:
        translator.close()


def test_alone_batched_shuffled_and_mixed_are_equal_bit_for_bit(
    translator: Translator, alone: dict[tuple[str, DecodeOptions], TextAnswer]
) -> None:
    jobs = list(alone)
    for seed in range(3):
        random.Random(seed).shuffle(jobs)
        answers: dict[tuple[str, DecodeOptions], TextAnswer] = {}
        complete = threading.Event()

        def receive(
            job: tuple[str, DecodeOptions],
            answer: TextAnswer,
            answers: dict[tuple[str, DecodeOptions], TextAnswer] = answers,
            complete: threading.Event = complete,
        ) -> None:
            answers[job] = without_timings(answer)
            if len(answers) == len(jobs):
                complete.set()

        for job in jobs:
            translator.submit([job[0]], job[1], lambda _, answer, job=job: receive(job, answer))  # type: ignore[misc]
        assert complete.wait(60)
        assert answers == alone


def test_one_thread_and_two_compute_the_same(
    nonsense_bundle: Path, translator: Translator, alone: dict[tuple[str, DecodeOptions], TextAnswer]
) -> None:
    precision = translator.info.precision.removeprefix("cpu-")
    settings = EngineSettings(precision=precision, num_workers=1, threads_per_worker=2)
    other = Translator.load(nonsense_bundle, settings)
    try:
        for options in OPTIONS:
            results = [without_timings(result) for result in other.translate(TEXTS, options)]
            assert results == [alone[text, options] for text in TEXTS]
    finally:
        other.close()


def test_one_bound_shape_at_a_time_computes_the_same(
    translator: Translator, alone: dict[tuple[str, DecodeOptions], TextAnswer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_SHAPES", 1)
    results = [without_timings(result) for result in translator.translate(TEXTS, OPTIONS[1])]
    assert results == [alone[text, OPTIONS[1]] for text in TEXTS]


def test_searches_in_numpy_choose_the_same(
    translator: Translator, alone: dict[tuple[str, DecodeOptions], TextAnswer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where there is no library in C; with one this is said twice."""
    monkeypatch.setattr("service.engine.batch_decoder.library_calls", lambda: None)
    for options in OPTIONS:
        results = [without_timings(result) for result in translator.translate(TEXTS, options)]
        assert results == [alone[text, options] for text in TEXTS]


def test_one_row_serves_greedy_search_although_golden_translations_have_beams() -> None:
    with closing(Bundle.open(SHIPPED_BUNDLE)) as bundle:
        assert any(golden.num_beams > 1 for golden in bundle.manifest.golden)
    single = Translator.load(SHIPPED_BUNDLE, EngineSettings(max_rows=1, num_workers=1, threads_per_worker=1))
    try:
        assert single.translate(["Thank you very much."], OPTIONS[0])[0].text == "Merci beaucoup."
    finally:
        single.close()


def test_alternatives_of_several_sentences_are_in_the_order_of_their_scores(translator: Translator) -> None:
    """Behind the first, which is every sentence's best."""
    texts = [" ".join(f"{sentence}." for sentence in sentences(3, seed=seed)) for seed in range(20)]
    results = translator.translate(texts, DecodeOptions(num_beams=4, num_alternatives=4))
    assert {result.num_sentences for result in results} == {3}
    for result in results:
        scores = [alternative.score for alternative in result.alternatives[1:]]
        assert scores == sorted(scores, reverse=True)


def test_layout_and_empty_texts_come_back_as_they_were(translator: Translator) -> None:
    text = "  the red house.\r\n\r\n\tthe old mill turns.   we wait for rain.\n"
    result, blank = translator.translate([text, " \n\t "], DecodeOptions(num_beams=1))
    assert result.num_sentences == 3
    assert result.text.startswith("  ")
    assert result.text.endswith("\n")
    assert "\r\n\r\n\t" in result.text
    assert (blank.text, blank.num_sentences, blank.score) == (" \n\t ", 0, 0.0)


def test_a_sentence_above_the_limit_is_split_and_flagged(translator: Translator) -> None:
    text = "the red house stands beside the river, " * 20
    (result,) = translator.translate([text], DecodeOptions(num_beams=1))
    assert result.split
    assert result.num_sentences > 1
    assert result.num_source_tokens > translator.info.max_source_tokens
