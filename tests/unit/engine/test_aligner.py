"""What is asked of the scorer for a translation that is done, and what becomes of its answers."""

import time
from unittest.mock import Mock

import numpy as np
import pytest

from service.decoding.options import DecodeOptions
from service.engine.aligner import TextAlignment
from service.engine.pending_text import PendingText
from service.engine.request import (
    FinishReason,
    Hypothesis,
    Priority,
    Sentence,
    SentenceResult,
    TextAnswer,
    TextResult,
    Timings,
)
from service.engine.scoring import Pair
from service.errors import EngineFailure, Overloaded
from service.runtime.score_session import Scored
from service.text.splitter import SplitText

END = 2
TOKENIZER = Mock(
    decode=lambda many: ["xy" for _ in many],
    spans=lambda text: [(0, len(text))],
    decoded_spans=lambda ids: [(0, 2)],
)  # fmt: skip


class Aligned:
    """A text "ab. cd." of two sentences that were translated to "xy" each; its pairs wait with ``scorer``."""

    def __init__(self, priority: Priority = Priority.INTERACTIVE, failure: Exception | None = None) -> None:
        self.answers: list[TextAnswer] = []
        self.scorer = Mock(submit=Mock(side_effect=failure))
        text = PendingText(0, SplitText(("ab.", "cd."), ("", " ", ""), False), DecodeOptions(), TOKENIZER, self.receive)
        self.sentences = [
            Sentence((5 + place, END), DecodeOptions(), 9, text.receiver(place), priority, deadline=70.0 + place)
            for place in range(2)
        ]
        text.align = TextAlignment(text, self.sentences, 0, TOKENIZER, self.scorer).start
        self.began_at = time.monotonic()
        for place, sentence in enumerate(self.sentences):
            hypothesis = Hypothesis((7 + place, END), -1.0, -0.5, FinishReason.END_TOKEN)
            sentence.on_done(SentenceResult((hypothesis,), Timings()))

    def receive(self, index: int, answer: TextAnswer) -> None:
        self.answers.append(answer)

    @property
    def pairs(self) -> list[Pair]:
        [submitted] = self.scorer.submit.call_args_list
        return list(submitted.args[0])


@pytest.mark.parametrize("priority", list(Priority))
def test_pairs_wait_as_their_sentences_did(priority: Priority) -> None:
    """In the same line, until the same moment, and for the same caller."""
    aligned = Aligned(priority)
    assert [pair.source for pair in aligned.pairs] == [(5, END), (6, END)]
    assert [pair.target for pair in aligned.pairs] == [(7, END), (8, END)]
    assert [pair.deadline for pair in aligned.pairs] == [70.0, 71.0]
    assert {pair.priority for pair in aligned.pairs} == {priority}
    assert {pair.options.num_beams for pair in aligned.pairs} == {1}, "a pair is one row, however wide the search was"
    aligned.sentences[1].cancelled = True
    assert [pair.is_cancelled for pair in aligned.pairs] == [False, True]


def test_the_answer_waits_for_all_links_and_says_how_long() -> None:
    aligned = Aligned()
    scored = Scored(np.zeros(2, np.float32), np.ones((2, 2), np.float32))
    first, second = aligned.pairs
    second.on_scored(second, scored)
    assert aligned.answers == []
    first.on_scored(first, scored)
    [answer] = aligned.answers
    assert isinstance(answer, TextResult)
    links = [(link.source_start, link.source_end, link.target_start, link.target_end) for link in answer.alignment]
    assert links == [(0, 3, 0, 2), (4, 7, 3, 5)]
    assert 0 < answer.timings.align_s <= time.monotonic() - aligned.began_at


def test_a_sentence_that_cannot_be_scored_fails_the_text() -> None:
    aligned = Aligned()
    for pair in aligned.pairs:
        pair.on_scored(pair, EngineFailure())
    assert [type(answer) for answer in aligned.answers] == [EngineFailure]


def test_a_scorer_that_takes_nothing_more_is_the_answer() -> None:
    refusal = Overloaded("full", 1.0)
    assert Aligned(failure=refusal).answers == [refusal]
