"""Greedy and beam search over arrays against the slow, obvious search, on made-up probabilities."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.reference_decode import search_beams, search_greedily
from service.decoding.beam import BeamSearch
from service.decoding.greedy import GreedySearch
from service.decoding.options import DecodeOptions
from service.decoding.search import Found, Search
from tests.unit.decoding.made_up_model import END, MadeUpModel

SIZE = 12


@dataclass(frozen=True)
class Sentence(MadeUpModel):
    """A made-up model and what is asked of it."""

    max_length: int = SIZE
    length_penalty: float = 1.0
    arrives: int = 0


def run(search: Search, sentences: list[Sentence]) -> dict[Sentence, list[Found]]:
    """Feeds candidates step by step; sentences join when they arrive and leave when they are done."""
    here: list[Sentence] = []
    prefixes: list[list[list[int]]] = []
    results: dict[Sentence, list[Found]] = {}
    for step in range(SIZE + max(s.arrives for s in sentences) + 1):
        new = [s for s in sentences if s.arrives == step]
        if new:
            options = [DecodeOptions(num_beams=search.num_beams, length_penalty=s.length_penalty) for s in new]
            search.admit(options, [s.max_length for s in new])
            here += new
            prefixes += [[[] for _ in range(search.num_beams)] for _ in new]
        if not here:
            continue
        tables = [[s.log_probabilities(p) for p in beams] for s, beams in zip(here, prefixes, strict=True)]
        table = np.array(tables, np.float32)
        ids = np.argsort(-table, axis=2, kind="stable")[:, :, : search.num_candidates]
        advance = search.advance(ids, np.take_along_axis(table, ids, axis=2))
        for i in np.flatnonzero(advance.done):
            results[here[i]] = search.found(int(i))
        parents = advance.parents
        if parents is None:
            parents = np.zeros((len(here), 1), int)
        prefixes = [
            [[*prefixes[i][parents[i, k]], int(advance.tokens[i, k])] for k in range(search.num_beams)]
            for i in range(len(here))
        ]
        search.keep(np.flatnonzero(~advance.done))
        prefixes = [p for p, done in zip(prefixes, advance.done, strict=True) if not done]
        here = [s for s, done in zip(here, advance.done, strict=True) if not done]
    assert not here, "every sentence ends by its max_length"
    return results


made_up = st.builds(
    Sentence,
    seed=st.integers(0, 10**6),
    remembers=st.just(True),
    max_length=st.integers(1, SIZE),
    length_penalty=st.sampled_from([0.0, 0.6, 1.0, 2.0]),
    arrives=st.integers(0, 5),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(made_up, min_size=1, max_size=5, unique=True), st.sampled_from([2, 3, 4, 7]))
def test_beam_search_is_the_reference_whoever_it_shares_steps_with(sentences: list[Sentence], beams: int) -> None:
    results = run(BeamSearch(beams, END, SIZE), sentences)
    for sentence in sentences:
        wanted = search_beams(sentence.extend, END, sentence.max_length, beams, sentence.length_penalty)
        found = results[sentence]
        assert [list(f.ids) for f in found] == [w.ids for w in wanted]
        assert [f.score for f in found] == pytest.approx([w.score for w in wanted], abs=1e-5)
        assert all(f.ended == (f.ids[-1] == END) for f in found)


@settings(max_examples=40, deadline=None)
@given(st.lists(made_up, min_size=1, max_size=5, unique=True))
def test_greedy_search_is_the_reference(sentences: list[Sentence]) -> None:
    results = run(GreedySearch(END, SIZE), sentences)
    for sentence in sentences:
        wanted = search_greedily(sentence.extend, END, sentence.max_length)
        (found,) = results[sentence]
        assert list(found.ids) == wanted.ids
        length = len(found.ids)
        assert found.score == pytest.approx(found.log_probability / length**sentence.length_penalty)


def test_a_finished_hypothesis_must_stand_among_the_best_beams() -> None:
    # Two beams; the end token ranks third of the four kept extensions, so nothing finishes in this step.
    search = BeamSearch(2, END, SIZE)
    search.admit([DecodeOptions(num_beams=2)], [SIZE])
    ids = np.array([[[5, 6, END, 7], [0, 0, 0, 0]]])
    values = np.array([[[-1.0, -1.1, -1.2, -1.3], [-1.0] * 4]], np.float32)
    advance = search.advance(ids, values)
    assert advance.tokens.tolist() == [[5, 6]]
    assert search.finished.count(0) == 0


@pytest.mark.parametrize(("beams", "poisoned"), [(1, [0]), (2, [0, 1]), (4, [0]), (4, [1]), (4, [3])])
def test_only_the_sentence_with_numbers_that_are_none_fails(beams: int, poisoned: list[int]) -> None:
    """Be it all of its beams or one of them."""
    search: Search = GreedySearch(END, SIZE) if beams == 1 else BeamSearch(beams, END, SIZE)
    search.admit([DecodeOptions(num_beams=beams)] * 2, [SIZE, SIZE])
    ids = np.tile(np.arange(5, 5 + search.num_candidates), (2, beams, 1))
    values = np.full(ids.shape, -1.0, np.float32)
    values[1, poisoned] = np.nan
    assert search.advance(ids, values).failed.tolist() == [False, True]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_beams", 0),
        ("num_beams", 17),
        ("length_penalty", float("nan")),
        ("num_alternatives", 5),
        ("max_length", -1),
    ],
)
def test_options_out_of_range_name_the_field(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        DecodeOptions(**{field: value})  # type: ignore[arg-type]
