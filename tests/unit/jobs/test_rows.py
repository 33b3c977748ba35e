"""What becomes of an answer in a row."""

import pytest

from service.errors import EngineFailure
from service.jobs.rows import LENGTH_LIMITED, NO_TEXT, NOTHING_TO_DO, REPETITION, SPLIT, TOLD_OF, Outcome, outcome_of
from tests.unit.transport.scripted_translator import result_of


@pytest.mark.parametrize(
    ("field", "flag"), [("split", SPLIT), ("length_limited", LENGTH_LIMITED), ("repetition_found", REPETITION)]
)
def test_each_thing_that_a_translation_may_lack_is_a_flag_of_its_own(field: str, flag: str) -> None:
    outcome = outcome_of(result_of("a")._replace(**{field: True}))  # type: ignore[arg-type]
    assert outcome == Outcome("A", -0.5, (flag,), num_tokens=2)
    assert flag in TOLD_OF


def test_flags_have_one_order() -> None:
    answer = result_of("a")._replace(split=True, length_limited=True, repetition_found=True)
    assert outcome_of(answer).flags == ("split", "length_limited", "repetition")


def test_a_translation_alone_has_no_alternatives() -> None:
    assert outcome_of(result_of("a")) == Outcome("A", -0.5, num_tokens=2)
    assert outcome_of(result_of("a", 2)).alternatives == (("A", -0.5), ("A'", -1.5))


def test_a_failure_is_told_of_by_its_reason() -> None:
    assert outcome_of(EngineFailure()) == Outcome(flags=("error",), reason=str(EngineFailure()))
    assert Outcome(flags=(NO_TEXT,)) == NOTHING_TO_DO
