"""What a model demands of every search, on hand-made candidates, and by the oracle's definition."""

import numpy as np
import pytest

from service.decoding.beam import BeamSearch
from service.decoding.greedy import GreedySearch
from service.decoding.options import DecodeOptions
from service.decoding.rules import DecodingRules

END = 2


def candidates(*rows: list[tuple[int, float]]):
    """One sentence, a row of (id, log-probability) for each beam."""
    ids = np.array([[[token for token, _ in row] for row in rows]], np.int64)
    return ids, np.array([[[value for _, value in row] for row in rows]], np.float32)


def test_banned_tokens_leave_the_others_in_order():
    rules = DecodingRules(END, banned=(9, 5))
    ids, values = rules.apply(
        *candidates([(9, -0.1), (4, -1.0), (5, -1.5), (6, -2.0)], [(1, -0.2), (3, -0.4), (9, -3.0), (8, -4.0)]),
        np.zeros(1, np.int32),
        np.array([9], np.int32),
        [()],
    )
    assert ids.tolist() == [[[4, 6], [1, 3]]]
    assert np.allclose(values, [[[-1.0, -2.0], [-0.2, -0.4]]])


@pytest.mark.parametrize("beams", [1, 3])
def test_the_first_token_is_forced_at_no_cost_and_the_last_is_the_end(beams: int):
    rules = DecodingRules(END, force_end=True)
    search = GreedySearch(END, 8) if beams == 1 else BeamSearch(beams, END, 8)
    search.admit([DecodeOptions(num_beams=beams, length_penalty=0.0)], [3])
    for step in range(3):
        row = [(token, -0.5 - step - rank / 100) for rank, token in enumerate((4, 5, 6, 7, 3, 1))]
        given = rules.apply(*candidates(*[row] * beams), search.lengths, search.max_lengths, [(7,)])
        advance = search.advance(*given)
    assert advance.done.all()
    best = search.found(0)[0]
    assert best.ids == (7, 4, END)
    assert best.score == pytest.approx(-1.5)


def test_what_is_no_number_still_fails():
    rules = DecodingRules(END)
    search = GreedySearch(END, 8)
    search.admit([DecodeOptions(num_beams=1)], [3])
    given = rules.apply(*candidates([(4, np.nan)]), search.lengths, search.max_lengths, [(7,)])
    assert search.advance(*given).failed.all()


def test_a_search_may_end_with_as_many_hypotheses_as_beams():
    """Two finished hypotheses, and a live one that would beat them."""
    far = [(5, -9.0), (6, -9.5), (7, -9.7), (8, -9.8)]
    done = {}
    for stop in (False, True):
        search = BeamSearch(2, END, 8, stop_at_beams=stop)
        search.admit([DecodeOptions(num_beams=2)], [8])
        first = candidates([(4, -0.1), (END, -3.0), (5, -3.5), (6, -9.0)], far)
        assert not search.advance(*first).done[0]
        done[stop] = bool(search.advance(*candidates([(4, -0.1), (END, -5.0), (6, -9.0), (7, -9.0)], far)).done[0])
        assert [round(found.score, 4) for found in search.found(0)] == [-2.55, -3.0]
        if not stop:
            search.advance(*candidates([(END, -0.01), (4, -9.0), (5, -9.0), (6, -9.0)], far))
            assert search.found(0)[0].score == pytest.approx(-0.21 / 3)
    assert done == {False: False, True: True}
