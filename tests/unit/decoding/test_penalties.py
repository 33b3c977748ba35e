"""Penalties on few candidates against penalties on the whole vocabulary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.reference_decode import search_beams, search_greedily, with_penalties
from service.decoding.beam import BeamSearch
from service.decoding.greedy import GreedySearch
from service.decoding.options import DecodeOptions
from service.decoding.penalties import Penalties, completes_ngram
from service.decoding.search import Search
from tests.unit.decoding.made_up_model import END, VOCAB, MadeUpModel

SIZE = 14
penalties = st.fixed_dictionaries({
    "no_repeat_ngram_size": st.integers(0, 3),
    "repetition_penalty": st.sampled_from([1.0, 1.3, 4.0]),
    "min_length": st.integers(0, SIZE),
})  # fmt: skip
# Numbers that fall off steeply and do not depend on the prefix: such a model repeats itself unless it is kept from it.
models = st.builds(MadeUpModel, seed=st.integers(0, 10**6), remembers=st.booleans())


def run(search: Search, models: list[MadeUpModel], options: list[DecodeOptions]) -> list[list[list[int]]]:
    """The ids of each sentence's hypotheses; candidates are cut to what the search and its penalties ask for."""
    search.admit(options, [SIZE] * len(models))
    results: dict[int, list[list[int]]] = {}
    numbers = np.arange(len(models))
    while len(search):
        wanted = min(search.num_candidates + search.penalties.num_more(search.lengths), VOCAB)
        so_far = [
            [beam[:n].tolist() for beam in beams] for beams, n in zip(search.prefixes, search.lengths, strict=True)
        ]
        tables = [[models[i].log_probabilities(p) for p in beams] for i, beams in zip(numbers, so_far, strict=True)]
        table = np.array(tables, np.float32)
        ids = np.argsort(-table, axis=2, kind="stable")[:, :, :wanted]
        ids, values = search.penalties.apply(
            ids, np.take_along_axis(table, ids, axis=2), search.prefixes, search.lengths
        )
        done = search.advance(ids, values).done
        for i in np.flatnonzero(done):
            results[int(numbers[i])] = [list(found.ids) for found in search.found(int(i))]
        search.keep(np.flatnonzero(~done))
        numbers = numbers[~done]
    return [results[i] for i in range(len(models))]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(models, penalties), min_size=1, max_size=4), st.sampled_from([1, 2, 4]))
def test_a_few_more_candidates_give_what_the_whole_vocabulary_gives(
    asked: list[tuple[MadeUpModel, dict[str, float]]], beams: int
) -> None:
    options = [DecodeOptions(num_beams=beams, **chosen) for _, chosen in asked]  # type: ignore[arg-type]
    search: Search = GreedySearch(END, SIZE) if beams == 1 else BeamSearch(beams, END, SIZE)
    found = run(search, [model for model, _ in asked], options)
    for ids, option, (model, _) in zip(found, options, asked, strict=True):
        extend = with_penalties(
            model.extend, END, VOCAB, option.no_repeat_ngram_size, option.repetition_penalty, option.min_length
        )
        if beams == 1:
            assert ids == [search_greedily(extend, END, SIZE).ids]
        else:
            assert ids == [hypothesis.ids for hypothesis in search_beams(extend, END, SIZE, beams)]


def test_the_longest_translation_with_a_penalty_says_how_many_candidates_there_must_be() -> None:
    """Sentences of different age stand in one batch; those without a penalty, and those past their minimum, need none
    beyond those of the search."""
    penalties = Penalties(END)
    asked = [{"min_length": 5}, {}, {"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}]
    penalties.admit([DecodeOptions(num_beams=1, **options) for options in asked])  # type: ignore[arg-type]
    for lengths, wanted in (
        ([0, 0, 0, 0], 16),
        ([3, 90, 40, 2], 48),
        ([3, 90, 2, 40], 48),
        ([40, 90, 3, 2], 16),
        ([3, 90, 15, 2], 16),
        ([3, 90, 16, 2], 32),
    ):
        assert penalties.num_more(np.array(lengths, np.int32)) == wanted
    penalties.keep(np.array([1]))
    assert penalties.num_more(np.array([90], np.int32)) == 0


def test_no_ngram_twice_and_no_early_end() -> None:
    model = MadeUpModel(seed=3, remembers=False)
    plain, no_bigram, long = (
        run(GreedySearch(END, SIZE), [model], [DecodeOptions(num_beams=1, **chosen)])[0][0]  # type: ignore[arg-type]
        for chosen in ({}, {"no_repeat_ngram_size": 2, "min_length": SIZE}, {"min_length": 9})
    )
    assert len(set(plain)) < len(plain) or len(plain) == 1, "the model says one thing only"
    bigrams = list(zip(no_bigram, no_bigram[1:], strict=False))
    assert len(set(bigrams)) == len(bigrams)
    assert END not in long[:9]


def test_a_minimum_costs_nothing_where_there_is_room_and_once_it_is_reached() -> None:
    """A model may ask for one in every request: only greedy search needs a candidate more, and only until then."""
    begin, later = np.zeros(1, np.int32), np.ones(1, np.int32)
    for search, more in ((GreedySearch(END, SIZE), 1), (BeamSearch(2, END, SIZE), 0)):
        search.admit([DecodeOptions(num_beams=search.num_beams, min_length=1)], [SIZE])
        penalties = search.penalties
        assert penalties.num_more(begin) == more
        ids, values = np.array([[[END, 3]]]), np.array([[[-1.0, -2.0]]], np.float32)
        ids, values = penalties.apply(ids, values, search.prefixes[:, :1], begin)
        assert ids[0, 0].tolist() == [3, END]
        assert np.isneginf(values[0, 0, 1])
        assert penalties.num_more(later) == 0
        assert not penalties.some


def test_an_ngram_is_complete_with_its_last_token_only() -> None:
    # "5 6 7 5 6": of trigrams, 7 would repeat "5 6 7"; of bigrams, 7 follows 6; of single tokens, all three are taken.
    tokens = np.array([[[5, 6, 7, 5, 6, -1]]], np.int32)
    candidates = np.array([[[5, 6, 7, 8]]])
    for size, banned in ((3, [7]), (2, [7]), (1, [5, 6, 7]), (4, [])):
        found = completes_ngram(candidates, tokens, np.array([5]), size)
        assert candidates[found].tolist() == banned


def test_rows_that_are_not_numbers_stay_so() -> None:
    penalties = Penalties(END)
    penalties.admit([DecodeOptions(num_beams=1, min_length=5)])
    ids, values = np.array([[[END, 3]]]), np.full((1, 1, 2), np.nan, np.float32)
    _, values = penalties.apply(ids, values, np.zeros((1, 1, SIZE), np.int32), np.zeros(1, np.int32))
    assert np.isnan(values).all()


@pytest.mark.parametrize(
    "option",
    [{"no_repeat_ngram_size": 17}, {"repetition_penalty": 0.9}, {"min_length": -1}, {"repetition_penalty": np.nan}],
)
def test_options_out_of_range(option: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        DecodeOptions(**option)  # type: ignore[arg-type]


def test_min_length_above_max_length() -> None:
    with pytest.raises(ValueError, match=r"min_length \(6\) must be <= max_length \(5\)"):
        DecodeOptions(min_length=6, max_length=5)
