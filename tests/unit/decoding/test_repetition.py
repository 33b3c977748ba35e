"""Loops are found by their definition, in every search, and what only looks like one survives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.reference_decode import Extend, is_looping, search_beams, search_greedily
from service.decoding.beam import BeamSearch
from service.decoding.greedy import GreedySearch
from service.decoding.options import DecodeOptions
from service.decoding.repetition import LoopWatch, longest_run
from service.decoding.search import Found, Search

END, SIZE = 2, 200
PLAIN = (5, 6, 7, 2)


def is_found(ids: list[int], source: tuple[int, ...] = PLAIN) -> bool:
    watch = LoopWatch()
    watch.admit([source])
    padded = np.zeros((1, SIZE), np.int32)
    padded[0, : len(ids)] = ids
    return watch.looping(padded, np.array([len(ids)], np.int32)) == [0]


@pytest.mark.parametrize(
    ("ids", "is_loop"),
    [
        ([9] * 16, True),
        ([8] * 8 + [9] * 16, True),
        ([4, 5] * 8, True),
        ([4, 5, 6] * 5 + [4], True),
        (list(range(10, 26)) * 4, True),
        ([9] * 15 + [8], False),
        ([8] + [9] * 15, False),  # 15 are not 16
        (list(range(10, 26)) * 3, False),  # three times are not four
        (list(range(10, 27)) * 4, False),  # 17 tokens are no short n-gram
        ([9] * 17, False),  # not looked at: 17 is no multiple of 8
        ([20, 21, 22, 23, 24, 25, 26, 27, 9, 9, 9, 10, 28, 29, 30, 31], False),  # "no no no"
    ],
)
def test_what_is_a_loop(ids: list[int], is_loop: bool) -> None:
    assert is_found(ids) == is_loop
    assert is_looping(ids, PLAIN) == is_loop


def test_a_source_that_repeats_itself_may_be_translated_so() -> None:
    refrain = (7, 8) * 6
    assert longest_run((5, 6, *refrain, 2)) == 12
    assert not is_found([9, 10] * 12, (5, 6, *refrain, 2))
    assert is_found([9, 10] * 16, (5, 6, *refrain, 2))
    assert not is_found([9, 10] * 16, ())  # nobody asked


few_tokens = st.lists(st.integers(3, 5), max_size=6)


@settings(max_examples=300, deadline=None)
@given(few_tokens, few_tokens, st.integers(1, 30), few_tokens, st.integers(0, 9))
def test_fast_is_the_slow_definition(
    head: list[int], unit: list[int], times: int, unit_of_source: list[int], times_of_source: int
) -> None:
    ids, source = (head + unit * times)[:SIZE], (*unit_of_source * times_of_source, 3, END)
    for length in range(1, len(ids) + 1):
        assert is_found(ids[:length], source) == is_looping(ids[:length], source)


def babble(prefix: list[int]) -> np.ndarray:
    """Says 10, 11, 12 for ever; its second choice is another word, its third the end token."""
    wanted = 10 + len(prefix) % 3
    table = np.full(30, -9.0, np.float32)
    table[[wanted, 20, END]] = -0.1, -3.0, -4.0
    return table


def extend() -> Extend:
    return lambda prefix, count: tuple(torch.from_numpy(babble(prefix)).topk(count))  # type: ignore[return-value]


def run(search: Search, max_length: int, source: tuple[int, ...], length_penalty: float = 1.0) -> list[Found]:
    options = DecodeOptions(num_beams=search.num_beams, length_penalty=length_penalty)
    search.admit([options], [max_length], [source])
    prefixes: list[list[int]] = [[] for _ in range(search.num_beams)]
    while True:
        table = np.stack([babble(prefix) for prefix in prefixes])[None]
        ids = np.argsort(-table, axis=2, kind="stable")[:, :, : search.num_candidates]
        advance = search.advance(ids, np.take_along_axis(table, ids, axis=2))
        if advance.done[0]:
            return search.found(0)
        parents = [0] if advance.parents is None else advance.parents[0]
        prefixes = [[*prefixes[p], int(t)] for p, t in zip(parents, advance.tokens[0], strict=True)]


def test_greedy_search_stops_where_the_definition_says() -> None:
    (found,) = run(GreedySearch(END, SIZE), 150, PLAIN)
    assert (len(found.ids), found.ended, found.repeats) == (16, False, True)
    assert list(found.ids) == search_greedily(extend(), END, 150, PLAIN).ids
    (unwatched,) = run(GreedySearch(END, SIZE), 150, ())
    assert (len(unwatched.ids), unwatched.repeats) == (150, False)


@pytest.mark.parametrize("beams", [2, 4])
@pytest.mark.parametrize("length_penalty", [0.6, 1.0, 2.0])
def test_beam_search_stops_where_the_definition_says(beams: int, length_penalty: float) -> None:
    found = run(BeamSearch(beams, END, SIZE), 150, PLAIN, length_penalty)
    wanted = search_beams(extend(), END, 150, beams, length_penalty, PLAIN)
    assert [list(f.ids) for f in found] == [w.ids for w in wanted]
    assert [f.score for f in found] == pytest.approx([w.score for w in wanted], abs=1e-4)
    assert max(len(f.ids) for f in found) <= 16


def test_a_loop_at_max_length_is_a_repetition_too() -> None:
    (found,) = run(GreedySearch(END, SIZE), 21, (*[7] * 8, END))
    assert (len(found.ids), found.repeats) == (21, True)


def test_a_sentence_that_leaves_takes_its_source_along() -> None:
    search = GreedySearch(END, SIZE)
    search.admit([DecodeOptions(num_beams=1)] * 3, [SIZE] * 3, [(), PLAIN, ()])
    search.keep(np.array([1, 2]))
    assert search.loops.sources == [PLAIN, ()]
