"""A given translation on its way to the scorer and back, with a made-up model's numbers."""

from unittest.mock import Mock

import numpy as np
import pytest

from service.engine.given_pairs import GivenPair
from service.engine.languages import LanguageChoice
from service.engine.request import Priority
from service.engine.scoring import PairAnswer, PairResult, TokenScore
from service.errors import EngineFailure
from service.runtime.bundle import Language
from service.runtime.score_session import Scored

END = 2
# "ab c" to "x yz"; the model wants 9 before every source, and 8 first in every translation.
GIVEN = GivenPair(
    "ab c", "x yz", (9, 5, 6, END), (8, 3, 4, END), LanguageChoice(Language("en"), Language("fr", (9,), (8,)))
)
TOKENIZER = Mock(target_spans=lambda text: [(0, 1), (2, 4)], spans=lambda text: [(0, 2), (3, 4)])
ATTENTION = [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
SCORED = Scored(np.array([-9.0, -1.0, -2.0, -3.0], np.float32), np.array(ATTENTION, np.float32))


def scored(length_penalty: float) -> PairResult:
    answers: list[PairAnswer] = []
    pair = GIVEN.pair(length_penalty, Priority.BATCH, None, TOKENIZER, answers.append)
    pair.submitted_at, pair.started_at = 100.0, 103.0
    pair.on_scored(pair, SCORED)
    [answer] = answers
    assert isinstance(answer, PairResult)
    return answer


@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 1.0, 2.0])
def test_its_score_is_by_the_length_penalty_that_was_asked_for(length_penalty: float) -> None:
    """Of four tokens, as in a search: the one that the model demands costs nothing, and counts."""
    answer = scored(length_penalty)
    assert answer.log_probability == -6.0
    assert answer.score == pytest.approx(-6.0 / 4**length_penalty)
    tokens = (TokenScore(3, -1.0, (0, 1)), TokenScore(4, -2.0, (2, 4)), TokenScore(END, -3.0, (4, 4)))
    assert answer.tokens == tokens


def test_its_wait_ends_where_its_batch_begins() -> None:
    assert scored(1.0).queue_s == 3.0


def test_links_leave_out_what_stands_for_no_text() -> None:
    found = [(link.source_start, link.source_end, link.target_start, link.target_end) for link in scored(1.0).alignment]
    assert found == [(0, 2, 0, 1), (3, 4, 2, 4)]


@pytest.mark.parametrize("priority", list(Priority))
def test_it_goes_in_the_line_and_until_the_moment_that_were_asked_for(priority: Priority) -> None:
    pair = GIVEN.pair(0.5, priority, 12.5, TOKENIZER, lambda _: None)
    assert (pair.source, pair.target) == (GIVEN.source_ids, GIVEN.target_ids)
    assert (pair.priority, pair.deadline) == (priority, 12.5)
    assert pair.options.length_penalty == 0.5


def test_what_cannot_be_put_together_is_answered_all_the_same() -> None:
    answers: list[PairAnswer] = []
    pair = GIVEN.pair(1.0, Priority.BATCH, None, Mock(target_spans=Mock(side_effect=IndexError)), answers.append)
    pair.on_scored(pair, SCORED)
    assert [type(answer) for answer in answers] == [EngineFailure]
