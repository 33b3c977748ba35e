"""One answer made of those of three sentences."""

from unittest.mock import Mock

import pytest

from service.decoding.options import DecodeOptions
from service.engine.pending_text import PendingText, each_text_once
from service.engine.request import (
    Alternative,
    FinishReason,
    Hypothesis,
    SentenceResult,
    TextAnswer,
    TextResult,
    Timings,
)
from service.text.splitter import SplitText

ENDED, LIMITED, REPEATED = FinishReason.END_TOKEN, FinishReason.LENGTH_LIMIT, FinishReason.REPETITION
SPLIT = SplitText(("one.", "two.", "three."), ("", " ", "\n", ""), was_cut=True)


def result(reason: FinishReason, ids: tuple[int, ...], log_probability: float, *stages: float) -> SentenceResult:
    return SentenceResult((Hypothesis(ids, log_probability, 0.0, reason),), Timings(*stages))


def answer_of(*results: SentenceResult, length_penalty: float = 1.0) -> TextResult:
    """The answer of the text, whose sentences are answered from the last to the first."""
    answers: list[TextAnswer] = []
    tokenizer = Mock(decode=lambda many: [f"<{' '.join(map(str, ids))}>" for ids in many])
    options = DecodeOptions(length_penalty=length_penalty)
    pending = PendingText(3, SPLIT, options, tokenizer, lambda index, answer: answers.append(answer))
    pending.prepare_s, pending.num_source_tokens = 0.25, 12
    for place, one in reversed(list(enumerate(results))):
        pending.receive(place, one)
    [answer] = answers
    assert isinstance(answer, TextResult)
    return answer


def test_it_is_put_together_in_order_and_as_slow_as_its_slowest_sentences() -> None:
    answer = answer_of(
        result(ENDED, (5, 2), -1.0, 1.0, 6.0, 2.0),
        result(ENDED, (6, 7, 2), -2.0, 3.0, 5.0, 9.0),
        result(ENDED, (8, 9, 4, 2), -3.0, 2.0, 4.0, 8.0),
    )
    assert answer.text == "<5 2> <6 7 2>\n<8 9 4 2>"
    assert (answer.num_source_tokens, answer.num_target_tokens, answer.num_sentences) == (12, 9, 3)
    assert answer.split
    stages = answer.timings
    assert (stages.queue_s, stages.encode_s, stages.decode_s, stages.prepare_s) == (3.0, 6.0, 9.0, 0.25)
    assert stages.finish_s >= 0
    assert stages.align_s == 0


@pytest.mark.parametrize("length_penalty", [0.0, 0.5, 2.0])
def test_its_score_is_that_of_all_its_tokens(length_penalty: float) -> None:
    results = [result(ENDED, (5, 2), -1.0), result(ENDED, (6, 2), -2.0), result(ENDED, (7, 8, 9, 4, 2), -3.0)]
    assert answer_of(*results, length_penalty=length_penalty).score == pytest.approx(-6 / 9**length_penalty)


@pytest.mark.parametrize(
    ("reasons", "worst"),
    [
        ((ENDED, ENDED, ENDED), ENDED),
        ((ENDED, LIMITED, ENDED), LIMITED),
        ((ENDED, ENDED, REPEATED), REPEATED),
        ((REPEATED, ENDED, LIMITED), REPEATED),
    ],
)
def test_it_ended_as_the_worst_of_them(reasons: tuple[FinishReason, ...], worst: FinishReason) -> None:
    """Whichever that is; and of each kind it says that there was one."""
    answer = answer_of(*(result(reason, (5, 2), -1.0) for reason in reasons))
    assert answer.finish_reason is worst
    assert answer.length_limited == (LIMITED in reasons)
    assert answer.repetition_found == (REPEATED in reasons)


def test_each_text_is_shown_once_with_its_best_score() -> None:
    """Other tokens may make the same text."""
    found = [Alternative(text, (number,), -float(number)) for number, text in enumerate(["a", "b", "a", "c", "b"])]
    assert each_text_once(found) == (found[0], found[1], found[3])
